"""What other libraries call it: the error says what it is called here."""

import ast
import copy
from pathlib import Path
from typing import Any

import pytest

import qworker.registration.verbs
from qworker import App, Task

app = App(broker="sqlite://")


@app.task
def send(n: int) -> None: ...


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("delay", "use enqueue(…), or 'await' with aenqueue(…)"),
        ("send", "use enqueue(…), or 'await' with aenqueue(…)"),
        ("kiq", "use enqueue(…), or 'await' with aenqueue(…)"),
        ("apply_async", "use using(delay=…, queue=…, ttl=…, headers=…).enqueue(…)"),
        ("enqueue_in", "use using(delay=…).enqueue(…)"),
        ("call_local", "use the task itself as a function"),
        ("retry", "use 'raise Retry(after=…)' in the handler"),
    ],
)
def test_a_verb_of_another_library_is_translated(name: str, hint: str) -> None:
    for owner, kind in ((send, "Task"), (send.using(delay=5), "Producer")):
        with pytest.raises(AttributeError) as caught:
            getattr(owner, name)
        assert f"'{kind}' object has no attribute '{name}': {hint}" == str(caught.value)


@pytest.mark.parametrize("name", qworker.registration.verbs._VERBS)
def test_no_verb_is_one_of_ours(name: str) -> None:
    producer: Any = send.using(delay=5)
    assert not hasattr(send, name)
    assert not hasattr(producer, name)
    assert getattr(send, name, 7) == 7


def test_each_hint_says_what_there_is() -> None:
    for hint in qworker.registration.verbs._VERBS.values():
        for called in ("enqueue", "aenqueue", "enqueue_many", "using"):
            assert f"{called}(" not in hint or hasattr(Task, called)


def test_another_name_is_an_attribute_error_as_any() -> None:
    for name in ("_repr_html_", "__wrapped", "dealy", "__html__"):
        with pytest.raises(AttributeError, match=f"^'Task' object has no attribute '{name}'$"):
            getattr(send, name)


def test_a_task_that_is_not_made_yet_has_no_attributes() -> None:
    """As while it is copied or unpickled."""
    empty = Task.__new__(Task)
    assert not hasattr(empty, "name")
    assert send.name == copy.copy(send).name


def test_the_table_names_each_verb_once() -> None:
    tree = ast.parse(Path(qworker.registration.verbs.__file__).read_text())
    [table] = [
        node.value for node in ast.walk(tree) if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Dict)
    ]
    names = [key.value for key in table.keys if isinstance(key, ast.Constant)]
    assert len(names) == len({*names})
