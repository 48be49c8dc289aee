"""How each contestant's worker is started, with as much at once as suits it."""

import sys


def qworker(concurrency: int = 32, processes: int = 1, poll_max: float | None = None) -> list[str]:
    """Return the command for qworker."""
    run = ["qworker", "run", "bench.contestants.qworker_jobs:app", "-q", "bench", "--log-level", "warning"]
    options = ["-c", str(concurrency), "-p", str(processes), "--grace", "0s"]
    return _python(*run, *options, *([] if poll_max is None else ["--poll-max", f"{poll_max:g}s"]))


def celery() -> list[str]:
    """Return the command for Celery: threads do better here than its processes."""
    quiet = ["--loglevel", "ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    return _python("celery", "-A", "bench.contestants.celery_jobs", "worker", "-P", "threads", "-c", "16", *quiet)


def dramatiq() -> list[str]:
    """Return the command for dramatiq."""
    return _python(
        "dramatiq", "bench.contestants.dramatiq_jobs", "--processes", "2", "--threads", "8", "--skip-logging"
    )


def huey() -> list[str]:
    """Return the command for Huey."""
    consumer = "huey.bin.huey_consumer", "bench.contestants.huey_jobs.huey"
    return _python(*consumer, "--workers", "4", "--quiet", "--no-periodic")


def sdk() -> list[str]:
    """Return the command for the loop written by hand."""
    return _python("bench.contestants.sdk_jobs")


def _python(*module: str) -> list[str]:
    return [sys.executable, "-m", *module]
