import base64
import string
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qworker.cli.shared.hiding import without_secrets

WORDS = st.text(string.ascii_letters + string.digits, min_size=8, max_size=90)
KEYS = st.binary(min_size=64, max_size=64).map(lambda data: base64.b64encode(data).decode())
SIGNATURES = st.binary(min_size=32, max_size=32).map(lambda data: base64.b64encode(data).decode())
FORMS = (
    "DefaultEndpointsProtocol=https;AccountName=shop;AccountKey={};EndpointSuffix=core.windows.net",
    "AccountName=shop;AccountKey={}",
    "AccountKey={}",
    "accountkey = {}",
    "AccountKey:{}",
    'AccountKey="{}"',
    "{{'AccountKey': '{}'}}",
    '{{"account_key": "{}"}}',
    "azure://shop?key={}",
    "https://shop.queue.core.windows.net/?sv=2025-11-05&ss=q&sig={}&se=2027-01-01",
    "sv=2025-11-05&sig={}",
    "SharedAccessSignature=sv=2025&sig={}",
    "sig%3D{}%26se%3D2027",
    "SharedAccessKey={};EntityPath=x",
    "password={}",
    "https://shop:{}@host/",
)
PLACES = (
    "queue name {!r} is not allowed: use lower-case letters",
    "no module {!r} in /srv/shop or on Python's path",
    "unknown task {}; registered: mail.send",
    "Got unexpected extra argument ({}); see 'qworker run --help'",
    "--from: {}: No such file or directory",
    "no job or message {!r} was given up",
    "{}",
)


def quote_all(text: str) -> str:
    return quote(text, safe="")


def assert_hidden(secret: str, text: str) -> None:
    told = without_secrets(text)
    size = min(len(secret), 12)
    for part in (secret, quote(secret, safe="")):
        leaked = [part[at : at + size] for at in range(len(part) - size + 1) if part[at : at + size] in told]
        assert not leaked, told


@pytest.mark.parametrize("form", FORMS)
@given(secret=KEYS | SIGNATURES | WORDS, data=st.data())
def test_a_named_secret_is_told_nowhere(form: str, secret: str, data: st.DataObject) -> None:
    place = data.draw(st.sampled_from(PLACES))
    written = quote(secret, safe="") if data.draw(st.booleans()) else secret
    assert_hidden(secret, place.format(form.format(written)))


@given(
    key=KEYS | SIGNATURES,
    place=st.sampled_from(PLACES),
    cut=st.integers(0, 2),
    quoting=st.sampled_from([str, quote_all]),
)
def test_a_bare_key_is_known_by_its_looks(key: str, place: str, cut: int, quoting: Callable[[str], str]) -> None:
    """A cut one, too, if it is long enough to be told from a word."""
    key = key[: len(key) - cut]
    if len(key) >= 80 or cut == 0:
        assert_hidden(key, place.format(quoting(key)))


@given(KEYS, st.integers(1, 80))
def test_a_key_that_was_pasted_in_two_lines_is_hidden(key: str, at: int) -> None:
    assert_hidden(key, f"queue name {f'AccountKey={key[:at]}{chr(10)}{key[at:]}'!r} is not allowed")


@pytest.mark.parametrize(
    "text",
    [
        "no such key: '[bold]'; there are task, args, kwargs, queue, delay, ttl, headers",
        "a key stands twice in one JSON object",
        "unknown task 'mail.send'; registered: shop.bill, shop.thumbnail",
        "module 'shop' can't be imported: KeyError: 'vat' (/home/me/projects/the_shop/of-many-things/shop/tasks.py:12)",
        "no module 'Shop' in /Users/Someone/Documents/Projects2026/ShopOfManyThings/Backend or on Python's path",
        "job 0199aaaa-bbbb-7ccc-8ddd-eeeeffff0000 may or may not be queued: the broker's answer was lost",
        "commit 5efaa3f0c58e8b3d4b5fa6a81a999356b0b9f7d3, digest " + "0123456789abcdef" * 4,
        "queue names have 3 to 63 characters; see https://shop.queue.core.windows.net/mail",
    ],
)
def test_what_is_no_secret_is_told(text: str) -> None:
    assert text == without_secrets(text)
