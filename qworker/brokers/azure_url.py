"""Where a storage account is: its connection string, its URL."""

import base64
import re
from typing import Final
from urllib.parse import SplitResult, parse_qs, urlsplit

from azure.storage.queue.aio import QueueServiceClient

from qworker.errors import InvalidBrokerURL

PUBLIC_CLOUD: Final = ".queue.core.windows.net"
_ACCOUNT_NAME: Final = re.compile(r"[a-z0-9]{3,24}")
_HOST: Final = re.compile(r"[A-Za-z0-9.-]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?")


def url_of(account: str) -> str:
    """Return the URL of a storage account's queues in the public cloud. Raises InvalidBrokerURL."""
    if not _ACCOUNT_NAME.fullmatch(account):
        msg = "azure://ACCOUNT takes the name of a storage account: 3 to 24 lower-case letters and digits"
        raise InvalidBrokerURL(msg)
    return f"https://{account}{PUBLIC_CLOUD}"


def parse_connection_string(text: str) -> QueueServiceClient:
    """Return a client that is never used: the SDK knows how to read the text. Raises InvalidBrokerURL."""
    probe = None
    try:
        probe = QueueServiceClient.from_connection_string(text)
        base64.b64decode(getattr(probe.credential, "account_key", ""), validate=True)
        sound = _HOST.fullmatch(urlsplit(probe.url).netloc) is not None
    except ValueError:
        sound = False
    if probe is None or not sound:
        msg = (
            "the connection string of the storage account is incomplete or malformed: "
            "copy it from the account's access keys, it begins with DefaultEndpointsProtocol=https;AccountName="
        )
        raise InvalidBrokerURL(msg)
    return probe


def parse_url(url: str) -> SplitResult:
    """Return the parts of a queue service's URL, with or without a SAS. Raises InvalidBrokerURL."""
    try:
        parts = urlsplit(url)
        sound = _HOST.fullmatch(parts.netloc) is not None
    except ValueError:
        sound = False
    if not sound or parts.scheme not in {"https", "http"}:
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
    return parts.path.strip("/") or parts.netloc.partition(".queue.")[0]
