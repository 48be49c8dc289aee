"""Traces from process to process: a producer, a worker, and the child that a handler runs in."""

import json
import os
import re
import sys
from pathlib import Path

import traced
from running import ROOT, run
from stage import Stage


def test_a_child_process_is_within_the_span_of_its_attempt(sqlite_stage: Stage) -> None:
    file = sqlite_stage.folder / "spans.jsonl"
    traced.app.use_broker(sqlite_stage.url)
    traced.in_child.using(queue=sqlite_stage.queue).enqueue_many([(1,), (2,)])
    traced.app.close()

    worker = sqlite_stage.worker("--burst", "-c", "1", app="traced", env={"QWORKER_TRACING": "1", "SPANS": str(file)})
    assert 0 == worker.wait()

    lines = [json.loads(line) for line in file.read_text().splitlines()]
    processed = {line["span"]: line for line in lines if line["name"] == f"process {sqlite_stage.queue}"}
    within = [line for line in lines if line["name"].startswith("work ")]
    assert (2, ["work 1", "work 2"]) == (len(processed), sorted(line["name"] for line in within))
    assert processed.keys() == {line["parent"] for line in within}
    for line in within:
        parent = processed[line["parent"]]
        assert (parent["trace"], worker.process.pid, True) == (
            line["trace"],
            parent["pid"],
            line["pid"] != worker.process.pid,
        )


def test_what_the_page_says(tmp_path: Path) -> None:
    page = (ROOT / "docs/tracing.md").read_text()
    [module] = re.findall(r"^```python\n# (spans\.py)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / module[0]).write_text(module[1])
    environment = os.environ | {"QWORKER_TRACING": "1", "QWORKER_BROKER": f"sqlite:///{tmp_path}/q.db"}

    sent = run([sys.executable, "spans.py"], cwd=tmp_path, environment=environment)
    work = [sys.executable, "-m", "qworker", "run", "spans", "--burst"]
    worked = run(work, cwd=tmp_path, environment=environment)

    names = re.compile(r'^    "name": "(.*)",$', re.MULTILINE)
    assert ["send default"] == names.findall(sent)
    assert ["greeting", "process default"] == names.findall(worked), worked
    for attribute in re.findall(r"`(messaging\.[\w.]+|qworker\.\w+)`", page):
        assert f'"{attribute}"' in sent + worked or attribute == "messaging.batch.message_count"
