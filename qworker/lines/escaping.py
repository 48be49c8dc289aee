"""Writes texts of unknown authors in one line, free of what a terminal would obey."""

import codecs
import re
from typing import Final

HIDDEN: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029"  # control characters and line ends
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # they turn the direction of what stands around them
    "\ud800-\udfff]"
)
"""Characters that act on a terminal or on the text around them, instead of being shown."""

codecs.lookup("unicode_escape")  # loads its module: later, there may be no file descriptor for that


def printable(text: str) -> str:
    """Return a text with its hidden characters as escapes."""
    return HIDDEN.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode("ascii"), text)


def has_hidden(text: str) -> bool:
    """Say whether a text holds such characters."""
    return not text.isprintable() and HIDDEN.search(text) is not None  # all of them are not printable
