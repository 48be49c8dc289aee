"""Ends a process with its parent, by the kernel where that can: what computes in C may never come to look by itself."""

import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def end_with_parent(number: signal.Signals, *, parent: int) -> None:
    """Have this process get a signal when its parent ends, or now, if that has happened already.

    Linux alone can do it. There, the parent's end is that of its thread that started this process.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)
