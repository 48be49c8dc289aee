"""Which broker a URL or a connection string means."""

from pathlib import Path

from qworker.brokers.base import Broker
from qworker.errors import InvalidBrokerURL

FORMS = (
    "sqlite:///FILE, sqlite://, azure://ACCOUNT, https://ACCOUNT.queue.core.windows.net, "
    "or a connection string of Azure Storage"
)


def broker_from_url(url: str, folder: Path | None = None) -> Broker:
    """Return the broker that *url* means, without connecting to it.

    A relative path is one in *folder*, by default the current directory.
    Raises InvalidBrokerURL for anything else, and never repeats it: it may hold a secret.
    """
    scheme, separator, rest = url.strip().partition("://")
    scheme = scheme.lower()
    if separator and scheme == "sqlite":
        return _sqlite(rest, folder)
    if _is_connection_string(url) or (separator and scheme in {"azure", "http", "https"}):
        return _azure(scheme, rest, url.strip())
    what = f"a URL of scheme {scheme!r}" if separator and scheme.isalnum() else "that"
    raise InvalidBrokerURL(f"no broker is known for {what}: use {FORMS}")


def _is_connection_string(url: str) -> bool:
    keys = {part.partition("=")[0].strip().lower() for part in url.split(";")}
    return bool(keys & {"accountname", "accountkey", "queueendpoint", "sharedaccesssignature", "usedevelopmentstorage"})


def _sqlite(rest: str, folder: Path | None) -> Broker:
    from qworker.brokers.sqlite.broker import SqliteBroker  # noqa: PLC0415 — only the broker in use is imported
    from qworker.brokers.sqlite.place import place_of_url  # noqa: PLC0415 — the same

    return SqliteBroker(place_of_url(rest, folder))


def _azure(scheme: str, rest: str, url: str) -> Broker:
    from qworker.brokers.azure.broker import AzureBroker  # noqa: PLC0415 — it takes 0.3 s to import

    if _is_connection_string(url):
        return AzureBroker.from_connection_string(url)
    if scheme == "azure":
        return AzureBroker.from_account(rest.rstrip("/"))
    return AzureBroker.from_url(url)
