import math
from collections.abc import AsyncIterator, Awaitable, Callable
from io import StringIO

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from qworker import events
from qworker.cli.top.view import View
from qworker.engine.guard.vitals import Vitals
from qworker.errors import ConfigurationError
from qworker.job import Job
from qworker.observe.health.samples import text_of_all
from qworker.observe.metrics import Metrics
from qworker.operate.top.model import Look, Scrape, picture
from qworker.operate.top.scrape import Endpoint, _understood, read


def exposed(accept: str = "") -> str:
    metrics = Metrics(["t"])
    job = Job("j1", "t")
    metrics(events.JobSucceeded(job=job, queue="q", attempt=1, seconds=0.2))
    metrics(events.LeaseLost(job=job, queue="q", attempt=1, reason="gone"))
    metrics(events.JobStarted(job=job, queue="q", attempt=1))
    metrics.note(Vitals(running=3, waiting=2, slots=16, polls_late=0, keeper_late=0, stopping=False))
    return text_of_all(metrics.registry, (), accept)[0].decode()


def test_what_a_worker_exposes_is_read() -> None:
    found = read(exposed())
    expected = {"running": 3, "waiting": 2, "slots": 16, "workers": 1, "leases_lost": 1, "process_deaths": 0}
    assert expected == found.gauges
    ended = {outcome: count for (task, outcome), count in found.outcomes.items() if task == "t" and count}
    assert {"succeeded": 1, "lost": 1} == ended
    assert {"t": 1} == {task: running for task, running in found.running.items() if running}
    buckets = found.durations["t"]
    assert (0, 1, 1) == (buckets[0.1], buckets[0.25], buckets[math.inf])


@pytest.mark.parametrize("text", ["", "up 1\n", "<html>{", "qworker_slots many\n"])
def test_what_is_of_another_program_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 — whatever the parser says
        read(text)


@pytest.mark.parametrize("url", ["worker-1:9000", "ftp://worker-1", "http://", "http://h:99999", "http://[", ""])
def test_what_is_no_url_is_one_line(url: str) -> None:
    with pytest.raises(ConfigurationError, match="--from: must be the URL of a worker"):
        Endpoint(url)


def test_a_password_is_no_part_of_the_name() -> None:
    assert "worker-1:9000" == Endpoint("http://me:secret@worker-1:9000/").name


Serve = Callable[[Callable[[], web.Response]], Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serve one answer at /metrics, and return where."""
    servers: list[TestServer] = []

    async def start(answer: Callable[[], web.Response]) -> str:
        async def respond(_: web.Request) -> web.Response:
            return answer()

        app = web.Application()
        app.router.add_get("/metrics", respond)
        servers.append(TestServer(app))
        await servers[-1].start_server()
        return f"http://127.0.0.1:{servers[-1].port}"

    yield start
    for server in servers:
        await server.close()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda: web.Response(text="there are no metrics\nat all", status=501), "answers 501: there are no metrics"),
        (lambda: web.Response(text="", status=404), "answers 404"),
        (lambda: web.Response(text="<html>"), "its answer is not in the format of Prometheus"),
        (lambda: web.Response(body=b"\xff\xfe"), "its answer is not in the format of Prometheus"),
    ],
)
async def test_an_answer_without_metrics_is_told(serve: Serve, answer: Callable[[], web.Response], says: str) -> None:
    async with aiohttp.ClientSession() as session:
        assert says == await Endpoint(await serve(answer)).scrape(session)


async def test_no_other_address_is_asked(serve: Serve) -> None:
    elsewhere = await serve(lambda: pytest.fail("it was asked"))
    url = await serve(lambda: web.Response(status=302, headers={"Location": f"{elsewhere}/metrics"}))
    async with aiohttp.ClientSession() as session:
        assert "answers 302" == await Endpoint(url).scrape(session)


async def test_an_answer_that_is_too_long_is_not_read(serve: Serve) -> None:
    url = await serve(lambda: web.Response(body=b"#" * (5 << 20)))
    async with aiohttp.ClientSession() as session:
        assert "its answer has more than 4 MiB" == await Endpoint(url).scrape(session)


EXPOSED = exposed()
ODD_TEXTS = ("nan", "-inf", "1e999", "-1", "", "{", "# TYPE", 'qworker_jobs_total{task="', "\x00\x1b[31m")


@given(st.data())
def test_whatever_a_worker_says_is_shown_or_told(data: st.DataObject) -> None:
    """What it says has lines left out, doubled, cut or mixed with others, and odd numbers."""
    lines = EXPOSED.splitlines()
    odd = st.sampled_from(ODD_TEXTS)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(lines) - 1))
        cut = data.draw(st.integers(0, len(lines[at])))
        begun = lines[at][:cut]
        instead = [[], [lines[at]] * 2, [begun], [begun + data.draw(odd)], [data.draw(odd)]]
        lines[at : at + 1] = data.draw(st.sampled_from(instead)) or [""]
    scrape = _understood("\n".join(lines).encode())
    looks = [Look(at, (), {"worker": scrape}) for at in (0.0, 2.0)]
    shown = StringIO()
    console = Console(file=shown, width=80)
    console.print(View("top", picture(looks), 24))
    assert "\x1b" not in shown.getvalue()


async def test_metrics_are_asked_for(serve: Serve) -> None:
    url = await serve(lambda: web.Response(text=exposed()))
    async with aiohttp.ClientSession() as session:
        assert isinstance(await Endpoint(url).scrape(session), Scrape)
        assert isinstance(await Endpoint(f"{url}/metrics").scrape(session), Scrape)
        missing = await Endpoint(f"{url}/other").scrape(session)
    assert "answers 404: 404: Not Found" == missing
