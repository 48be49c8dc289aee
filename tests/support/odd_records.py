"""Messages and poison records as nobody should write them: sound ones with odd values in some places."""

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

from hypothesis import strategies as st

ODD_TEXTS: Final = (
    "",
    "x" * 300,
    "\x1b[2J\x07",
    "two\nlines\r\n",
    "\u202eturned\u2066",
    "\u200f\u061c",
    "\x00",
    "\ufeff",
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "9999-12-31T23:59:59Z",
    "2026-01-01T00:00:00",
    "2026-01-01",
    "1e11",
    "qworker.wire.bundle",
    "../../etc",
    '{"task":"t"}',
)
ODD_NUMBERS: Final = (0, -1, 1, True, 1.5, 1e300, 2**31, 2**63, 10**4299, -(10**4299), 1_000_000, 1_000_001)
SOUND: Final[Mapping[str, Any]] = {
    "v": 1,
    "id": "j1",
    "task": "t",
    "args": [],
    "kwargs": {},
    "enqueued_at": "2026-01-01T00:00:00Z",
    "ttl": 2_147_483_647,
    "expires_at": "9999-12-31T23:59:59Z",
    "headers": {"trace": "x"},
    "attempts": 1,
    "begun": True,
    "last": True,
    "state": {"page": 1},
    "given_up": {"type": "E", "message": "no"},
    "noted": {"in": "1", "releases": 1, "begun": True, "last": True, "given_up": {"type": "E", "message": "no"}},
    "releases": 1,
    "jobs": [{"task": "t"}],
    "poison": {},
    "body": "{}",
}
RECORD: Final[Mapping[str, Any]] = {
    "queue": "default",
    "attempts": 1,
    "worker": "host:1",
    "message_id": "7",
    "job_id": "j7",
    "task": "t",
    "at": "2026-01-01T00:00:00Z",
    "error": {"type": "ValueError", "message": "no", "where": "t.py:1 in t", "traceback": "Traceback"},
}

odd = st.recursive(
    st.none() | st.booleans() | st.sampled_from(ODD_NUMBERS) | st.sampled_from(ODD_TEXTS) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(ODD_TEXTS), inner, max_size=3),
    max_leaves=4,
)


@st.composite
def changed(draw: st.DrawFn, sound: Mapping[str, Any]) -> dict[str, Any]:
    """Some fields of a sound object, of which some are odd, or within them something is."""
    fields = {key: value for key, value in sound.items() if draw(st.booleans())}
    for key in draw(st.lists(st.sampled_from(sorted(sound)), max_size=2)):
        value = sound[key]
        fields[key] = draw(changed(value)) if isinstance(value, dict) and value and draw(st.booleans()) else draw(odd)
    return fields


@st.composite
def messages(draw: st.DrawFn) -> str:
    """The body of a message: of a job, of a bundle, or of neither."""
    fields = draw(changed(SOUND)) | ({} if draw(st.integers(0, 9)) == 0 else {"task": draw(st.sampled_from("tu"))})
    if draw(st.booleans()):
        job = changed(SOUND).map(lambda fields: {"task": "t"} | fields)
        fields |= {"task": "qworker.wire.bundle", "jobs": draw(st.lists(job | odd, max_size=5))}
    return draw(as_sent(fields))


@st.composite
def records(draw: st.DrawFn) -> str:
    """The body of a message in a poison queue: a record, or no record."""
    body = draw(messages() | st.sampled_from(ODD_TEXTS))
    fields = {"v": 1, "poison": draw(st.just(dict(RECORD)) | whole(RECORD) | odd), "body": body}
    return draw(as_sent(fields) | messages())


@st.composite
def whole(draw: st.DrawFn, sound: Mapping[str, Any]) -> dict[str, Any]:
    """A sound object with all of its fields, one of them odd."""
    return {**sound, draw(st.sampled_from(sorted(sound))): draw(odd)}


@st.composite
def as_sent(draw: st.DrawFn, fields: Mapping[str, Any]) -> str:
    """A body as programs write them, and as XML can carry it."""
    text = json.dumps(fields, ensure_ascii=True)
    match draw(st.integers(0, 7)):
        case 0:
            return base64.encodebytes(text.encode()).decode()
        case 1:
            return "\ufeff" + text
        case 2:
            return text[: draw(st.integers(0, len(text)))]
        case _:
            return text
