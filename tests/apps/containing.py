"""A task whose program leaves a process behind that ends later."""

import subprocess

from jobs import app

__all__ = ["app"]


@app.task
def leave_behind(n: int) -> None:
    subprocess.run(["sh", "-c", f"sleep 0.{n} & exit 0"], check=True)
