"""What handlers raise is sent to a service that collects errors: Sentry here, in five lines.

    python -m examples.error_reporting
    qworker run examples.error_reporting --burst     # with SENTRY_DSN in the environment, as Sentry shows it

Sentry's own `pip install sentry-sdk` is needed. Each failed attempt is told once: what a handler raises, in whatever
executor, timeouts, and in the end that a job is given up. Retry and Snooze are no errors while attempts are left.
"""

import sentry_sdk
from sentry_sdk.integrations.logging import LoggingIntegration

from qworker import App, Backoff, FailedAttempt, Retry

app = App()
# Without this, Sentry would also make an error of each line that the worker logs about the same failure.
sentry_sdk.init(integrations=[LoggingIntegration(event_level=None)])


@app.on_error
def tell_sentry(failed: FailedAttempt) -> None:
    with sentry_sdk.new_scope() as scope:
        scope.set_tags({"task": failed.job.task, "attempt": failed.attempt, "given_up": failed.given_up})
        scope.capture_exception(failed.error)


@app.task(max_attempts=2, backoff=Backoff(base=0))
async def divide(left: int, right: int) -> None:
    print(left / right)


@app.task(max_attempts=2, backoff=Backoff(base=0))
async def wait_for_payment(order: int) -> None:
    raise Retry(f"order {order} is not paid", after=0)


@app.task(executor="process", max_attempts=1)
def parse(text: str) -> None:
    """Fail in a child process: its exception stays there, a JobFailed with its text and traceback is told of."""
    print(int(text))


if __name__ == "__main__":
    divide.enqueue(1, 0)
    wait_for_payment.enqueue(7)
    parse.enqueue("seven")
