"""A web application that enqueues jobs and, for as long as it is small, executes them in the same process.

    pip install fastapi uvicorn
    uvicorn examples.fastapi_app:web
    curl -X POST 'localhost:8000/reports?year=2026'     # answers at once, with the job's id
    curl localhost:8000/reports/ID                      # 404 until the job is done

To move the work to other processes, keep the reports where those can write, in a database say, leave out
`jobs.worker()`, and start `qworker run examples.fastapi_app:jobs`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from fastapi import FastAPI, HTTPException

from qworker import INJECTED, App, Context

jobs = App()
reports: dict[str, str] = {}  # results are the application's own business: qworker keeps none


@jobs.task
async def write_report(year: int, *, ctx: Context = INJECTED) -> None:
    await anyio.sleep(0.2)  # the slow part
    reports[ctx.job_id] = f"All went well in {year}."


@asynccontextmanager
async def lifespan(_web: FastAPI) -> AsyncIterator[None]:
    async with jobs.worker(concurrency=4):  # stops with the server, and lets running jobs end
        yield
    await jobs.aclose()


web = FastAPI(lifespan=lifespan)


@web.post("/reports", status_code=202)
async def order_report(year: int) -> dict[str, str]:
    job = await write_report.aenqueue(year)  # the async twin of enqueue: it doesn't block the event loop
    return {"job": job.id}


@web.get("/reports/{job_id}")
async def get_report(job_id: str) -> dict[str, str]:
    if job_id not in reports:
        raise HTTPException(404, "not written yet")
    return {"report": reports[job_id]}
