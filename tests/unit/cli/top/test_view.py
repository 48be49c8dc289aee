import importlib.util
import math
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from qworker.cli.top.view import _FAILURES, _QUEUES, _TASKS, _WORKERS, View, shares
from qworker.operate.top.model import Look, QueueSeen, Scrape, picture
from qworker.poison.selection import GivenUp

NOW = datetime(2027, 1, 1, 12, tzinfo=UTC)
IMAGES = Path(__file__).parents[4] / "docs/img"


def view(count: int, height: int | None = None) -> View:
    scrape = Scrape(
        {"running": 16, "slots": 16, "leases_lost": 1},
        {(f"task-{n}", "succeeded"): n for n in range(count)},
        {"task-0": {1.0: 1, math.inf: 9}},
    )
    queues = [
        QueueSeen(f"queue-{n}", n, 1, [GivenUp("m", "", None, None, "a\x1b[2Jb", NOW - timedelta(hours=n), NOW)])
        for n in range(count)
    ]
    scrapes = {f"worker-{n}:9000": scrape if n else "no answer within 3 s" for n in range(count)}
    return View("qworker top", picture([Look(0.0, queues, scrapes)]), height)


def lines(shown: View, width: int, height: int = 24) -> list[str]:
    screen = StringIO()
    Console(file=screen, width=width, height=height, force_terminal=True).print(shown)
    return screen.getvalue().splitlines()


@pytest.mark.parametrize("count", [0, 1, 3, 40])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 60)])
def test_it_fits_the_screen(count: int, width: int, height: int) -> None:
    screen = StringIO()
    Console(file=screen, width=width, height=height).print(view(count, height))
    shown = screen.getvalue().splitlines()
    assert len(shown) <= height
    assert max(map(len, shown)) <= width
    assert ("more" in screen.getvalue()) == (count == 40 or (count == 3 and height == 24))


def test_all_is_shown_where_nothing_limits_it() -> None:
    text = "\n".join(lines(view(40), 200))
    for name in ("queue-39", "worker-39:9000", "task-39"):
        assert name in text
    assert ">1s" in text
    assert "worker-0:9000: no answer within 3 s" in text
    assert "a\\x1b[2Jb" in text, "a terminal must not obey a task's name"


@pytest.mark.parametrize(
    ("wanted", "room", "given"),
    [
        ([], 9, []),
        ([3, 0, 2], 9, [3, 0, 2]),
        ([9, 1, 9], 7, [3, 1, 3]),
        ([9, 9], 1, [1, 1]),
        ([2, 20], 10, [2, 8]),
    ],
)
def test_lines_are_divided(wanted: list[int], room: int, given: list[int]) -> None:
    assert given == shares(wanted, room)


def test_the_page_explains_every_figure() -> None:
    page = (IMAGES.parent / "monitoring.md").read_text()
    table = page.partition("| column |")[2].partition("\n\n")[0]
    explained = {name.strip() for row in table.splitlines()[2:] for name in row.split("|")[1].split(",")}
    shown = {column.title for columns in (_QUEUES, _WORKERS, _TASKS, _FAILURES) for column in columns if column.right}
    assert explained == shown


def test_the_picture_in_the_docs_is_what_it_looks_like() -> None:
    spec = importlib.util.spec_from_file_location("picture_of_top", IMAGES / "top.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.svg() == (IMAGES / "top.svg").read_text(), "make it again: python docs/img/top.py"
    assert "http" not in script.svg().replace("http://www.w3.org/2000/svg", "").replace("https://www.textualize.io", "")
