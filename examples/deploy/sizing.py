"""How many queues, storage accounts and worker processes a rate of jobs takes: the tables of docs/sizing.md.

    python -m examples.deploy.sizing
    python -m examples.deploy.sizing --rate 50000 --bundle 1 --seconds 0.2 --concurrency 64

The plan is arithmetic. Then a minute of it is simulated, second by second: producers choose a queue at random, and for
ten seconds half as many jobs again come as were planned for. What queues and accounts don't take waits.
"""

import argparse
import math
import random
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

# https://learn.microsoft.com/azure/storage/queues/scalability-targets, at 1 KiB a message. It counts in messages; taken
# here as requests that put, get or delete one, which is the careful reading.
QUEUE_LIMIT = 2_000
ACCOUNT_LIMIT = 20_000
# Measured (docs/performance.md): requests a job from put to delete, and seconds of a worker's CPU a job.
REQUESTS = {1: 2.03, 100: 0.03}
CPU = {1: 0.00043, 100: 0.00008}

RATES = (100, 1_000, 10_000, 100_000, 1_000_000)
SPARES = (0.02, 0.05, 0.1, 0.2, 0.4)
MINUTE, BURST, BURST_BEGINS, BURST_ENDS = 60, 1.5, 20, 30
SEED = 2026


class Load(NamedTuple):
    """What is to be done."""

    rate: int
    """Jobs a second."""
    bundle: int
    """Jobs in a message."""
    seconds: float
    """That a job takes a slot."""
    cpu: float
    """Seconds of CPU that a job itself takes."""


class Plan(NamedTuple):
    """What it takes."""

    requests: float
    """A second, of all."""
    queues: int
    accounts: int
    processes: int


def plan(load: Load, *, concurrency: int, spare: float) -> Plan:
    """Return what a load takes if *spare* of each limit is to stay unused."""
    used = 1 - spare
    requests = load.rate * REQUESTS[load.bundle]
    accounts = math.ceil(requests / (ACCOUNT_LIMIT * used))
    queues = max(accounts, math.ceil(requests / (QUEUE_LIMIT * used)))
    cores = load.rate * (CPU[load.bundle] + load.cpu) / used
    slots = load.rate * load.seconds / used
    return Plan(requests, queues, accounts, math.ceil(max(cores, slots / concurrency)))


def longest_wait(load: Load, planned: Plan, chance: random.Random) -> float:
    """Simulate a minute; return for how many seconds the last job of the longest queue waits for its turn."""
    each = REQUESTS[load.bundle] * load.bundle  # requests a message
    messages = load.rate / load.bundle / planned.queues
    waiting = [[0.0] * len(range(account, planned.queues, planned.accounts)) for account in range(planned.accounts)]
    longest = 0.0
    for second in range(MINUTE):
        mean = messages * (BURST if BURST_BEGINS <= second < BURST_ENDS else 1)
        for queues in waiting:
            come = [queue + each * max(0.0, chance.gauss(mean, math.sqrt(mean))) for queue in queues]
            served = [min(queue, QUEUE_LIMIT) for queue in come]
            share = ACCOUNT_LIMIT / max(ACCOUNT_LIMIT, sum(served))
            queues[:] = [queue - share * done for queue, done in zip(come, served, strict=True)]
            longest = max(longest, max(queues) / (share * QUEUE_LIMIT))
    return longest


def row(load: Load, *, concurrency: int, spare: float) -> str:
    """Return a line of the table."""
    planned = plan(load, concurrency=concurrency, spare=spare)
    wait = longest_wait(load, planned, random.Random(SEED))  # noqa: S311 — nothing is kept secret by it
    return (
        f"| {load.rate:,} | {load.bundle} | {spare:.0%} | {planned.requests:,.0f} | {planned.queues:,} "
        f"| {planned.accounts:,} | {planned.processes:,} | {wait:.1f} |"
    )


HEAD = (
    "| jobs/s | jobs a message | spare | requests/s | queues | accounts | processes | longest wait, s |\n"
    "|---|---|---|---|---|---|---|---|"
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=int, metavar="N", help="jobs a second [default: several]")
    parser.add_argument("--bundle", type=int, choices=sorted(REQUESTS), help="jobs in a message [default: both]")
    parser.add_argument("--seconds", type=float, default=0.01, metavar="S", help="how long a job takes [0.01]")
    parser.add_argument("--cpu", type=float, default=0.0, metavar="S", help="a job's own CPU time [0]")
    parser.add_argument("--concurrency", type=int, default=100, metavar="N", help="jobs at once in a process [100]")
    parser.add_argument("--spare", type=float, metavar="SHARE", help="of each limit, to stay unused [0.2]")
    asked = parser.parse_args(arguments)
    if min(1 if asked.rate is None else asked.rate, asked.concurrency) < 1 or min(asked.seconds, asked.cpu) < 0:
        parser.error("--rate and --concurrency must be at least 1, --seconds and --cpu at least 0")
    if not 0 <= (spare := 0.2 if asked.spare is None else asked.spare) < 1:
        parser.error("--spare must be at least 0 and less than 1, as in 0.2")

    rates = RATES if asked.rate is None else (asked.rate,)
    bundles = sorted(REQUESTS) if asked.bundle is None else (asked.bundle,)
    print(HEAD)
    for bundle, rate in product(bundles, rates):
        load = Load(rate, bundle, asked.seconds, asked.cpu)
        print(row(load, concurrency=asked.concurrency, spare=spare))
    if asked.rate is None and asked.spare is None:
        print("\n" + HEAD)
        for some in SPARES:
            print(row(Load(100_000, 1, asked.seconds, asked.cpu), concurrency=asked.concurrency, spare=some))


if __name__ == "__main__":
    main()
