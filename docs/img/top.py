"""Makes docs/img/top.svg, what `qworker top` shows, out of looks that are written down here.

python docs/img/top.py
"""  # noqa: INP001 — a script beside its picture

import re
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

from rich.console import Console

from qworker.cli.top.view import View
from qworker.operate.top.model import Look, QueueSeen, Scrape, picture
from qworker.outcome import Failure
from qworker.poison.record import PoisonRecord
from qworker.poison.selection import GivenUp

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, float("inf"))
FAILURES = (
    (12, "mail.send", "smtplib.SMTPServerDisconnected", "Connection unexpectedly closed"),
    (19, "mail.send", "Reject", "'nobody' is no address"),
    (47, "shop.bill", "KeyError", "'vat'"),
    (95, "shop.bill", "KeyError", "'vat'"),
    (260, "mail.send", "smtplib.SMTPServerDisconnected", "Connection unexpectedly closed"),
)


def _given_up(seconds: int, task: str, error: str, text: str) -> GivenUp:
    at, job = NOW - timedelta(seconds=seconds), f"j{seconds}"
    record = PoisonRecord("{}", "mail", Failure(error, text, "", ""), 5, "worker-1:7", at, job, job, task)
    return GivenUp(job, "{}", record, job, task, at, NOW)


def _scrape(done: int, failed: int, slow: int) -> Scrape:
    gauges = {
        "workers": 4.0,
        "running": 61.0,
        "waiting": 12.0,
        "slots": 64.0,
        "leases_lost": 0.0,
        "process_deaths": 0.0,
    }
    outcomes = {
        ("mail.send", "succeeded"): done,
        ("mail.send", "retried"): failed,
        ("mail.send", "poisoned"): failed // 9,
    }
    outcomes |= {("shop.bill", "succeeded"): done // 7, ("shop.bill", "poisoned"): failed // 30}
    quick = dict(zip(BOUNDS, (done // 5, done // 2, *[done - slow] * 3, *[done] * 4), strict=True))
    long = dict(zip(BOUNDS, (0, 0, 0, done // 20, done // 10, *[done // 7] * 4), strict=True))
    running = {"mail.send": 52.0, "shop.bill": 9.0}
    ended = {key: float(count) for key, count in outcomes.items()}
    return Scrape(gauges, ended, {"mail.send": quick, "shop.bill": long}, running)


def _look(at: float, lengths: tuple[int, int], *, done: int) -> Look:
    poison = [_given_up(*failure) for failure in FAILURES]
    queues = [
        QueueSeen("mail", lengths[0], 3, [each for each in poison if each.task == "mail.send"]),
        QueueSeen("shop", lengths[1], 2, [each for each in poison if each.task == "shop.bill"]),
    ]
    scrapes: dict[str, Scrape | str] = {
        "worker-1:9000": _scrape(done, done // 20, done // 40),
        "worker-2:9000": _scrape(done * 9 // 10, done // 25, done // 50),
        "worker-3:9000": "no answer within 3 s",
    }
    return Look(at, queues, scrapes)


def svg() -> str:
    """Return the picture of a terminal of 80 columns and 24 lines."""
    looks = [_look(0, (212, 40), done=4000), _look(30, (340, 31), done=6100), _look(60, (305, 44), done=8000)]
    title = f"qworker top  {NOW:%H:%M:%S}  every 2s, q ends it  azure://myaccount"
    console = Console(record=True, width=80, height=24, file=StringIO(), force_terminal=True, color_system="truecolor")
    console.print(View(title, picture(looks), 24))
    text = console.export_svg(title="qworker top", unique_id="top")
    return re.sub(r"@font-face \{.*?\}\s*", "", text, flags=re.DOTALL)  # whoever looks at it need not fetch a font


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(svg())
