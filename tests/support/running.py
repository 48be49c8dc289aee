"""Commands run as a user would, their output read as it comes."""

import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Process:
    """A command under way."""

    def __init__(self, command: list[str], cwd: Path, environment: Mapping[str, str] | None) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.output = ""

    def read_line(self) -> None:
        """Wait for one more line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it ended too early:\n{self.output}"
        self.output += line

    def wait_for(self, *texts: str) -> None:
        """Read on until each of *texts* was seen."""
        while not all(text in self.output for text in texts):
            self.read_line()

    def end(self, number: signal.Signals | None = None) -> int:
        """Send it a signal, or none, and read on to its end; return its exit code."""
        if number is not None:
            self.process.send_signal(number)
        assert self.process.stdout is not None
        self.output += self.process.stdout.read()
        return self.process.wait()


@contextmanager
def started(command: list[str], *, cwd: Path = ROOT, environment: Mapping[str, str] | None = None) -> Iterator[Process]:
    """Start a command, and kill it in the end if it still runs."""
    running = Process(command, cwd, environment)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.communicate()


def run(
    command: list[str],
    *,
    cwd: Path = ROOT,
    environment: Mapping[str, str] | None = None,
    exit_code: int = 0,
) -> str:
    """Run a command to its end, check how it ends, and return its output."""
    with started(command, cwd=cwd, environment=environment) as running:
        assert exit_code == running.end(), running.output
        return running.output
