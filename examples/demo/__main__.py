"""Measure the standard library with two worker processes: `python -m examples.demo`, or `make demo`."""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from examples.demo.files import STDLIB, has_broken_files, stdlib_files, write_broken_files
from examples.demo.report import print_failures, print_totals, read_poison, read_results
from examples.demo.tasks import QUEUE, measure
from qworker import default_app

WORKERS = 2
THREADS = 4
"""Of each worker: parsing keeps the interpreter busy, so that more of them would only take turns."""
PATIENCE = 30.0
"""Seconds without any progress after which something must be wrong."""


class DemoFailed(Exception):
    """The demo did not come to its end."""


def main() -> int:
    """Run the demo in a temporary folder and return its exit code."""
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="qworker-demo-") as folder:
        log = Path(folder, "worker.log")
        try:
            return asyncio.run(demo(console, Path(folder), log))
        except DemoFailed as error:
            console.print(f"[red]{error}[/] The worker's log ends with:")
            console.out("\n".join(log.read_text().splitlines()[-30:]))
            return 1
        except KeyboardInterrupt:
            return 130


async def demo(console: Console, folder: Path, log: Path) -> int:
    """Enqueue a job for each file, watch two worker processes do them, and say what came of it."""
    files = stdlib_files()
    console.print(f"One job for each of [bold]{len(files):,}[/] files in {STDLIB}", soft_wrap=True)
    if not has_broken_files():
        files += write_broken_files(folder / "broken")
        console.print("This Python comes without its tests: a few broken files of our own stand in for theirs.")
    broker = f"sqlite:///{folder / 'demo.db'}"
    results = folder / "results.jsonl"
    default_app.use_broker(broker)
    try:
        with workers(broker, log) as process:
            began = time.monotonic()
            jobs = await measure.aenqueue_many((file, results) for file in files)
            console.print(f"Enqueued in {time.monotonic() - began:.1f} s; {WORKERS} worker processes execute them.")
            await follow(console, process, results, len(jobs))
            seconds = time.monotonic() - began
        poisoned = await read_poison(default_app.broker.queue(f"{QUEUE}-poison"))
    finally:
        await default_app.aclose()
    measured = read_results(results)
    print_failures(console, poisoned)
    print_totals(console, len(files), measured, len(poisoned), seconds)
    if len(files) != len(measured) + len(poisoned):
        raise DemoFailed(f"{len(files)} files are not {len(measured)} measured + {len(poisoned)} failed.")
    return 0


@contextmanager
def workers(broker: str, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Keep `qworker run` running, and stop it as a service manager would: by SIGTERM."""
    command = [sys.executable, "-m", "qworker", "run", "examples.demo.tasks", "-p", str(WORKERS), "-c", str(THREADS)]
    with log.open("wb") as output:
        environment = os.environ | {"QWORKER_BROKER": broker}
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)  # noqa: S603 — our own command
    try:
        yield process
    finally:
        process.terminate()
        exit_code = process.wait()
    if exit_code != 0:
        raise DemoFailed(f"The workers ended with exit code {exit_code}.")


async def follow(console: Console, process: "subprocess.Popen[bytes]", results: Path, jobs: int) -> None:
    """Show how many jobs are done, until all are: measured, or given up."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[red]{task.fields[failed]} failed"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("measuring", total=jobs, failed=0)
        done, changed = 0, time.monotonic()
        while done < jobs:
            await asyncio.sleep(0.1)
            failed = await poison_count()
            now_done = measured_count(results) + failed
            if now_done != done:
                done, changed = now_done, time.monotonic()
            progress.update(bar, completed=done, failed=failed)
            if process.poll() is not None or time.monotonic() - changed > PATIENCE:
                raise DemoFailed(f"The workers stopped after {done} of {jobs} jobs.")


def measured_count(results: Path) -> int:
    """Return how many results there are."""
    return results.read_bytes().count(b"\n") if results.exists() else 0


async def poison_count() -> int:
    """Return how many jobs were given up."""
    queue = default_app.broker.queue(f"{QUEUE}-poison")
    return await queue.count() if queue.name in await default_app.broker.list_queues(queue.name) else 0


if __name__ == "__main__":
    sys.exit(main())
