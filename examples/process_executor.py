"""Work that keeps a CPU busy runs in child processes: on all cores, and a timeout can end it in mid-computation.

    python -m examples.process_executor primes.txt
    qworker run examples.process_executor --burst -c 2     # -c 2: two children at most

A plain function runs in a thread unless it asks for more; a thread shares its interpreter with all others.
"""

import sys
from pathlib import Path

from qworker import Backoff, task


@task(executor="process")
def count_primes(below: int, results: Path) -> None:
    """Run in a child process, which imports this module anew and stays for the next job."""
    sieve = bytearray([1]) * below
    sieve[:2] = b"\0\0"
    for number in range(2, int(below**0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, below, number)))
    with results.open("a") as file:  # where other processes can read it: a file here, a database elsewhere
        file.write(f"{sum(sieve)} primes below {below}\n")


@task(executor="process", timeout=1, max_attempts=2, backoff=Backoff(base=0))
def never_ends() -> None:
    """Show a timeout: the child is killed, the attempt failed; after two, the job is in the poison queue."""
    while True:
        pass


if __name__ == "__main__":
    count_primes.enqueue_many((below, sys.argv[1]) for below in (10_000, 100_000, 1_000_000))
    never_ends.enqueue()
