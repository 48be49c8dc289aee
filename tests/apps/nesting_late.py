"""A task that runs one event loop in another, which nobody knows before."""

from jobs import app

__all__ = ["app"]


@app.task(max_attempts=1)
async def nest() -> None:
    import nest_asyncio

    nest_asyncio.apply()
