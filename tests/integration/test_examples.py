"""Each example is run by the commands that the comment at its top names."""

import ast
import gzip
import http.server
import json
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from running import ROOT, run, started

EXAMPLES = ROOT / "examples"
PROGRAMS = {
    "python": [sys.executable],
    "qworker": [sys.executable, "-m", "qworker"],
    "uvicorn": [sys.executable, "-m", "uvicorn"],
}


@pytest.fixture(autouse=True)
def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWORKER_BROKER", f"sqlite:///{tmp_path / 'queues.db'}")
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")


def commands(example: str) -> list[list[str]]:
    """Return the commands that an example's comment names."""
    doc = ast.get_docstring(ast.parse((EXAMPLES / f"{example}.py").read_text()), clean=False) or ""
    lines = (shlex.split(line, comments=True) for line in doc.splitlines() if line.startswith("    "))
    return [[*PROGRAMS.get(program, [program]), *arguments] for program, *arguments in lines]


def log_lines(output: str, event: str) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in output.splitlines() if line.startswith("{"))
    return [line for line in lines if line["event"] == event]


def test_first_task() -> None:
    produce, work = commands("first_task")

    assert re.match("enqueued examples.first_task.greet as [-0-9a-f]{36}\nHello, you!\n", run(produce))

    output = run(work)
    for line in ("Hello, Ada!", "Ada was born on a Sunday.", "Hello, Grace!", "Hello, Barbara!"):
        assert output.count(line) == 1
    assert "Hello, you!" not in output


def test_many_small_jobs() -> None:
    produce, work = commands("many_small_jobs")

    assert "1,000 jobs are in 10 messages\n" == run(produce)

    output = run(work)
    assert 999 == len(log_lines(output, "job.succeeded"))
    [given_up] = log_lines(output, "job.poisoned")
    assert "Reject: sensor 13 is broken" in given_up["error"]


def test_async_lifespan() -> None:
    (*produce, _, _), work = commands("async_lifespan")

    with pages() as server:
        url = f"http://127.0.0.1:{server.server_port}"
        run([*produce, f"{url}/1", f"{url}/22"])
        lines = [line for line in run(work).splitlines() if not line.startswith("{")]

    assert ["the pool is open", f"{url}/1 has 2 bytes", f"{url}/22 has 3 bytes", "the pool is closed"] == [
        lines[0],
        *sorted(lines[1:-1]),
        lines[-1],
    ]


def test_retries_and_poison() -> None:
    produce, work, show = commands("retries_and_poison")
    run(produce)

    with started(work) as worker:
        worker.wait_for(
            "order 7 is charged at attempt 3",
            "order 7 is invoiced at attempt 1",
            *(f'"moved_to": "orders-poison", "error": "{kind}' for kind in ("Retry", "Reject")),
        )
        assert worker.end(signal.SIGTERM) == 0

    shown = run(show)
    assert "deliver was given up at attempt 2: Retry: no courier for order 7" in shown
    assert "refund was given up at attempt 1: Reject: order 7 was never paid" in shown
    assert shown.count('"args":[7]') == 2


def test_a_killed_job_goes_on_from_its_checkpoint() -> None:
    (*produce, _), (*work, _) = commands("checkpoint_resume")
    run([*produce, "30"])
    work.append("2")  # seconds of lease

    with started(work) as first:
        first.wait_for("attempt 1 begins after 0", "added 10\n")
        assert first.end(signal.SIGKILL) == -signal.SIGKILL
    added = int(re.findall(r"added (\d+)", first.output)[-1])
    assert added < 30

    with started(work) as second:
        second.wait_for("the sum is ")
        assert second.end(signal.SIGTERM) == 0
    found = re.search(r"attempt 2 begins after (\d+)\n", second.output)
    assert found
    # It may have been killed after a checkpoint and before it could say so.
    assert int(found[1]) in {added, added + 1}
    assert f"the sum is {sum(range(31))}" in second.output


def test_fastapi_app() -> None:
    serve = commands("fastapi_app")[1]

    with started([*serve, "--port", "0"]) as server:
        server.wait_for("Uvicorn running on ")
        found = re.search(r"http://[\d.:]+", server.output)
        assert found
        with httpx.Client(base_url=found[0]) as client:
            answer = client.post("/reports", params={"year": 2026})
            assert answer.status_code == 202
            job = answer.json()["job"]
            assert client.get("/reports/unknown").status_code == 404
            while (report := client.get(f"/reports/{job}")).status_code == 404:
                time.sleep(0.02)
        assert report.json() == {"report": "All went well in 2026."}
        server.end(signal.SIGTERM)
        assert "Application shutdown complete" in server.output


def test_process_executor(tmp_path: Path) -> None:
    (*produce, _), work = commands("process_executor")
    primes = tmp_path / "primes.txt"
    run([*produce, str(primes)])

    output = run(work)

    assert {"1229 primes below 10000", "9592 primes below 100000", "78498 primes below 1000000"} == set(
        primes.read_text().splitlines(),
    )
    (poisoned,) = log_lines(output, "job.poisoned")
    assert poisoned["task"] == "examples.process_executor.never_ends"
    assert poisoned["attempt"] == 2
    assert "timeout of 1 s" in poisoned["error"]


def test_error_reporting(monkeypatch: pytest.MonkeyPatch) -> None:
    produce, work = commands("error_reporting")
    run(produce)

    with error_collector() as server:
        monkeypatch.setenv("SENTRY_DSN", f"http://key@127.0.0.1:{server.server_port}/1")
        output = run(work)

    assert 3 == len(log_lines(output, "job.poisoned"))
    told = sorted(
        (event["tags"]["task"].rpartition(".")[2], event["tags"]["attempt"], raised["type"])
        for event, raised in zip(server.events, raised_in(server.events), strict=True)
    )
    # What was raised in a child process has no other cause here; Retry is told of at its last attempt only.
    assert [
        ("divide", 1, "ZeroDivisionError"),
        ("divide", 2, "ZeroDivisionError"),
        ("parse", 1, "JobFailed"),
        ("wait_for_payment", 2, "Retry"),
    ] == told
    lines = {raised["type"]: raised["stacktrace"]["frames"][-1]["context_line"] for raised in raised_in(server.events)}
    assert "print(left / right)" == lines["ZeroDivisionError"].strip()


def test_every_example_is_in_the_index_and_run_here() -> None:
    examples = {path.stem for path in EXAMPLES.glob("*.py") if path.stem != "__init__"}
    index = (EXAMPLES / "README.md").read_text()
    here = Path(__file__).read_text()

    assert examples == {Path(name).stem for name in re.findall(r"\]\((\w+\.py)\)", index)}
    assert examples == set(re.findall(r'commands\("(\w+)"\)', here))


def raised_in(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event["exception"]["values"][-1] for event in events]


class _Collector(http.server.ThreadingHTTPServer):
    """Takes what Sentry's library sends, as Sentry does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _CollectorHandler)
        self.events: list[dict[str, Any]] = []


class _CollectorHandler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        lines = [json.loads(line) for line in body.splitlines()]
        assert isinstance(self.server, _Collector)
        self.server.events += [line for line in lines if "exception" in line]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 — the library's signature
        pass


@contextmanager
def error_collector() -> Iterator[_Collector]:
    with _Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 — the library's signature
        pass


@contextmanager
def pages() -> Iterator[http.server.HTTPServer]:
    """A web server whose every page is its own path."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
