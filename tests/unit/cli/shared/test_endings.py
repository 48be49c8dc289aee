import pytest
import typer

from qworker.cli.shared.asking import Interrupted
from qworker.cli.shared.endings import explained, traceback_of
from qworker.cli.shared.stopping import Stopped
from qworker.errors import BrokerUnusable, ConfigurationError, QworkerError
from qworker.operate.missing import NotFound

KEY = "AccountKey=c2VjcmV0LWNhbmFyeQ=="


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (ConfigurationError("--lease: must be\n more"), "--lease: must be more", 2),
        (BrokerUnusable("x.db: is no database"), "x.db: is no database", 78),
        (NotFound("no queue"), "no queue", 66),
        (QworkerError("failed"), "failed", 1),
        (Stopped("half is done", 65), "half is done", 65),
        (Interrupted("interrupted: 3 jobs"), "interrupted: 3 jobs", 130),
        (KeyboardInterrupt(), "", 130),
        (typer.Abort(), "", 130),
        (typer.BadParameter("it's odd."), "Invalid value: it's odd; see 'qworker --help'", 2),
        (BrokenPipeError(32, "Broken pipe"), "", 141),
        (FileNotFoundError(2, "No such file or directory", "/gone"), "/gone: No such file or directory", 1),
        (OSError("odd"), "OSError", 1),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"), "a text holds characters", 2),
        (MemoryError(), "there is not enough memory", 1),
        (ExceptionGroup("", [ConfigurationError("inside")]), "inside", 2),
        (ConfigurationError("x" * 9_999), "x" * 1_000 + " … " + "x" * 1_000, 2),
        (ConfigurationError(f"queue name '{KEY}' is odd \x1b[31m"), "queue name 'AccountKey=…' is odd \\x1b[31m", 2),
    ],
    ids=lambda given: type(given).__name__,
)
def test_each_end_is_one_line_and_a_code(error: BaseException, line: str, code: int) -> None:
    told, exit_code = explained(error)
    assert (code, True) == (exit_code, told.startswith(line) and (bool(line) or not told))
    assert 1 >= len(told.splitlines())


def test_a_fault_of_our_own_says_where_and_how_to_see_more(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        dict[str, int]()[KEY]
    except KeyError as error:
        told, code = explained(error)
        monkeypatch.delenv("QWORKER_DEBUG", raising=False)
        untold = traceback_of(error)
        monkeypatch.setenv("QWORKER_DEBUG", "1")
        shown = traceback_of(error)
    assert told.startswith("unexpected KeyError at test_endings.py:")
    assert told.endswith(": a bug in qworker; QWORKER_DEBUG=1 shows the traceback")
    assert (70, "", True) == (code, untold, shown.startswith("Traceback"))
    assert "c2Vj" not in told + shown
