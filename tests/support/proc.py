"""What Linux tells of processes, in /proc."""

from contextlib import suppress
from pathlib import Path

_NANO = 1e-9


def family(pid: int) -> set[int]:
    """Return the ids of a process and all that descend from it."""
    parents = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            parents[int(file.parent.name)] = int(file.read_text().rpartition(")")[2].split()[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def starved(*threads: int) -> float:
    """Return for how many seconds, ever, threads could run and got no processor; 0 where the kernel doesn't count.

    A process's id is that of its main thread too.
    """
    total = 0
    for thread in threads:
        with suppress(OSError):
            total += int(Path(f"/proc/{thread}/schedstat").read_text().split()[1])
    return total * _NANO
