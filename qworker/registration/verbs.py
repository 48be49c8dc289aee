"""Knows what other libraries call what a task can do, so that an error can say what it is called here."""

from typing import Final

_ENQUEUE: Final = "enqueue(…), or 'await' with aenqueue(…)"
_LATER: Final = "using(delay=…).enqueue(…)"
_OPTIONS: Final = "using(delay=…, queue=…, ttl=…, headers=…).enqueue(…)"
_MANY: Final = "enqueue_many([…])"
_CALL: Final = "the task itself as a function"
_NO_SIGNATURES: Final = "a handler that enqueues what comes next: there are no signatures of calls"
_NO_RESULTS: Final = "a place of your own for what it returns: there are no results"
_RETRY: Final = "'raise Retry(after=…)' in the handler"
_CONTEXT: Final = "a parameter 'ctx: Context = INJECTED', or qworker.current(), in the handler"
_CRON: Final = "cron, or another timer, that calls 'qworker enqueue'"
_VERBS: Final = {
    # Celery
    "delay": _ENQUEUE,
    "apply_async": _OPTIONS,
    "apply": _CALL,
    "s": _NO_SIGNATURES,
    "si": _NO_SIGNATURES,
    "subtask": _NO_SIGNATURES,
    "chunks": _MANY,
    "starmap": _MANY,
    "map": _MANY,
    "retry": _RETRY,
    "request": _CONTEXT,
    "update_state": "ctx.checkpoint(…) in the handler",
    "AsyncResult": _NO_RESULTS,
    # Dramatiq
    "send": _ENQUEUE,
    "asend": _ENQUEUE,
    "send_with_options": _OPTIONS,
    "message": _NO_SIGNATURES,
    "message_with_options": _NO_SIGNATURES,
    "fn": "its attribute function",
    # RQ and arq
    "enqueue_call": _ENQUEUE,
    "enqueue_job": _ENQUEUE,
    "enqueue_in": _LATER,
    "enqueue_at": _LATER,
    # Huey
    "schedule": _LATER,
    "call_local": _CALL,
    "then": _NO_SIGNATURES,
    "crontab": _CRON,
    # taskiq
    "kiq": _ENQUEUE,
    "kicker": _OPTIONS,
    # procrastinate
    "defer": _ENQUEUE,
    "defer_async": "aenqueue(…)",
    "batch_defer": _MANY,
    "batch_defer_async": "aenqueue_many([…])",
    "configure": _OPTIONS,
    # django.tasks
    "call": _CALL,
    "acall": _CALL,
    "get_result": _NO_RESULTS,
    "aget_result": _NO_RESULTS,
    "run_after": _LATER,
}


def missing(owner: object, name: str) -> AttributeError:
    """Return the error of an attribute that *owner* doesn't have; it says what to use instead, if that is known."""
    text = f"{type(owner).__name__!r} object has no attribute {name!r}"
    return AttributeError(f"{text}: use {_VERBS[name]}" if name in _VERBS else text)
