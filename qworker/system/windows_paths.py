"""Tells which names of files can't be used on Windows, by their text alone."""

from pathlib import PurePath, PureWindowsPath


def mistake_in(name: str) -> str | None:
    """Return why a name means no one file there, if so."""
    path = PureWindowsPath(name)
    if path.drive and not path.root:
        return f"is relative to a directory of its own that drive {path.drive} has: write the whole path"
    if not path.drive and (drive := PureWindowsPath(name.lstrip("/\\")).drive):
        return f"has a slash too many before {drive}"
    if any(":" in part for part in path.parts[1 if path.drive else 0 :]):
        return "has a colon in it, which only the letter of a drive takes"
    return None


def share_of(path: PurePath) -> str | None:
    r"""Return the share of another machine that holds a resolved path, as in \\server\share; None for a local one.

    A letter that stands for a share is resolved to that before.
    """
    drive = path.drive.replace("/", "\\")
    if drive.upper().startswith("\\\\?\\UNC\\"):
        return "\\" + drive[len("\\\\?\\UNC") :]
    return drive if drive.startswith("\\\\") and not drive.startswith(("\\\\?\\", "\\\\.\\")) else None
