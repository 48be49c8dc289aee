"""A producer that does as it is told, one JSON line each way: [n, seconds], or null to close its broker.

Usage: python producer.py QUEUE
"""

import json
import sys

from jobs import app, rest
from qworker import QworkerError

[queue] = sys.argv[1:]
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
