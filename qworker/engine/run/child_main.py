"""A child process of the "process" executor: begins as its worker did, then runs one call after another."""

import os
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from qworker.engine.run.child import Checkpoint, ChildCall, run_in_child
from qworker.engine.run.child_wire import Saved, pack, unpack
from qworker.engine.run.forks import end_if_forked_from
from qworker.outcome import Failed, Failure, Outcome
from qworker.processes.beginning import Start
from qworker.system.parent import end_with_parent
from qworker.system.platform import KILLING, at_fork
from qworker.system.streams import forgive_output, open_standard_streams


def main() -> None:
    """Be a child: run what comes through the pipe until it ends. Its command line says who and what its worker is."""
    open_standard_streams()
    forgive_output()
    parent, pipe_fd, alive_fd = map(int, sys.argv[1:])
    end_with_parent(KILLING, parent=parent)
    # Ctrl-C in a terminal reaches every process of its group, and a service manager's SIGTERM every process of the
    # service; when a child ends is the worker's decision.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for fd in (pipe_fd, alive_fd):
        os.set_inheritable(fd, False)
    threading.Thread(target=_end_with_worker, args=(alive_fd,), name="qworker-parent-watch", daemon=True).start()
    pipe: Connection[bytes, bytes] = Connection(pipe_fd)
    at_fork(after_in_child=pipe.close)  # the pipe has to end when this process does
    with suppress(EOFError):
        _serve(pipe)


def _serve(pipe: "Connection[bytes, bytes]") -> None:
    start = Start(pipe.recv_bytes())

    async def save_state(state: Any) -> None:
        pipe.send_bytes(pack(Checkpoint(state)))
        match unpack(pipe.recv_bytes()):
            case Saved(error) if error is not None:
                raise error

    pid = os.getpid()
    while True:
        call = unpack(pipe.recv_bytes())
        if isinstance(call, ChildCall):
            outcome = _begin(start) or run_in_child(call, save_state)
            end_if_forked_from(pid)
            _flush()
            pipe.send_bytes(pack(outcome))


def _begin(start: Start) -> Outcome | None:
    """Come to where the worker's program was when it began to work; return how the call fails if that fails."""
    try:
        start.go()
    except BaseException as error:  # noqa: BLE001 — a module may do anything when it is imported
        return Failed(Failure.of(error))
    return None


def _flush() -> None:
    """Let go of what the handler printed: nobody knows whether this process will have another chance."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # it is closed, or there is none
            stream.flush()


def _end_with_worker(alive: int) -> None:
    """End the process at once when the worker is gone: its job will run again elsewhere."""
    os.read(alive, 1)
    os._exit(1)
