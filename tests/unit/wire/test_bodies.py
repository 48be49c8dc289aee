import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qworker.errors import InvalidEnvelope
from qworker.wire.bodies import as_fields, is_plain

TEXT = '{"task":"t","args":["naïve 😀 \\u0000"]}'
DATA = TEXT.encode()
FIELDS = json.loads(TEXT)

READ = {
    "plain": TEXT,
    "white space around": f"\r\n\t {TEXT} \n",
    "a byte order mark": "\ufeff" + TEXT,
    "a byte order mark and a line": "\ufeff\n" + TEXT,
    "Base64": base64.b64encode(DATA).decode(),
    "Base64 in lines": base64.encodebytes(DATA * 1).decode(),
    "Base64 in lines as MIME has them": base64.encodebytes(DATA).decode().replace("\n", "\r\n"),
    "Base64 within white space": f"  {base64.b64encode(DATA).decode()}\n",
    "Base64 after a byte order mark": "\ufeff" + base64.b64encode(DATA).decode(),
    "Base64 for URLs": base64.urlsafe_b64encode(DATA).decode(),
    "Base64 without padding": base64.b64encode(DATA).decode().rstrip("="),
    "a byte order mark in Base64": base64.b64encode(b"\xef\xbb\xbf" + DATA).decode(),
    "UTF-16 in Base64": base64.b64encode(TEXT.encode("utf-16-le")).decode(),
    "UTF-16 with its mark in Base64": base64.b64encode(TEXT.encode("utf-16")).decode(),
}


@pytest.mark.parametrize("body", READ.values(), ids=READ.keys())
def test_what_other_programs_write_is_read(body: str) -> None:
    assert FIELDS == as_fields(body)
    assert is_plain(body) == ("{" in body)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (base64.b64encode(base64.b64encode(DATA)).decode(), "not JSON"),
        (json.dumps(TEXT), "neither a JSON object nor Base64"),
        (base64.b64encode(json.dumps(TEXT).encode()).decode(), "it is a JSON str, not an object"),
        (base64.b64encode(TEXT.encode("latin-1", "replace")).decode(), "its Base64 is not UTF-8 text"),
        ("hello there", "neither a JSON object nor Base64"),
        ("<QueueMessage/>", "neither a JSON object nor Base64"),
        ("\ufeff \n", "it is empty"),
    ],
)
def test_what_is_refused(body: str, why: str) -> None:
    with pytest.raises(InvalidEnvelope, match=why):
        as_fields(body)


@given(st.binary(max_size=200), st.sampled_from(["", "\n", "=", "-", " "]))
def test_any_bytes_in_base64_are_read_or_refused(data: bytes, inserted: str) -> None:
    body = base64.b64encode(data).decode()
    with pytest.raises(InvalidEnvelope):
        as_fields(body[: len(body) // 2] + inserted + body[len(body) // 2 :])
