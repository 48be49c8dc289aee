"""Leaves secrets out of the output of commands: a user may have put one where something else was expected."""

import re
from itertools import pairwise
from typing import Final

HIDDEN: Final = "…"
_BARE: Final = "key|signature|secret|password|passwd|pwd|token|sig"
_OF: Final = "account|access|shared|sharedaccess|api|storage|signing|private|client"
_VALUE: Final = r"(?:\\?[\"'])?(?:[^;&'\"]+(?=[\"'])|[^;&'\"\s]+)"
_NAMED: Final = re.compile(
    rf"(?i)(?<![a-z])((?:{_OF})[ _-]*(?:{_BARE})[\"']?\s*(?:[=:]|%3[ad])\s*"
    rf"|(?:{_BARE})(?:[\"']?\s*(?:=|%3d)|[\"']\s*:)\s*){_VALUE}"
)
"""AccountKey=…, sig=…, "key": "…" and the like, also as they stand in a URL."""
_USER: Final = re.compile(r"(?i)(?<=://)[^\s/@'\"]+(?=@)")
"""A name and a password before a host."""
_RUN: Final = re.compile(r"(?i)(?:[a-z0-9+/]|%2b|%2f){40,}(?:={1,2}|(?:%3d){1,2})?")
"""A text that may be bytes in Base64: the key of an account has 88 characters, a signature 44."""
_HEX: Final = re.compile("[0-9a-f]+|[0-9A-F]+")
_RESTLESS: Final = 0.4
"""The part of neighbouring characters that are of two kinds (small, capital, digit, other) from which a run is taken
for random: 0.65 on average in Base64, 0.2 in words and paths."""


def without_secrets(text: str) -> str:
    """Return a text with whatever looks like a key, a signature or a password left out."""
    hidden = _USER.sub(HIDDEN, text)
    hidden = _NAMED.sub(rf"\1{HIDDEN}", hidden)
    return _RUN.sub(lambda found: HIDDEN if _is_random(found[0]) else found[0], hidden)


def _is_random(run: str) -> bool:
    if _HEX.fullmatch(run):  # a hash, which may be told
        return False
    if run.lower().endswith(("=", "%3d")):
        return True
    kinds = [_kind(character) for character in run]
    changes = sum(one != other for one, other in pairwise(kinds))
    return {0, 1, 2} <= set(kinds) and changes >= _RESTLESS * (len(run) - 1)


def _kind(character: str) -> int:
    return 0 if character.islower() else 1 if character.isupper() else 2 if character.isdecimal() else 3
