"""What a process's exit code says."""

import signal


def how_it_ended(code: int | None) -> str:
    """Say how a process ended: "exit code 1", "killed by SIGKILL"."""
    if code is None or code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal has no name
        return f"killed by signal {-code}"
