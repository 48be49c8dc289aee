"""What the files beside this one deploy: one task of the queue `mail`. Put your own app in its place."""

from qworker import INJECTED, Context, task


@task(queue="mail", max_attempts=8, timeout=20)  # below the grace, so that a stop can wait for it
async def send(to: str, text: str = "hello", *, ctx: Context = INJECTED) -> None:
    ctx.log.info("sent", to=to, length=len(text))
