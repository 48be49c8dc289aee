"""What docs/monitoring.md and the dashboard say of metrics, held against those that are exposed."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from qworker.observe.health.samples import text_of_all
from qworker.observe.metrics import _OUTCOMES, Metrics

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "monitoring.md").read_text()
DASHBOARD = json.loads((ROOT / "examples" / "deploy" / "grafana-dashboard.json").read_text())
_SUFFIX = {"counter": "_total", "histogram": "", "gauge": ""}
_METRIC = re.compile(r"\bqworker_\w+")


def exposed() -> dict[str, tuple[str, set[str]]]:
    """Return the type and the labels of each metric, by the name that the page gives it."""
    metrics = Metrics()
    metrics._task("t").duration.observe(1)
    metrics._task("t").delay.observe(1)
    text = text_of_all(metrics.registry, (), "")[0].decode()
    types = {family.name: family.type for family in text_string_to_metric_families(text)}
    return {
        family.name + _SUFFIX[family.type]: (family.type, set(_labels(metrics, family.name)))
        for family in metrics.registry.collect()
        if types[family.name] == family.type
    }


def _labels(metrics: Metrics, name: str) -> tuple[str, ...]:
    labels: tuple[str, ...] = metrics.registry._names_to_collectors[name]._labelnames  # type: ignore[attr-defined]
    return labels


def rows() -> dict[str, list[str]]:
    table = PAGE.partition("| metric |")[2].partition("\n\n")[0].splitlines()[2:]
    cells = (row.strip("| ").split(" | ") for row in table)
    return {name.strip("`"): rest for name, *rest in cells}


def test_the_table_has_all_metrics_with_their_labels() -> None:
    found = {name: set(re.findall(r"\w+", rest[0])) if len(rest) == 2 else set() for name, rest in rows().items()}
    assert {name: labels for name, (_, labels) in exposed().items()} == found


def test_the_table_says_what_is_a_histogram() -> None:
    histograms = {name for name, (kind, _) in exposed().items() if kind == "histogram"}
    assert histograms == {name for name, rest in rows().items() if rest[-1].startswith("histogram")}


def test_the_table_has_all_outcomes() -> None:
    assert all(f"`{outcome}`" in rows()["qworker_jobs_total"][-1] for outcome in _OUTCOMES.values())


def queries() -> list[str]:
    targets = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return [*targets, *re.findall(r"expr: (.*?)\n +(?:for|annotations)", PAGE, re.DOTALL)]


@pytest.mark.parametrize("query", queries())
def test_every_metric_that_is_asked_for_is_there(query: str) -> None:
    known = exposed()
    names = {name for name, (kind, _) in known.items() if kind != "histogram"}
    names |= {f"{name}_bucket" for name, (kind, _) in known.items() if kind == "histogram"}
    asked = set(_METRIC.findall(query))
    assert asked
    assert asked <= names
    labels = set().union(*(known[name.removesuffix("_bucket")][1] for name in asked)) | {"le"}
    grouped = re.findall(r"by \(([\w, ]+)\)", query)
    assert {label.strip() for group in grouped for label in group.split(",")} <= labels
    assert set(re.findall(r"(\w+)!?=\"", query)) <= labels
    assert query.count("(") == query.count(")")


def test_the_dashboard_shows_every_metric() -> None:
    asked = {name.removesuffix("_bucket") for query in queries() for name in _METRIC.findall(query)}
    assert set(exposed()) == asked


def test_the_dashboard_is_laid_out() -> None:
    panels: list[dict[str, Any]] = DASHBOARD["panels"]
    assert len(panels) == len({panel["id"] for panel in panels}) == len({str(panel["gridPos"]) for panel in panels})
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)
