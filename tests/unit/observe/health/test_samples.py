import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from qworker.observe.health.samples import gauges_of, samples_of, text_of_all


def registry(number: int, *tasks: str) -> CollectorRegistry:
    """Return what a process might have counted."""
    made = CollectorRegistry()
    jobs = Counter("jobs", "Jobs", ["task"], registry=made)
    seconds = Histogram("seconds", "Seconds", ["task"], registry=made, buckets=(1, 10))
    for task in tasks:
        jobs.labels(task).inc(number)
        seconds.labels(task).observe(number)
    Gauge("running", "Running", registry=made).set(number)
    return made


OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_processes_are_added_up(accept: str) -> None:
    others = [samples_of(registry(5, "a", "b")), samples_of(registry(20, 'odd"\\\n'))]
    body, content_type = text_of_all(registry(1, "a"), others, accept)
    parse = openmetrics.text_string_to_metric_families if accept else text_string_to_metric_families
    families = {family.name: family for family in parse(body.decode())}
    assert content_type.startswith(accept.partition(";")[0] or "text/plain")
    assert {"jobs": "counter", "seconds": "histogram", "running": "gauge"} == {
        name: family.type for name, family in families.items()
    }
    found = {(each.name, *each.labels.values()): each.value for family in families.values() for each in family.samples}
    assert {
        ("jobs_total", "a"): 6,
        ("jobs_total", "b"): 5,
        ("jobs_total", 'odd"\\\n'): 20,
        ("running",): 26,
    } == {key: value for key, value in found.items() if not key[0].startswith("seconds")}
    buckets = {key[1:]: value for key, value in found.items() if key[0] == "seconds_bucket"}
    assert (1, 2, 2) == tuple(_of(buckets, "a", bound) for bound in ("1.0", "10.0", "+Inf"))
    assert (0, 1, 1) == tuple(_of(buckets, "b", bound) for bound in ("1.0", "10.0", "+Inf"))
    assert (2, 6) == (found["seconds_count", "a"], found["seconds_sum", "a"])


def _of(buckets: dict[tuple[str, ...], float], task: str, bound: str) -> float:
    return next(value for key, value in buckets.items() if set(key) == {task, bound})


def test_what_ends_with_its_process() -> None:
    assert {"running"} == gauges_of(registry(1, "a"))


def test_no_sample_tells_when_counting_began() -> None:
    assert not any(name.endswith("_created") for name, _ in samples_of(registry(1, "a")))
