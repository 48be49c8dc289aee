"""Named moments in the life of a message at which a test can have the process killed, or frozen.

Nothing happens at them unless the environment says so: ``QWORKER_FAULTPOINT=after-handler:3:KILL`` sends this process
SIGKILL when it passes ``after-handler`` for the third time. docs/promises.md says which work is lost then.
"""

import asyncio
import os
import re
import signal
from collections.abc import Callable
from typing import Final

from qworker.errors import ConfigurationError

VARIABLE: Final = "QWORKER_FAULTPOINT"
_FORM: Final = re.compile(r"([a-z-]+):([1-9]\d*):([A-Z0-9]+)")


class Trap:
    """Sends a signal to this process at the n-th passage of one point."""

    def __init__(self, name: str, passage: int, number: signal.Signals) -> None:
        self._name = name
        self._left = passage
        self._number = number

    def __call__(self, name: str) -> None:
        """Pass a point."""
        if name != self._name:
            return
        self._left -= 1
        if not self._left:
            os.kill(os.getpid(), self._number)

    def soon(self, name: str) -> None:
        """Pass a point once the event loop has turned: what is awaited next is under way by then."""
        asyncio.get_running_loop().call_soon(self, name)


def trap_of(text: str) -> Trap:
    """Return what *text* asks for, as in "after-handler:3:KILL". Raises ConfigurationError."""
    found = _FORM.fullmatch(text)
    number = getattr(signal, f"SIG{found[3]}", None) if found else None
    if found is None or not isinstance(number, signal.Signals):
        raise ConfigurationError(f"{VARIABLE}: {text!r} is not NAME:PASSAGE:SIGNAL, as in after-handler:3:KILL")
    return Trap(found[1], int(found[2]), number)


def _pass_by(_: str) -> None:
    """Do nothing: what a point costs is one call."""


_text: Final = os.environ.get(VARIABLE)
_trap: Final = trap_of(_text) if _text else None
faultpoint: Final[Callable[[str], None]] = _trap or _pass_by
faultpoint_soon: Final[Callable[[str], None]] = _trap.soon if _trap else _pass_by
