import re
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qworker import _tracebacks as tracebacks
from qworker._tracebacks import place_of, traceback_of
from running import ROOT


def plain(text: str = "no") -> None:
    raise ValueError(text)


def with_cause() -> None:
    try:
        plain()
    except ValueError as error:
        raise KeyError("outer") from error


def with_context() -> None:
    try:
        plain()
    except ValueError:
        {"inner": 1}["outer"]


def with_hidden_context() -> None:
    try:
        plain()
    except ValueError:
        raise KeyError("outer") from None


def with_note() -> None:
    error = ValueError("no")
    error.add_note("seen at night")
    raise error


def group() -> None:
    raise ExceptionGroup("several", [ValueError("one"), KeyError("two")])


def endless() -> None:
    endless()


def syntax() -> None:
    compile("def def", "file.py", "exec")


def raised_by(function: Callable[[], None]) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 — any
        function()
    return caught.value


@pytest.mark.parametrize(
    "function", [plain, with_cause, with_context, with_hidden_context, with_note, group, endless, syntax]
)
def test_it_is_as_python_prints_it(function: Callable[[], None]) -> None:
    for _ in range(2):  # the second time from memory
        error = raised_by(function)
        assert "".join(traceback.format_exception(error)) == traceback_of(error)


def test_what_comes_from_the_same_place_keeps_its_own_text() -> None:
    texts = []
    for text in ("first", "second"):
        with pytest.raises(ValueError, match=text) as caught:
            plain(text)
        texts.append(traceback_of(caught.value))
    assert texts[0].endswith("ValueError: first\n")
    assert texts[0].replace("first", "second") == texts[1]


def test_two_lines_of_one_function_are_two_places() -> None:
    def either(first: bool) -> None:  # noqa: FBT001 — a stand-in for a handler
        if first:
            plain()
        plain()

    one, two = (raised_by(lambda first=first: either(first)) for first in (True, False))  # type: ignore[misc]
    assert traceback_of(one) != traceback_of(two)
    assert re.fullmatch(r"test_tracebacks.py:\d+ in plain", place_of(one))


def test_what_was_never_raised_has_no_place() -> None:
    assert ("ValueError: no\n", "") == (traceback_of(ValueError("no")), place_of(ValueError("no")))


def test_no_more_stacks_are_kept_than_useful(monkeypatch: pytest.MonkeyPatch) -> None:
    tracebacks._stacks.clear()
    monkeypatch.setattr(tracebacks, "_KEPT", 2)
    for function in (plain, with_note, syntax, endless):
        assert "".join(traceback.format_exception(error := raised_by(function))) == traceback_of(error)
        assert len(tracebacks._stacks) <= 2
    assert all(len(stack) < 10 for stack in tracebacks._stacks)


FOLDERS = {
    "own": "/srv/shop/shop/{name}.py",
    "library": "/srv/shop/.venv/lib/python3.11/site-packages/http_kit/{name}.py",
    "debian's": "/usr/lib/python3/dist-packages/http_kit/{name}.py",
    "installed": "/usr/local/lib/python3.11/site-packages/shop/{name}.py",
    "python's": sysconfig.get_path("stdlib") + "/json/{name}.py",
    "frozen": "<frozen {name}>",
    "qworker's": str(ROOT / "qworker" / "{name}.py"),
}
MODULES = {
    "own": "shop.x",
    "installed": "shop.x",
    "python's": "json.x",
    "frozen": "importlib._x",
    "qworker's": "qworker.x",
}


def raised_through(kinds: list[str]) -> tuple[BaseException, list[str]]:
    """Raise an error through a function in a file of each kind, and return it, with their places."""
    call = plain
    for number, kind in reversed([*enumerate(kinds)]):
        file = FOLDERS[kind].format(name=f"m{number}")
        space: dict[str, Any] = {"call": call, "__name__": MODULES.get(kind, "http_kit.x")}
        exec(compile(f"\n\ndef f{number}(): call()", file, "exec"), space)
        call = space[f"f{number}"]
    with pytest.raises(ValueError, match="no") as caught:
        call()
    error = caught.value
    frames = error.__traceback__.tb_next if error.__traceback__ else None  # without this function's own
    last = frames
    for _ in kinds[1:]:
        assert last is not None
        last = last.tb_next
    assert last is not None
    last.tb_next = None  # and without that of plain()
    return error.with_traceback(frames), [
        f"{PurePath(FOLDERS[kind].format(name=f'm{number}')).name}:3 in f{number}" for number, kind in enumerate(kinds)
    ]


@given(kinds=st.lists(st.sampled_from([*FOLDERS]), min_size=1, max_size=6))
@example(kinds=["qworker's", "own", "library", "own", "library", "python's"])
@example(kinds=["qworker's", "installed", "library", "installed", "library"])
@example(kinds=["installed", "library", "python's"])
@example(kinds=["python's", "frozen"])
def test_the_place_is_the_innermost_line_of_the_programs_own(kinds: list[str]) -> None:
    error, places = raised_through(kinds)
    own = [place for kind, place in zip(kinds, places, strict=True) if kind == "own"]
    same = [place for kind, place in zip(kinds, places, strict=True) if MODULES.get(kind) == MODULES.get(kinds[0])]
    if own:
        assert own[-1] == place_of(error)
    elif kinds[0] in {"python's", "frozen", "qworker's"}:
        assert place_of(error) in places
    else:
        assert same[-1] == place_of(error)
