"""Names the distribution that qworker comes in, and the commands that install its extras."""

import importlib.metadata
from typing import Final

NAME: Final = "qworker-azure"
"""Another project owns the name of the import in the package index: a hint must never name that."""


def version() -> str:
    """Return the installed version."""
    return importlib.metadata.version(NAME)


def install(extra: str) -> str:
    """Return the command that installs an extra, for a hint."""
    return f"pip install '{NAME}[{extra}]'"
