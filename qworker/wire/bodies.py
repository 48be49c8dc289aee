"""A message's body as JSON text: plain or in Base64, whoever wrote it, and so that XML can carry it."""

import base64
import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final, Literal, NoReturn

from pydantic_core import to_json

from qworker.errors import InvalidEnvelope

MAX_DEPTH: Final = 200
"""Levels of a body's arrays and objects. Python's own limits differ by version, and between reading and writing."""
Encoding = Literal["text", "base64"]
"""How a body goes over the wire: as the JSON text itself, or as Base64 of it, which Azure Functions expects."""

# Of what JSON leaves unescaped, XML 1.0 can't carry these (section 2.2, Char), and \x7f to \x9f travel badly.
_NOT_XML = re.compile("[\x7f-\x9f\ufffe\uffff]")
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_SHORT: Final = 4000
"""Characters of a JSON text without a number of more digits than Python converts, which it would convert to none."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_BEFORE_JSON: Final = "\ufeff \t\r\n"
"""What may stand before JSON: a byte order mark, as some programs write it, and white space."""
_AS_MOST: Final = b'{"'
"""How JSON in UTF-8 begins that has no white space there."""
_OPENING: Final = frozenset("{[")
_TO_STANDARD: Final = {ord("-"): "+", ord("_"): "/"}
"""From the alphabet of Base64 for URLs."""
TOO_DEEP: Final = f"its JSON is nested over {MAX_DEPTH} levels deep"


def as_body(value: Mapping[str, Any], encoding: Encoding = "text") -> str:
    """Return *value* as JSON text that survives the XML of the service's protocol."""
    return on_the_wire(as_text(value), encoding)


def as_text(value: Mapping[str, Any]) -> str:
    """Return *value* as JSON text; it raises what JSON's encoder raises."""
    text = _as_short_text(value) or _ENCODER.encode(value)
    if text.isascii() and "\x7f" not in text:
        return text
    return _NOT_XML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _as_short_text(value: Mapping[str, Any]) -> str | None:
    """Return the same as the encoder in a fifth of its time, unless it might be something that the encoder refuses."""
    try:
        text = to_json(value).decode()
    except ValueError:  # a lone surrogate, too many levels
        return None
    refused = len(text) > _SHORT or "NaN" in text or "Infinity" in text or "\ufffd" in text
    return None if refused else text


def may_be_deep(text: str) -> bool:
    """Say whether JSON text has enough brackets to be nested too deep; few texts have."""
    return len(text) > MAX_DEPTH and text.count("[") + text.count("{") > MAX_DEPTH


def on_the_wire(text: str, encoding: Encoding) -> str:
    """Return JSON text as it is sent. Raises UnicodeEncodeError for a lone surrogate."""
    data = text.encode()
    return base64.b64encode(data).decode("ascii") if encoding == "base64" else text


def sendable(text: str) -> str:
    """Return a text without lone surrogates, which no broker would carry."""
    return text.encode("utf-8", "backslashreplace").decode()


def text_in(body: str) -> str:
    """Return the text that a body is, or is Base64 of. Raises InvalidEnvelope."""
    text = body.lstrip(_BEFORE_JSON)
    return text if text[:1] in _OPENING else _from_base64(text)


def is_plain(body: str) -> bool:
    """Say whether a body is JSON text, rather than Base64."""
    return body.lstrip(_BEFORE_JSON)[:1] in _OPENING


def as_fields(body: str) -> dict[str, Any]:
    """Return the JSON object in a body, be it plain text or Base64. Raises InvalidEnvelope."""
    text = body if body[:1] == "{" else text_in(body)
    try:
        value = DECODER.decode(text)
        if "\\u" in text and _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()  # fails for half of a pair, which nothing could send on
    except UnicodeEncodeError:
        raise InvalidEnvelope("it holds a lone surrogate, which is no character") from None
    except RecursionError:
        raise InvalidEnvelope(TOO_DEEP) from None
    except ValueError as error:  # a JSONDecodeError, or an integer of more digits than Python converts
        raise InvalidEnvelope(f"it is not JSON: {error}" if text else "it is empty") from None
    if not isinstance(value, dict):
        raise InvalidEnvelope(f"it is a JSON {type(value).__name__}, not an object")
    if may_be_deep(text) and is_deep(value):
        raise InvalidEnvelope(TOO_DEEP)
    return value


def is_deep(value: Any, levels: int = MAX_DEPTH) -> bool:
    """Say whether a JSON value has more levels of arrays and objects than these."""
    level, depth = [value], 0
    while level and depth < levels:
        members = (each.values() if isinstance(each, dict) else each for each in level)
        level, depth = [member for some in members for member in some if isinstance(member, dict | list)], depth + 1
    return bool(level)


def _from_base64(body: str) -> str:
    """Return the JSON text that a body is Base64 of. Raises InvalidEnvelope."""
    try:
        data = base64.b64decode(body, validate=True)
        return data.decode() if data.startswith(_AS_MOST) else _decoded(data)
    except UnicodeDecodeError:
        raise InvalidEnvelope("its Base64 is not UTF-8 text") from None
    except (
        ValueError
    ):  # a binascii.Error, or characters outside ASCII: it may be in lines, without padding, or for URLs
        text = "".join(body.split()).translate(_TO_STANDARD).rstrip("=")
    try:
        return _decoded(base64.b64decode(text + "=" * (-len(text) % 4), validate=True))
    except ValueError:
        raise InvalidEnvelope("it is neither a JSON object nor Base64") from None


def _decoded(data: bytes) -> str:
    """Return bytes as text; a Windows program may mean UTF-16 by that. Raises UnicodeDecodeError."""
    return data.decode(json.detect_encoding(data)).lstrip(_BEFORE_JSON)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise InvalidEnvelope("a key stands twice in one JSON object")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise InvalidEnvelope("a number is too large")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidEnvelope(f"{name} is not JSON")


DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_finite)
"""Raises InvalidEnvelope for what other readers of JSON would not agree on."""
