"""Probes and metrics of the real command, read by Prometheus's own parser."""

import os
import signal
import sys
import time
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

import jobs
from qworker.observe.health.server import NO_METRICS, listen
from running import run, started
from stage import Stage, WorkerProcess
from waiting import wait_until

WITHOUT_EXTRA = "import sys; sys.modules['prometheus_client'] = None; from qworker.__main__ import main; main()"


def ask(worker: WorkerProcess, path: str) -> tuple[int, str]:
    """Return what a probe gets; one that hangs fails."""
    port = worker.wait_for("health.served")["port"]
    answer = httpx.get(
        f"http://127.0.0.1:{port}/{path}", timeout=5, verify=False
    )  # no certificates need be read for it
    return answer.status_code, answer.text


def counted(worker: WorkerProcess) -> dict[tuple[str, ...], float]:
    status, text = ask(worker, "metrics")
    assert 200 == status, text
    return {
        (sample.name.removeprefix("qworker_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def wait_ready(worker: WorkerProcess) -> None:
    wait_until(lambda: ask(worker, "ready") == (200, "ok\n"), what="a worker that is ready")


def test_a_worker_is_watched(stage: Stage) -> None:
    worker = stage.worker("--health-port", "0")
    wait_ready(worker)
    assert (200, "ok\n") == ask(worker, "live")
    jobs.quick.using(queue=stage.queue).enqueue_many([(n,) for n in range(3)])
    jobs.reject.using(queue=stage.queue).enqueue(1)
    wait_until(lambda: counted(worker)["jobs_total", "poisoned", "jobs.reject"], what="the poisoned job")
    wait_until(lambda: counted(worker)["jobs_total", "succeeded", "jobs.quick"] == 3, what="all three jobs")
    wait_until(lambda: ("queue_length", stage.queue) in counted(worker), what="the queue's length")
    wait_until(lambda: counted(worker)["slots",], what="its pulse")
    found = counted(worker)
    assert 3 == found["job_delay_seconds_count", "jobs.quick"] == found["job_duration_seconds_count", "jobs.quick"]
    assert 4 == found["messages_received_total", stage.queue] == found["broker_requests_total", "delete", "ok"]
    assert (16, 1) == (found["slots",], found["workers",])
    assert {stage.queue, f"{stage.queue}-poison"} == {key[1] for key in found if key[0] == "queue_length"}
    assert 2 == found["broker_requests_total", "count", "ok"], "lengths are not asked for by each who looks"
    worker.send(signal.SIGTERM)
    assert 0 == worker.wait(), worker.output


def test_a_blocked_event_loop_hangs_no_probe(sqlite_stage: Stage) -> None:
    worker = sqlite_stage.worker("--health-port", "0", "--lease", "2s")
    wait_ready(worker)
    jobs.block.using(queue=sqlite_stage.queue).enqueue(1, 4.0)
    status, reason = wait_until(
        lambda: (found := ask(worker, "live"))[1] != "ok\n" and "jobs.block at" in found[1] and found,
        what="a bad probe",
    )
    assert (503, 1) == (status, reason.count("\n"))
    assert reason.startswith("the event loop has not turned for ")
    assert "s: jobs.block at jobs.py:" in reason
    assert 200 == ask(worker, "metrics")[0]
    assert [] == sqlite_stage.history.lines()[1:], "it was blocked all the time"
    wait_until(lambda: ask(worker, "live")[0] == 200, what="a good probe")
    worker.send(signal.SIGTERM)
    assert 0 == worker.wait(), worker.output


def test_one_that_has_no_slot_free_is_well(sqlite_stage: Stage) -> None:
    """Its polls are rightly not due. When it drains, it is alive and not ready."""
    jobs.rest.using(queue=sqlite_stage.queue).enqueue_many([(n, 2.5) for n in range(2)])
    worker = sqlite_stage.worker("--health-port", "0", "-c", "1", "--lease", "2s")
    wait_until(sqlite_stage.history.lines, what="the start")
    wait_until(lambda: counted(worker)["jobs_running",] == 1, what="its pulse")
    assert (200, "ok\n") == ask(worker, "live") == ask(worker, "ready")
    worker.send(signal.SIGTERM)
    wait_until(lambda: ask(worker, "ready") == (503, "the worker is stopping\n"), what="its stop")
    assert (200, "ok\n") == ask(worker, "live")
    assert 0 == worker.wait(), worker.output


def test_several_processes_are_one_target(sqlite_stage: Stage) -> None:
    worker = sqlite_stage.worker("--health-port", "0", "-p", "2", "-c", "4")
    wait_ready(worker)
    wait_until(lambda: counted(worker)["workers",] == 2, what="both workers")
    assert 8 == counted(worker)["slots",]
    key = "jobs_total", "succeeded", "jobs.quick"
    jobs.quick.using(queue=sqlite_stage.queue).enqueue_many([(n,) for n in range(50)])
    wait_until(lambda: counted(worker)[key] == 50, what="what both have counted")
    victims = {line["pid"] for line in sqlite_stage.history.lines()}
    seen = [counted(worker)[key]]
    os.kill(min(victims), signal.SIGKILL)
    worker.wait_for("process.died")
    while len(worker.lines("worker.started")) < 3 or counted(worker)["workers",] < 2:
        seen.append(counted(worker)[key])
        time.sleep(0.05)
    jobs.quick.using(queue=sqlite_stage.queue).enqueue(50)
    wait_until(lambda: counted(worker)[key] == 51, what="the job after the death")
    assert {50} == set(seen), "no counter goes back, nor up for nothing"
    found = counted(worker)
    assert (1, 51) == (found["process_deaths_total",], found["job_duration_seconds_count", "jobs.quick"])
    assert (200, "ok\n") == ask(worker, "live") == ask(worker, "ready")
    worker.send(signal.SIGTERM)
    assert 0 == worker.wait(), worker.output


def test_a_port_that_is_taken_is_one_line(sqlite_stage: Stage) -> None:
    with listen(0) as taken:
        port = str(taken.getsockname()[1])
        for processes in ("1", "2"):
            worker = sqlite_stage.worker("--health-port", port, "-p", processes)
            assert 2 == worker.wait(), worker.output
            assert f"qworker: health_port: port {port} can't be listened on: Address already in use\n" == worker.output


@pytest.mark.parametrize("processes", ["1", "2"])
def test_without_the_extra(sqlite_stage: Stage, tmp_path: Path, processes: str) -> None:
    command = [sys.executable, "-c", WITHOUT_EXTRA, "run", "jobs", "--log-format", "json", "-p", processes]
    environment = sqlite_stage.env() | {"QWORKER_HEALTH_PORT": "0"}
    with started(command, cwd=tmp_path, environment=environment) as worker:
        worker.wait_for('"event": "health.served"')
        port = worker.output.partition('"port": ')[2].partition(",")[0]
        assert "pip install 'qworker-azure[metrics]'" in worker.output
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            wait_until(lambda: client.get("/ready").status_code == 200, what="a worker that is ready")
            assert 200 == client.get("/live").status_code
            answer = client.get("/metrics")
        assert (501, f"{NO_METRICS}\n") == (answer.status_code, answer.text)
        assert 0 == worker.end(signal.SIGTERM), worker.output


def test_a_port_that_is_none() -> None:
    command = [sys.executable, "-m", "qworker", "run", "jobs", "--health-port", "99999"]
    assert "qworker: --health-port: must be less than or equal to 65535\n" == run(command, exit_code=2)
