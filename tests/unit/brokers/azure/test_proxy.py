import os
from pathlib import Path

import pytest

from azure_service import CANARY, KEY, PUT_DONE, serving
from azurite_server import connection_string
from qworker.brokers.azure.broker import AzureBroker
from qworker.brokers.azure.proxy import proxy_options
from qworker.errors import ConfigurationError

_PLACE = "https://shop.queue.core.windows.net"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, _PLACE, None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, _PLACE, "http://proxy:3128"),
        ({"https_proxy": "proxy:3128"}, _PLACE, "http://proxy:3128"),
        ({"HTTPS_PROXY": " http://u:p@proxy_1:3128/ "}, _PLACE, "http://u:p@proxy_1:3128/"),
        ({"HTTPS_PROXY": ""}, _PLACE, None),
        ({"HTTP_PROXY": "http://proxy:3128"}, _PLACE, None),
        ({"ALL_PROXY": "http://proxy:3128"}, _PLACE, None),
        ({"HTTP_PROXY": "http://proxy:3128"}, "http://azurite:10001/a", "http://proxy:3128"),
        ({"HTTPS_PROXY": "http://proxy:1", "NO_PROXY": "127.0.0.1,.windows.net"}, _PLACE, None),
        ({"HTTPS_PROXY": "http://proxy:1", "NO_PROXY": "*"}, _PLACE, None),
        ({"HTTPS_PROXY": "http://proxy:1", "no_proxy": "shop.queue.core.windows.net:443"}, f"{_PLACE}:443", None),
        ({"HTTPS_PROXY": "http://proxy:1", "NO_PROXY": "windows.net.example"}, _PLACE, "http://proxy:1"),
    ],
)
def test_the_environment_names_the_proxy(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], url: str, proxy: str | None
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = proxy_options(url).get("proxy")
    assert proxy == (None if found is None else str(found))


@pytest.mark.parametrize(
    "proxy",
    [f"socks5://u:{CANARY}@proxy:1", f"http://u:{CANARY}@", f"http://{CANARY}:x", f"http://[{CANARY}", "http://"],
)
def test_what_is_no_proxy_is_named_and_not_repeated(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(ConfigurationError, match=r"^HTTPS_PROXY in the environment is no proxy: ") as caught:
        proxy_options(_PLACE)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("by_proxy", [True, False])
@pytest.mark.parametrize("entry", ["default", "machine 127.0.0.1"])
async def test_nothing_is_taken_from_netrc(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, entry: str, *, by_proxy: bool
) -> None:
    (tmp_path / ".netrc").write_text(f"{entry} login anonymous password {CANARY}\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    async with serving() as service:
        service.answer = PUT_DONE
        if by_proxy:
            monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{service.port}")
        broker = AzureBroker.from_connection_string(connection_string(service.port, KEY))
        await broker.queue("mail").put("{}")
        await broker.create_queue("mail")
        await broker.aclose()
    for seen in service.requests:
        assert "Basic" not in seen.head
        assert "\r\nAuthorization: SharedKey " in seen.head
