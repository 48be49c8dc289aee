"""A handler with a mistake, until it is mended: it knows too few currencies."""

import os

from jobs import app
from qworker import Backoff

__all__ = ["app"]
CURRENCIES = os.environ.get("CURRENCIES", "EUR").split(",")


@app.task(max_attempts=2, backoff=Backoff(base=0))
async def bill(number: int, currency: str) -> None:
    if currency not in CURRENCIES:
        raise ValueError(f"number {number}: no rate for {currency}")
