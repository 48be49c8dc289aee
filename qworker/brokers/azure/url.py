"""Where a storage account is: its connection string, its URL."""

import base64
import re
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Any, Final
from urllib.parse import SplitResult, parse_qs, urlsplit

from azure.storage.queue.aio import QueueServiceClient
from yarl import URL

from qworker.errors import InvalidBrokerURL

PUBLIC_CLOUD: Final = ".queue.core.windows.net"
_ACCOUNT_NAME: Final = re.compile(r"[a-z0-9]{3,24}")
_HOST: Final = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
"""With underscores, which no domain has, but the names of Docker Compose's services."""
_IN_BRACKETS: Final = re.compile(r"\[[^]]*\](:\d*)?")
_PRINTABLE: Final = re.compile(r"[!-~]+")
_EMULATORS_PORT: Final = 10001


@dataclass(frozen=True, slots=True)
class Account:
    """A storage account as its connection string has it."""

    url: str = field(repr=False)
    """Of its queue service, with the SAS if there is one."""
    name: str | None
    key: str | None = field(default=None, repr=False)

    @property
    def credential(self) -> dict[str, str] | None:
        """Return the key as the SDK's clients take it."""
        return None if self.key is None else {"account_name": self.name or "", "account_key": self.key}


def url_of(account: str) -> str:
    """Return the URL of a storage account's queues in the public cloud. Raises InvalidBrokerURL."""
    if not _ACCOUNT_NAME.fullmatch(account):
        msg = "azure://ACCOUNT takes the name of a storage account: 3 to 24 lower-case letters and digits"
        raise InvalidBrokerURL(msg)
    return f"https://{account}{PUBLIC_CLOUD}"


def parse_connection_string(text: str) -> Account:
    """Return the account that a connection string means, as the SDK reads it. Raises InvalidBrokerURL."""
    account = None
    with suppress(ValueError):
        account = _account_of(QueueServiceClient.from_connection_string(text))
    if account is None:
        hint = "leave out the quotes around it" if text.strip()[:1] in {"'", '"'} else _WHERE_FROM
        raise InvalidBrokerURL(f"the connection string of the storage account is incomplete or malformed: {hint}")
    if _is_development_storage(text) and (proxy := _setting(text, "developmentstorageproxyuri")):
        return Account(_emulator_at(proxy), account.name, account.key)
    return account


_WHERE_FROM: Final = (
    "copy it from the account's access keys, it begins with DefaultEndpointsProtocol=https;AccountName="
)


def _account_of(probe: Any) -> Account:
    """Return the account of a client of the SDK, which is never used. Raises ValueError."""
    key = getattr(probe.credential, "account_key", None)
    if key is not None:
        key = "".join(key.split())
        if not base64.b64decode(key, validate=True) or not _PRINTABLE.fullmatch(probe.account_name):
            raise ValueError("not a key, or not a name")
    return Account(_normal(urlsplit(probe.url)).geturl(), probe.account_name, key)


def _is_development_storage(text: str) -> bool:
    return _setting(text, "usedevelopmentstorage") == "true"


def _setting(text: str, key: str) -> str:
    """Return a setting of a connection string; the last one counts, as for the SDK."""
    pairs = (part.partition("=") for part in text.split(";"))
    return {name.lower(): value for name, _, value in pairs}.get(key, "")


def _emulator_at(proxy: str) -> str:
    """Return the URL of an emulator on another host, which the SDK passes over and would look for on this one."""
    try:
        parts = _normal(urlsplit(proxy))
        sound = parts.scheme in {"https", "http"} and parts.port in {None, _EMULATORS_PORT}
    except ValueError:
        sound = False
    if not sound:
        raise InvalidBrokerURL(
            f"DevelopmentStorageProxyUri takes http://HOST, and the emulator's queues are at port {_EMULATORS_PORT}: "
            "for another, write QueueEndpoint=http://HOST:PORT/devstoreaccount1 with AccountName and AccountKey"
        )
    host = parts.netloc.removesuffix(f":{_EMULATORS_PORT}")
    return f"{parts.scheme}://{host}:{_EMULATORS_PORT}/devstoreaccount1"


def _normal(parts: SplitResult) -> SplitResult:
    """Return a URL with its host as it is sent. Raises ValueError, which may have the URL in it."""
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{IPv6Address(host)}]" if _IN_BRACKETS.fullmatch(parts.netloc) else ""
    elif host.isascii():
        host = parts.netloc[: len(host)]  # in the case that it was given in, by which the SDK tells hosts apart
    else:
        host = URL.build(scheme="https", host=host).raw_host or ""
    if not (_HOST.fullmatch(host) or host.startswith("[")) or "@" in parts.netloc:
        raise ValueError("not a host")
    if parts.path.startswith("//") or not _PRINTABLE.fullmatch(parts.path or "/"):
        raise ValueError("not a path")
    port = parts.port
    if port == 0:
        raise ValueError("not a port")
    return parts._replace(netloc=host if port is None else f"{host}:{port}", fragment="")


def parse_url(url: str) -> SplitResult:
    """Return the parts of a queue service's URL, with or without a SAS. Raises InvalidBrokerURL."""
    parts = None
    try:
        given = urlsplit(url)
        parts = _normal(given)
        sound = bool(parts.query) or not given.fragment
    except ValueError:
        sound = False
    if parts is None or not sound or parts.scheme not in {"https", "http"}:
        raise InvalidBrokerURL(
            "the URL of a storage account is https://ACCOUNT.queue.core.windows.net, with or without a SAS"
        )
    if parts.query and "sig" not in parse_qs(parts.query):
        raise InvalidBrokerURL(f"what follows the ? of https://{parts.netloc} is not a SAS: it has no sig=")
    if not parts.query and parts.scheme != "https":
        raise InvalidBrokerURL(f"http://{parts.netloc} has no SAS, and a token is only sent over https")
    if parts.path.strip("/") and ".queue.core." in parts.netloc:
        raise InvalidBrokerURL(f"https://{parts.netloc} is the account's URL: leave out the queue's name after it")
    return parts


def account_of(parts: SplitResult) -> str:
    """Return the account's name: the first label of its host, or the path where emulators have it."""
    return parts.path.strip("/") or parts.netloc.lower().partition(".queue.")[0]
