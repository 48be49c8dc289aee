"""A name means one function, whatever way two of them may come to it."""

import functools
import importlib
import importlib.util
import itertools
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qworker import App, ConfigurationError

HEAD = """
import functools
from qworker import App
app = App(broker="sqlite://")
def logged(function):
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapper
def kept(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapper
def registering(function):
    @app.task
    def job(n: int) -> int:
        return function(n)
    return job
class Caller:
    def __init__(self, by: int) -> None:
        self.by = by
    def __call__(self, n: int) -> int:
        return n + self.by
    def add(self, n: int) -> int:
        return n + self.by
    @classmethod
    def make(cls, n: int) -> int:
        return n
class Other(Caller): ...
"""
CLASHES = {
    "decorator without wraps": "@app.task\n@logged\ndef charge(n): ...\n@app.task\n@logged\ndef refund(n): ...",
    "one alone of such a decorator": "@app.task\n@logged\ndef charge(n: int): ...",
    "one name given twice": "@app.task(name='x')\ndef a(): ...\n@app.task(name='x')\ndef b(): ...",
    "one function defined twice": "@app.task\ndef send(): ...\n@app.task\ndef send(): ...",
    "defined twice under a decorator": "@app.task\n@kept\ndef send(): ...\n@app.task\n@kept\ndef send(): ...",
    "lambdas": "app.task(lambda: 1)\napp.task(lambda: 2)",
    "one lambda": "app.task(lambda: 1)",
    "named lambdas": "app.task(name='x')(lambda: 1)\napp.task(name='x')(lambda: 2)",
    "closures of a factory": "def make(n):\n    @app.task\n    def job(): return n\n    return job\nmake(1)\nmake([])",
    "default values": "def make(n):\n    @app.task\n    def job(of=n): ...\n    return job\nmake(1)\nmake(2)",
    "keyword's default": "def make(n):\n    @app.task\n    def job(*, of=n): ...\n    return job\nmake(1)\nmake(2)",
    "annotations": "def make(T):\n    @app.task\n    def job(of: T): ...\n    return job\nmake(int)\nmake(str)",
    "a factory's closure": "def make(n):\n    def job(): return n\n    return job\nsend = app.task(make(1))",
    "a loop": "for n in range(2):\n    @app.task\n    def job(of=n): ...",
    "a loop over functions": "def a(): ...\ndef b(): ...\nfor one in (a, b):\n    app.task(name='x')(one)",
    "a decorator that registers": "@registering\ndef one(n): ...\n@registering\ndef two(n): ...",
    "bound methods": "app.task(Caller(1).add)",
    "a class method of two classes": "app.task(Caller.make)\napp.task(Other.make)",
    "objects of one class": "app.task(Caller(1))",
    "bound methods, named": "app.task(name='x')(Caller(1).add)\napp.task(name='x')(Caller(2).add)",
    "objects of one class, named": "app.task(name='x')(Caller(1))\napp.task(name='x')(Caller(2))",
    "partials": "app.task(functools.partial(print, 1))",
    "in one of two classes": "class A:\n    @app.task\n    def f(n: int): ...\n    @app.task\n    def f(n: str): ...",
    "a condition": "if True:\n    @app.task\n    def f(): ...\n@app.task\ndef f(n): ...",
    "with and without brackets": "@app.task\ndef f(): ...\n@app.task(queue='mail')\ndef f(): ...",
    "one function, two queues": "def f(): ...\napp.task(name='x', queue='one')(f)\napp.task(name='x', queue='two')(f)",
    "capitals": "@app.task(name='Mail.Send')\ndef a(): ...\n@app.task(name='mail.send')\ndef b(): ...",
    "capitals, one function": "def a(): ...\napp.task(name='Mail.Send')(a)\napp.task(name='mail.send')(a)",
    "form of letters": "@app.task(name='ﬁle')\ndef a(): ...\n@app.task(name='file')\ndef b(): ...",
    "a space": "@app.task(name='mail send')\ndef a(): ...\n@app.task(name='mailsend')\ndef b(): ...",
    "a name that another has by default": "@app.task\ndef f(): ...\n@app.task(name=__name__ + '.f')\ndef g(): ...",
    "qworker's own": "@app.task(name='qworker.later')\ndef f(): ...",
}
NO_CLASHES = {
    "two functions": ("@app.task\ndef a(): ...\n@app.task\ndef b(): ...", {"M.a", "M.b"}),
    "a decorator with wraps": (
        "@app.task\n@kept\ndef charge(): ...\n@app.task\n@kept\ndef refund(): ...",
        {"M.charge", "M.refund"},
    ),
    "a decorator without, and names": (
        "@app.task(name='a')\n@logged\ndef a(): ...\n@app.task(name='b')\n@logged\ndef b(): ...",
        {"a", "b"},
    ),
    "two apps": (
        "other = App(broker='sqlite://')\n@app.task(name='x')\ndef a(): ...\n@other.task(name='x')\ndef b(): ...",
        {"x"},
    ),
    "one function, said twice": ("def a(): ...\napp.task(a)\napp.task(a)", {"M.a"}),
    "one function under two names": ("def a(): ...\napp.task(a)\napp.task(name='old')(a)", {"M.a", "old"}),
    "a function that makes the same twice": (
        "def make():\n    @app.task\n    def job(): ...\nmake()\nmake()",
        {"M.make.job"},
    ),
    "static methods": (
        """class A:
    @app.task
    @staticmethod
    def f(): ...
    @staticmethod
    @app.task
    def g(): ...
class B:
    @app.task
    @staticmethod
    def f(): ...""",
        {"M.A.f", "M.A.g", "M.B.f"},
    ),
}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], Path]]:
    """Return a way to write a module that can be imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # what is written twice in a second would be taken for old
    before = {*sys.modules}

    def write(name: str, text: str) -> Path:
        file = tmp_path / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(HEAD + dedent(text))
        importlib.invalidate_caches()
        return file

    yield write
    for name in {*sys.modules} - before:
        del sys.modules[name]


@pytest.mark.parametrize("way", CLASHES)
def test_two_functions_of_one_name_are_an_error_at_once(write: Callable[[str, str], Path], way: str) -> None:
    write("clashing", CLASHES[way])
    with pytest.raises(ConfigurationError) as caught:
        importlib.import_module("clashing")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("way", NO_CLASHES)
def test_what_is_one_function_or_two_names_is_no_error(write: Callable[[str, str], Path], way: str) -> None:
    text, names = NO_CLASHES[way]
    write("M", text)
    assert names == {*importlib.import_module("M").app.tasks}


def test_the_error_says_where_both_are(write: Callable[[str, str], Path]) -> None:
    file = write("clashing", CLASHES["one name given twice"])
    line = 1 + file.read_text().splitlines().index("@app.task(name='x')")
    with pytest.raises(ConfigurationError) as caught:
        importlib.import_module("clashing")
    expected = f"two functions are named 'x', at {file}:{line} and at {file}:{line + 2}: give each a name= of its own"
    assert expected == str(caught.value)


def test_the_error_of_a_decorator_says_what_it_lacks(write: Callable[[str, str], Path]) -> None:
    write("clashing", CLASHES["decorator without wraps"])
    with pytest.raises(ConfigurationError) as caught:
        importlib.import_module("clashing")
    assert (
        "a task can't be named 'clashing.logged.wrapper', as all are that logged() returns: "
        "give that decorator functools.wraps, or the task a name="
    ) == str(caught.value)


# The same module, executed once more


EDITS = {
    "as it was": "@app.task\ndef send(n: int): return 1",
    "moved": "\n\n\n\n@app.task\ndef send(n: int): return 1",
    "edited": "@app.task\ndef send(n: int, m: int = 3): return n",
    "other options": "@app.task(queue='mail', max_attempts=2)\ndef send(n: int): return 1",
    "async": "@app.task\nasync def send(n: int): return 1",
    "decorated": "@app.task\n@kept\ndef send(n: int): return 1",
    "named": "@app.task(name='again.send')\ndef send(n: int): return 1",
}


@pytest.mark.parametrize(("before", "after"), [*itertools.product(EDITS, repeat=2)])
def test_a_module_can_be_reloaded(write: Callable[[str, str], Path], before: str, after: str) -> None:
    write("shared", "")
    write("again", f"from shared import app\n{EDITS[before]}")
    again = importlib.import_module("again")
    write("again", f"from shared import app\n{EDITS[after]}")
    importlib.reload(again)
    assert {"again.send"} == {*again.app.tasks}
    assert again.send is again.app.tasks["again.send"]
    write("again", f"from shared import app\n{EDITS[after]}\n{EDITS[before]}")
    with pytest.raises(ConfigurationError, match=r"two functions are named 'again.send', at .*again.py:\d+ and at "):
        importlib.reload(again)


def test_a_module_may_be_a_script_and_imported(write: Callable[[str, str], Path]) -> None:
    write("shared", "")
    file = write(
        "shop",
        """
        from shared import app
        @app.task
        def send(n: int) -> None: ...
        @app.task(name="mail.get")
        def get(n: int) -> None: ...
        if __name__ == "__main__":
            import shop
            print(*app.tasks, app.tasks["shop.send"] is shop.send)
        """,
    )
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, timeout=60, check=False)
    assert ("shop.send mail.get True\n", "") == (done.stdout, done.stderr)


def test_a_module_may_be_imported_under_two_names(write: Callable[[str, str], Path]) -> None:
    """Its tasks are then named by both, or as they say."""
    write("shared", "")
    write("pkg/tasks", "from shared import app\n@app.task\ndef a(): ...\n@app.task(name='x')\ndef b(): ...")
    first = importlib.import_module("pkg.tasks")
    sys.path.insert(0, str(Path(first.__file__ or "").parent))
    try:
        importlib.import_module("tasks")
    finally:
        del sys.path[0]
    assert {"pkg.tasks.a", "tasks.a", "x"} == {*first.app.tasks}


def test_two_files_of_one_modules_name_are_two(write: Callable[[str, str], Path], tmp_path: Path) -> None:
    write("shared", "")
    for folder in ("one", "two"):
        write(f"{folder}/plugin", "from shared import app\n@app.task\ndef run(): ...")
    first, second = (
        importlib.util.spec_from_file_location("plugin", tmp_path / folder / "plugin.py") for folder in ("one", "two")
    )
    assert first is not None and first.loader is not None  # noqa: PT018 — for the type checker
    assert second is not None and second.loader is not None  # noqa: PT018 — the same
    first.loader.exec_module(importlib.util.module_from_spec(first))
    with pytest.raises(ConfigurationError, match=r"two functions are named 'plugin\.run'"):
        second.loader.exec_module(importlib.util.module_from_spec(second))


def test_what_is_typed_again_in_a_shell_is_the_same_function() -> None:
    typed = (
        "app = __import__('qworker').App(broker='sqlite://')\n"
        "@app.task\ndef send(n: int): ...\n\n@app.task(queue='mail')\ndef send(n: str): ...\n\nprint(*app.tasks)\n"
    )
    done = subprocess.run(
        [sys.executable, "-i", "-q"], input=typed, capture_output=True, text=True, timeout=60, check=False
    )
    assert ("__main__.send\n", "Traceback" in done.stderr) == (done.stdout, False)


# Any names


LETTERS = st.sampled_from(
    ["a", "A", "é", "e\u0301", "ﬁ", "fi", "K", "\u212a", "ß", "ss", " ", ".", "\u200d", "\t", "\u017f"]
)
NAMES = st.lists(LETTERS, max_size=4).map("".join) | st.text(max_size=4) | st.just("qworker.x") | st.just("QWORKER.x")


def numbered(number: int) -> Callable[[], int]:
    def function() -> int:
        return number

    return function


FUNCTIONS = [numbered(number) for number in range(3)]


@given(st.lists(st.tuples(NAMES, st.integers(0, 2)), max_size=6))
@example([("a", 0), ("a", 1)])
@example([("fi", 0), ("ﬁ", 1)])
@example([("Kb", 0), ("\u212ab", 1)])
@example([("é", 0), ("e\u0301", 1)])
def test_whatever_is_registered_a_name_calls_the_function_that_it_was_given(calls: list[tuple[str, int]]) -> None:
    app = App(broker="sqlite://")
    expected: dict[str, int] = {}
    for name, number in calls:
        try:
            app.task(name=name)(FUNCTIONS[number])
        except ConfigurationError as error:
            assert "\n" not in str(error)  # noqa: PT017 — one of many, most of which are fine
            assert expected.get(name, -1) != number
        else:
            assert number == expected.setdefault(name, number)
    assert expected == {name: task() for name, task in app.tasks.items()}
    looks = [unicodedata.normalize("NFKC", name).casefold().replace(" ", "") for name in expected]
    assert len(looks) == len({*looks})
    assert not any(look.startswith("qworker.") for look in looks)
    assert all(name.isprintable() and name == name.strip() for name in expected)


class Holder:
    def method(self) -> None: ...

    def __call__(self) -> None: ...


def closure() -> Callable[[], object]:
    of = object()
    return lambda: of


MAKERS: dict[str, Callable[[], Any]] = {
    "def": closure,
    "wrapped": lambda: functools.wraps(closure())(lambda: 1),
    "cached": lambda: functools.cache(closure()),
    "method": lambda: Holder().method,
    "static": lambda: staticmethod(closure()),
    "object": Holder,
}


@pytest.mark.parametrize(("one", "other"), [*itertools.product(MAKERS, repeat=2)])
def test_two_callables_of_any_sort_can_not_have_one_name(one: str, other: str) -> None:
    app = App(broker="sqlite://")
    first, second = MAKERS[one](), MAKERS[other]()
    app.task(name="x")(first)
    known = app.task(name="x")(first)
    with pytest.raises(ConfigurationError, match="two functions are named 'x'"):
        app.task(name="x")(second)
    assert {"x": known} == app.tasks
