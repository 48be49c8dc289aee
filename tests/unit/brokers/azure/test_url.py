"""Hosts and connection strings: the SDK's own reading is the oracle, as far as it could send anything there."""

import base64
import os
import random
import socket
from collections.abc import Callable
from itertools import chain
from typing import Any, Final

import pytest
from azure.storage.queue.aio import QueueServiceClient
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from azure_service import CANARY, KEY, PUT_DONE, SAS, serving
from azurite_server import connection_string
from qworker.brokers.azure.broker import AzureBroker
from qworker.brokers.azure.url import parse_connection_string, parse_url
from qworker.brokers.choose import broker_from_url
from qworker.errors import InvalidBrokerURL

HOSTS: Final = (
    *("azure-storage", "azure_storage", "_", "__a__", "Azure_Storage", "a", "1", "a.b_c.d", "a" * 63, "storage."),
    *("127.0.0.1", "127.1", "[::1]", "[2001:DB8::1]", "[::ffff:127.0.0.1]", "localhost"),
    *("bücher.example", "xn--bcher-kva.example", "пример.example", "SHOP.Queue.Core.Windows.Net"),
    *("shop.queue.core.windows.net", "shop.queue.core.windows.net.", "shop.z1.queue.storage.azure.net"),
    *("shop.queue.core.chinacloudapi.cn", "shop.queue.core.usgovcloudapi.net", "shop-secondary.queue.core.windows.net"),
)
NO_HOSTS: Final = (
    *("", "a b", "a<b", "a|b", "a\\b", f"user:{CANARY}@host", "a..b", ".a", "a" * 64, "a%20b", "[::1", "[x]", "[]"),
    *("[::1]x", "a,b", "ü" * 64, "\u2024", "a\u200bb"),
)
PORTS: Final = ("", ":1", ":443", ":80", ":10001", ":65535", ":")
NO_PORTS: Final = (":0", ":65536", ":x", ":-1", ":1:2", ": 1", ":١")  # noqa: RUF001
PATHS: Final = ("", "/", "/devstoreaccount1", "/devstoreaccount1/", "/a/b", "/Shop_1")


def seed() -> int:
    return int(os.environ.get("QWORKER_TEST_SEED", random.randrange(10**6)))


def settings_of(endpoint: str, dice: random.Random) -> str:
    """Return a connection string with this endpoint, in some order and case, with what else stands in such strings."""
    pairs = [("AccountName", "devstoreaccount1"), ("AccountKey", KEY)]
    if dice.random() < 0.3:
        pairs = [("SharedAccessSignature", dice.choice(["", "?"]) + SAS)]
    pairs.append(("QueueEndpoint", endpoint))
    if dice.random() < 0.5:
        pairs.append(("DefaultEndpointsProtocol", dice.choice(["http", "https"])))
    if dice.random() < 0.3:
        pairs.append(("BlobEndpoint", "http://elsewhere:10000/devstoreaccount1"))
    if dice.random() < 0.2:
        pairs.append(("EndpointSuffix", "core.windows.net"))
    dice.shuffle(pairs)
    spellings: tuple[Callable[[str], str], ...] = (str, str.lower, str.upper)
    spell = dice.choice(spellings)
    return ";".join(f"{spell(name)}={value}" for name, value in pairs) + dice.choice(["", ";", ";;"])


def reading_of(client: QueueServiceClient) -> tuple[URL, str | None]:
    """Return where a client sends a queue's requests, as aiohttp writes it, and by which key."""
    key = getattr(client.credential, "account_key", None)
    return URL(client.get_queue_client("mail").url), key


def ours(text: str) -> tuple[URL, str | None]:
    account = parse_connection_string(text)
    client = QueueServiceClient(account.url, account.credential)
    assert client.get_queue_client("mail").url.isascii(), "it is sent as it stands"
    return reading_of(client)


def test_what_the_sdk_takes_is_taken_alike() -> None:
    chosen = seed()
    dice = random.Random(chosen)
    for host in HOSTS:
        for port in PORTS:
            for path in PATHS:
                text = settings_of(f"{dice.choice(['http', 'https', 'HTTP'])}://{host}{port}{path}", dice)
                sdks = reading_of(QueueServiceClient.from_connection_string(text))
                assert sdks == ours(text), f"QWORKER_TEST_SEED={chosen} {text}"
                broker = broker_from_url(text)
                assert isinstance(broker, AzureBroker)
                assert CANARY not in broker.label


def test_a_place_that_nothing_could_be_sent_to_is_refused() -> None:
    chosen = seed()
    dice = random.Random(chosen)
    wrong = chain(((host, "") for host in NO_HOSTS), (("host", port) for port in NO_PORTS))
    for host, port in wrong:
        for text in (
            settings_of(f"http://{host}{port}/devstoreaccount1", dice),
            f"https://{host}{port}/devstoreaccount1?{SAS}",
        ):
            refused(text)


def refused(text: str) -> str:
    with pytest.raises(InvalidBrokerURL) as caught:
        pytest.fail(f"taken: {text} as {broker_from_url(text)}")
    said = str(caught.value)
    assert "\n" not in said
    assert CANARY not in said
    assert KEY not in said
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or CANARY not in str(caught.value.__context__)
    return said


_NAMED: Final = f"AccountName=shop;AccountKey={KEY}"


@pytest.mark.parametrize(
    "text",
    [
        _NAMED,
        f"{_NAMED};",
        f"AccountKey={KEY};AccountName=shop",
        f"ACCOUNTNAME=shop;accountkey={KEY}",
        f"AccountName=other;{_NAMED}",
        f"{_NAMED};EndpointSuffix=core.chinacloudapi.cn",
        f"{_NAMED};EndpointSuffix=core_x.y:1;DefaultEndpointsProtocol=http",
        f"{_NAMED};DefaultEndpointsProtocol=http",
        f"{_NAMED};QueueEndpoint=",
        f"{_NAMED};QueueEndpoint=shop.example",
        f"{_NAMED};QueueEndpoint=http://h/shop?{SAS}",
        f"{_NAMED};QueueEndpoint=http://h/shop#x",
        f"{_NAMED};QueueEndpoint=http://h//",
        f"{_NAMED};QueueEndpoint=http://h;QueueSecondaryEndpoint=http://i",
        f"{_NAMED};SharedAccessSignature={SAS}",
        f"AccountName=shop;SharedAccessSignature={SAS}",
        f"AccountName=shop;SharedAccessSignature=?{SAS}",
        f"QueueEndpoint=https://shop.queue.core.windows.net/?{SAS}",
        f"{_NAMED};Comment=a=b",
        "UseDevelopmentStorage=true",
        "usedevelopmentstorage=true;;",
    ],
)
def test_forms_that_the_sdk_takes(text: str) -> None:
    assert reading_of(QueueServiceClient.from_connection_string(text)) == ours(text)


@pytest.mark.parametrize("around", ["{}\n", " {} ", "\t{}", "\r\n{}\r\n"])
def test_space_around_does_not_count(around: str) -> None:
    assert "azure://shop" == broker_from_url(around.format(_NAMED)).label


@pytest.mark.parametrize("key", [f" {KEY}", f"{KEY} ", f"{KEY[:6]}\n{KEY[6:]}"])
def test_a_key_that_was_wrapped_is_the_same_key(key: str) -> None:
    account = parse_connection_string(f"AccountName=shop;AccountKey={key};EndpointSuffix=core.windows.net")
    assert KEY == account.key


@pytest.mark.parametrize(
    "text",
    [
        f";{_NAMED}",
        f"AccountName = shop; AccountKey = {KEY}",
        f"AccountName=shop; AccountKey={KEY}",
        f"AccountName=;AccountKey={KEY}",
        "AccountName=shop;AccountKey=",
        f"AccountName=shop;AccountKey={CANARY}!",
        f"AccountName=shop;AccountKey={KEY}\u00e9",
        f"AccountName=a\nb;AccountKey={KEY};QueueEndpoint=http://h",
        f"AccountName=sh\u00f6p\u0000;AccountKey={KEY};QueueEndpoint=http://h",
        f"{_NAMED};{CANARY}",
        f"{_NAMED};QueueEndpoint=ftp://{CANARY}/shop",
        f"{_NAMED};QueueEndpoint=//h/a",
        f"{_NAMED};QueueEndpoint=http://h/a b",
        f"{_NAMED};QueueSecondaryEndpoint=http://h/shop",
        f"{_NAMED};EndpointSuffix=.core.x",
        f"SharedAccessSignature={SAS}",
        "QueueEndpoint=https://shop.queue.core.windows.net",
        f"QueueEndpoint=https://shop.queue.core.windows.net;SharedAccessSignature={CANARY}!",
        "UseDevelopmentStorage=True",
        "UseDevelopmentStorage=",
    ],
)
def test_forms_that_could_not_work_are_refused(text: str) -> None:
    refused(text)


@pytest.mark.parametrize("quote", ["'", '"'])
def test_quotes_around_it_are_named(quote: str) -> None:
    assert "leave out the quotes around it" in refused(f"{quote}{_NAMED}{quote}")


@pytest.mark.parametrize(
    ("proxy", "url"),
    [
        ("http://azurite", "http://azurite:10001/devstoreaccount1"),
        ("http://azurite/", "http://azurite:10001/devstoreaccount1"),
        ("https://my_azurite:10001", "https://my_azurite:10001/devstoreaccount1"),
        ("http://[::1]", "http://[::1]:10001/devstoreaccount1"),
        ("http://[::1]:10001", "http://[::1]:10001/devstoreaccount1"),
    ],
)
def test_an_emulator_on_another_host(proxy: str, url: str) -> None:
    """The SDK for Python passes this over, and would look for it on this machine; the one for .NET does not."""
    account = parse_connection_string(f"UseDevelopmentStorage=true;DevelopmentStorageProxyUri={proxy}")
    here = parse_connection_string("UseDevelopmentStorage=true")
    assert (url, "devstoreaccount1", here.key) == (account.url, account.name, account.key)


@pytest.mark.parametrize("proxy", ["azurite", "http://azurite:10000", f"http://user:{CANARY}@azurite", "ftp://x", "//"])
def test_an_emulator_that_is_nowhere_is_refused(proxy: str) -> None:
    text = f"UseDevelopmentStorage=true;DevelopmentStorageProxyUri={proxy}"
    assert "DevelopmentStorageProxyUri takes http://HOST" in refused(text)


def test_schemes_have_no_case() -> None:
    assert "azure://shop" == broker_from_url(f"HTTPS://shop.queue.core.windows.net?{SAS}").label
    assert "azure://shop" == broker_from_url(f"https://SHOP.Queue.Core.Windows.Net?{SAS}").label


def test_a_sas_behind_the_wrong_character_is_refused() -> None:
    refused(f"https://shop.queue.core.windows.net#{SAS}")
    assert parse_url(f"https://shop.queue.core.windows.net?{SAS}#x").query == SAS


_PIECES: Final = st.sampled_from(
    [
        *("AccountName=", "AccountKey=", "QueueEndpoint=", "SharedAccessSignature=", "EndpointSuffix="),
        *("UseDevelopmentStorage=", "DevelopmentStorageProxyUri=", "true", "http://", "https://", "shop", KEY, SAS),
        *(";", "[", "]", ":", "@", "?", "#", "%"),
    ]
)


@given(st.lists(_PIECES | st.text(max_size=5), max_size=12).map("".join))
@example("AccountName=a;AccountKey=" + base64.b64encode(b"x").decode() + ";QueueEndpoint=https://[")
def test_nothing_else_than_a_refusal_comes_of_any_text(text: str) -> None:
    reads: tuple[Callable[[str], str], ...] = (
        lambda text: parse_connection_string(text).url,
        lambda text: parse_url(text).geturl(),
    )
    for read in reads:
        found, said = "", ""
        try:
            found = read(text)
        except InvalidBrokerURL as error:
            said = str(error)
        assert URL(found).host or said
        assert "\n" not in said
        assert KEY not in said


@pytest.mark.parametrize("host", ["azure_storage", "b\u00fccher.example", "storage.", "Azure-Storage"])
async def test_a_request_reaches_such_a_host(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(name: str, *rest: Any, **options: Any) -> Any:
        asked.append(name)
        return real("127.0.0.1", *rest, **options)

    asked: list[str] = []
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    async with serving() as service:
        service.answer = PUT_DONE
        broker = AzureBroker.from_connection_string(connection_string(service.port, KEY).replace("127.0.0.1", host))
        await broker.queue("mail").put("{}")
        await broker.create_queue("mail")
        await broker.aclose()
        sent = (URL(f"http://{host}").raw_host or "").rstrip(".")
        assert {f"host: {sent}:{service.port}"} == {
            line.lower()
            for seen in service.requests
            for line in seen.head.splitlines()
            if line.lower().startswith("host:")
        }
    assert sent in {name.rstrip(".") for name in asked}
