import json
import sys
from datetime import UTC, datetime, timedelta
from io import BytesIO, StringIO, TextIOWrapper

import pytest

from qworker.cli.shared.pipes import say
from qworker.cli.shared.tables import Column, beginnings, print_block, print_json, print_table
from qworker.lines.escaping import printable
from qworker.operate.words import age, counted, iso, span

COLUMNS = [Column("ID"), Column("TASK", gives_way=True), Column("N", right=True), Column("ERROR", gives_way=True)]
NOW = datetime(2027, 1, 1, 12, tzinfo=UTC)


def test_in_a_pipe_a_table_is_plain_aligned_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(COLUMNS, [("a", "mail.send", "7", "x" * 200), ("abc", "[bold]t", "100", "")])
    assert [
        "ID   TASK         N  ERROR",
        "a    mail.send    7  " + "x" * 200,
        "abc  [bold]t    100",
    ] == capsys.readouterr().out.splitlines()


class Screen(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("wide", [40, 80])
def test_on_a_terminal_a_table_is_as_wide_as_that(wide: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(wide))
    monkeypatch.setattr(sys, "stdout", screen := Screen())
    print_table(COLUMNS, [("0123456789", "mail.send." * 9, "3", "日本" * 90)])
    row = screen.getvalue().splitlines()[1]
    assert row.startswith("0123456789  mail")
    assert 2 == row.count("…")
    assert wide - 2 <= len(row) + row.count("日") + row.count("本") <= wide


def test_where_there_is_no_room_ids_are_as_short_as_they_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [f"01a2254f-2a7f-730f-bb6{n}-408689d2fa01" for n in range(3)]
    rows = [(each, "mail.send", "1", "ValueError: " + "x" * 25) for each in [*ids, ids[0]]]
    columns = [Column("JOB", ids=True), *COLUMNS[1:]]
    for wide, shown in ((80, [each[:23] for each in ids]), (200, ids)):
        monkeypatch.setenv("COLUMNS", str(wide))
        monkeypatch.setattr(sys, "stdout", screen := Screen())
        print_table(columns, rows)
        lines = screen.getvalue().splitlines()
        assert [*shown, shown[0]] == [line.split()[0] for line in lines[1:]]
        assert all(len(line) <= wide and "…" not in line for line in lines[1:])


@pytest.mark.parametrize(
    ("ids", "short"),
    [
        ([], []),
        (["j1"], ["j1"]),
        (["0123456789", "0123456789"], ["01234567"] * 2),
        (["01234567-a", "01234567-b"], ["01234567-a", "01234567-b"]),
        (["01234567", "01234567-b"], ["01234567", "01234567-"]),
        (["x" * 99, "x" * 98], ["x" * 64] * 2),
    ],
)
def test_the_beginning_of_an_id_is_its_own(ids: list[str], short: list[str]) -> None:
    assert short == beginnings(ids)


def test_others_texts_can_not_command_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert "\\x1b[31m\\u202e\\r\\n\\ud800é\\x9b" == printable("\x1b[31m\u202e\r\n\ud800é\x9b")
    print_table([Column("A")], [["\x1b[31m\n"]])
    print_block({"error": "\x1b]0;x\x07", "traceback": "one\n\x1btwo\n"})
    say("\x1b[2J")
    print_json({"a": "\x9b\x1b"})
    output = capsys.readouterr()
    assert "\x1b" not in output.out + output.err
    assert "\x9b" not in output.out
    assert "traceback\n    one\n    \\x1btwo\n" in output.out


def test_a_block_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    print_block({"job": "1", "enqueued": "2", "args": ""})
    assert "job       1\nenqueued  2\nargs\n" == capsys.readouterr().out


def test_an_encoding_without_a_character_does_not_end_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(raw, encoding="ascii"))
    print_block({"task": "é"})
    sys.stdout.flush()
    assert b"task  \\xe9\n" == raw.getvalue()


def test_json_is_what_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    value = [{"name": "é", "n": None}]
    print_json(value)
    output = capsys.readouterr().out
    assert value == json.loads(output)
    assert output.isascii()


def test_what_is_said_goes_to_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", heard := StringIO())
    say("no queues\nhere")
    assert "no queues\\nhere\n" == heard.getvalue()


def test_spans_and_counts() -> None:
    seconds = {-1: "0s", 0: "0s", 119.9: "119s", 120: "2m", 7199: "119m", 7200: "2h", 172_800: "2d", 1e7: "115d"}
    assert list(seconds.values()) == [span(each) for each in seconds]
    assert ("-", "5m") == (age(None, NOW), age(NOW - timedelta(minutes=5), NOW))
    assert (None, "2027-01-01T12:00:00.000Z") == (iso(None), iso(NOW))
    assert ("1 job", "0 jobs", "2 jobs") == (counted(1, "job"), counted(0, "job"), counted(2, "job"))
