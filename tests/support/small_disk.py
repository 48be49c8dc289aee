"""Disks that can be filled, and made room on again, under processes that work there."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

_OWN_MOUNTS: Final = ("unshare", "--user", "--map-root-user", "--mount")
_SIZE: Final = "4m"


class SmallDisk(Protocol):
    """A folder whose files may run out of room."""

    folder: Path

    @property
    def prefix(self) -> list[str]:
        """What a command begins with that is to see the folder."""

    def seen_from_here(self, file: Path) -> Path:
        """Return where this process finds a file in the folder."""

    def fill(self, *pids: int) -> None:
        """Leave no room to these processes."""

    def make_room(self, *pids: int) -> None:
        """Let them go on."""


@dataclass
class Quota:
    """The kernel's limit on the size of a process's files: the database's log can't grow."""

    folder: Path

    @property
    def prefix(self) -> list[str]:
        return []

    def seen_from_here(self, file: Path) -> Path:
        return file

    def fill(self, *pids: int) -> None:
        size = max((log.stat().st_size for log in self.folder.glob("*-wal")), default=4096)
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def make_room(self, *pids: int) -> None:
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@dataclass
class Tmpfs:
    """A file system of a few megabytes, which only processes with the prefix see."""

    folder: Path
    holder: int
    """A process that sees it."""

    @property
    def prefix(self) -> list[str]:
        return ["nsenter", f"--target={self.holder}", "--user", "--mount", "--preserve-credentials"]

    def seen_from_here(self, file: Path) -> Path:
        return Path(f"/proc/{self.holder}/root{file}")

    def fill(self, *pids: int) -> None:
        ballast = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        with suppress(OSError):
            while True:
                os.write(ballast, bytes(4096))
        os.close(ballast)

    def make_room(self, *pids: int) -> None:
        self._ballast.unlink()

    @property
    def _ballast(self) -> Path:
        return self.seen_from_here(self.folder / "ballast")


def may_mount() -> bool:
    """Say whether an ordinary user may have mounts of their own here."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return False
    tried = subprocess.run([*_OWN_MOUNTS, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False)
    return tried.returncode == 0


@contextmanager
def mounted(folder: Path) -> Iterator[Tmpfs]:
    """Mount a small file system on a folder, for as long as the block."""
    script = f'mount -t tmpfs -o size={_SIZE} none "$0" && echo mounted && exec cat'
    command = [*_OWN_MOUNTS, "sh", "-c", script, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert "mounted\n" == holder.stdout.readline()
        yield Tmpfs(folder, holder.pid)


DISKS: Final = ["quota", "tmpfs"] if sys.platform == "linux" and may_mount() else ["quota"]


@contextmanager
def small_disk(kind: str, folder: Path) -> Iterator[SmallDisk]:
    folder.mkdir()
    if kind == "tmpfs":
        with mounted(folder) as disk:
            yield disk
    else:
        yield Quota(folder)
