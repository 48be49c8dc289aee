"""A task that tells which event loop it runs on, and one that holds it up."""

import asyncio
import time

from qworker import App, current

app = App()


@app.task
async def which() -> None:
    current().log.info("which", module=type(asyncio.get_running_loop()).__module__.partition(".")[0])


@app.task
async def block() -> None:
    time.sleep(4)  # noqa: ASYNC251 — what it is for
