"""A worker's side: what a producer in any language may enqueue.

qworker tasks examples.other_languages.mail                 # what there is
qworker tasks examples.other_languages.mail --json-schema   # the same, for programs
qworker run examples.other_languages.mail --burst
"""

from datetime import datetime

from pydantic import BaseModel

from qworker import App


class Person(BaseModel):
    """Who gets a mail."""

    name: str
    address: str


app = App()


@app.task(name="mail.send", queue="mail")
async def send(to: Person, text: str, *, at: datetime | None = None, copies: int = 1) -> None:
    """Send a text to a person."""
    print(f"to {to.name} at {to.address}: {text!r}, {copies} times, {at}")
