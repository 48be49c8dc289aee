"""What holds for all tests of faults."""

import pytest


@pytest.fixture(autouse=True)
def untraced_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep coverage out of workers whose times are asserted: it takes its own where a process starts, ends or forks.

    Traced, CPython 3.11 also stands still while an exception waits for a thread that is in C code.
    """
    monkeypatch.setenv("COVERAGE_PROCESS_CONFIG", "")
