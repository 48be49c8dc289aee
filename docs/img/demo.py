"""Makes docs/img/demo.svg, what `make demo` shows on a terminal, by running it.

python docs/img/demo.py
"""  # noqa: INP001 — a script beside its picture

import os
import pty
import re
import sys
import sysconfig
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS = 88
_OVERWRITTEN = re.compile(r".*\r(?=[^\n])")
_NOT_A_STYLE = re.compile(r"\x1b\[[?\d;]*[A-Zhl]")


def demo() -> str:
    """Run the demo on a terminal of its own, and return what is left to see in the end."""
    shown = bytearray()

    def read(terminal: int) -> bytes:
        data = os.read(terminal, 1 << 16)
        shown.extend(data)
        return data

    os.environ |= {"COLUMNS": str(COLUMNS), "LINES": "50", "TERM": "xterm-256color"}
    if pty.spawn([sys.executable, "-m", "examples.demo"], read):
        sys.exit("the demo failed")
    text = _NOT_A_STYLE.sub("", shown.decode().replace("\r\n", "\n"))
    return _OVERWRITTEN.sub("", text).replace(sysconfig.get_path("stdlib"), "/usr/lib/python3")


def svg(text: str) -> str:
    """Return the picture."""
    console = Console(record=True, width=COLUMNS, file=StringIO())
    console.print(Text.from_ansi(text.rstrip()))
    return console.export_svg(title="make demo", unique_id="demo")


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(svg(demo()))
