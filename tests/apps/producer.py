"""A producer that does as it is told, one JSON line each way: [n, seconds], or null to close its broker.

Usage: python producer.py QUEUE [PAUSE…], the pauses in seconds before it tries again, instead of its own.
"""

import json
import sys

from jobs import app, rest
from qworker import QworkerError, enqueue

queue, *pauses = sys.argv[1:]
if pauses:
    enqueue._PAUSES = tuple(map(float, pauses))  # type: ignore[assignment, misc]
for line in sys.stdin:
    call = json.loads(line)
    answer: dict[str, str] = {}
    if call is None:
        app.close()
    else:
        try:
            answer = {"job": rest.using(queue=queue).enqueue(*call).id}
        except QworkerError as error:
            answer = {"error": type(error).__name__, "text": str(error)}
    print(json.dumps(answer), flush=True)  # noqa: T201 — it is what it is asked for
