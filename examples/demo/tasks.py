"""The demo's one task: measure a Python file."""

import ast
import hashlib
import json
import os
import warnings
from collections import Counter
from pathlib import Path

from qworker import Backoff, task

QUEUE = "stdlib"

warnings.simplefilter("ignore")  # ast.parse warns of what a file's author should know, not we


@task(queue=QUEUE, max_attempts=3, backoff=Backoff(base=1, factor=1, jitter=0))
def measure(path: Path, results: Path) -> None:
    """Append what *path* holds to *results*; a file that is no Python is an exception, and so a failed attempt."""
    source = path.read_bytes()
    nodes = Counter(type(node) for node in ast.walk(ast.parse(source, path.name)))
    measured = {
        "path": str(path),
        "sha256": hashlib.sha256(source).hexdigest(),
        "lines": source.count(b"\n"),
        "functions": nodes[ast.FunctionDef] + nodes[ast.AsyncFunctionDef],
        "classes": nodes[ast.ClassDef],
    }
    _append(results, json.dumps(measured) + "\n")


def _append(results: Path, line: str) -> None:
    """Write one line at once, so that those of other threads and processes stay whole."""
    descriptor = os.open(results, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
