"""qworker tasks: what an app has registered."""

import json
import os
import subprocess
import sys

from jsonschema import Draft202012Validator

from running import ROOT, run

TASKS = [sys.executable, "-m", "qworker", "tasks"]
MAIL = "examples.other_languages.mail"


def test_a_table_for_people() -> None:
    head, line = run([*TASKS, MAIL]).splitlines()
    assert ["TASK", "QUEUE", "RUNS", "IN", "TIMEOUT", "ATTEMPTS", "BUNDLE", "SIGNATURE"] == head.split()
    assert ["mail.send", "mail", "loop", "-", "5", "1"] == line.split()[:6]
    assert line.endswith("copies: int = 1)")
    assert head.index("SIGNATURE") == line.index("(to:")


def test_a_setting_names_the_app() -> None:
    environment = os.environ | {"QWORKER_APP": MAIL}
    assert "mail.send" in run(TASKS, environment=environment)


def test_json_for_programs() -> None:
    [described] = json.loads(run([*TASKS, MAIL, "--json"]))
    assert {
        "name": "mail.send",
        "queue": "mail",
        "description": "Send a text to a person.",
        "executor": "loop",
        "timeout": None,
        "max_attempts": 5,
        "backoff": {"base": 5.0, "factor": 2.0, "max": 600.0, "jitter": 0.2},
        "bundle": 1,
    } == {key: value for key, value in described.items() if key != "signature"}
    assert described["signature"].startswith("(to: ")


def test_a_schema_for_other_languages() -> None:
    schema = json.loads(run([*TASKS, MAIL, "--json-schema"]))
    Draft202012Validator.check_schema(schema)
    least = {"task": "mail.send", "kwargs": {"to": {"name": "Ada", "address": "a@b.c"}, "text": "hello"}}
    assert Draft202012Validator(schema).is_valid(least)
    assert not Draft202012Validator(schema).is_valid({"task": "mail.send"})


def test_a_reader_that_has_seen_enough_is_no_mistake() -> None:
    reader, closed = os.pipe()
    os.close(reader)
    ended = subprocess.run([*TASKS, MAIL, "--json"], cwd=ROOT, stdout=closed, stderr=subprocess.PIPE, check=False)
    os.close(closed)
    assert (141, b"") == (ended.returncode, ended.stderr)
