"""What comes over the wire from Azure Queue Storage, before anything reads it."""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from azure.core.exceptions import AzureError
from azure.core.pipeline.transport import AioHttpTransport, AsyncHttpTransport, HttpRequest
from yarl import URL

from qworker.brokers.azure_proxy import proxy_options

_DOCUMENT_TYPE: Final = re.compile(r"\A\ufeff?(?>\s+|<\?(?>.*?\?>)|<!--(?>.*?-->))*+<!DOCTYPE", re.DOTALL)


class EntitiesRefused(AzureError):
    """The answer declares a document type, which no answer of the service does.

    Its entities could let kilobytes grow to gigabytes: not every version of Python's parser limits them, and none does
    so closely. It has no response: the SDK would parse that once more, to see which error it is.
    """


def refuse_entities(text: str) -> str:
    """Return an answer's text if it is safe to parse. Raises EntitiesRefused."""
    if _DOCUMENT_TYPE.match(text):
        raise EntitiesRefused("an answer with a document type")
    return text


class CautiousTransport(AioHttpTransport):  # type: ignore[misc] # the SDK exports it lazily
    """For the SDK's clients: refuses an answer with entities before they parse it."""

    def __init__(self, session: aiohttp.ClientSession, proxy: dict[str, Any], **options: Any) -> None:
        super().__init__(session=session, session_owner=False, **options)
        self._proxy = proxy

    async def send(self, request: Any, **options: Any) -> Any:
        """Send a request and return its answer, read in full. Raises EntitiesRefused, or what the SDK does."""
        response = await super().send(request, **options, **self._proxy)
        for text in _readings(response):
            refuse_entities(text)
        return response


class SignInTransport(AioHttpTransport):  # type: ignore[misc] # the SDK exports it lazily
    """For credentials, which ask several hosts for tokens."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        super().__init__(session=session, session_owner=False)

    async def send(self, request: Any, **options: Any) -> Any:
        """Send a request and return its answer. Raises ConfigurationError, or what the SDK does."""
        return await super().send(request, **options, **proxy_options(request.url))


def _readings(response: Any) -> Iterator[str]:
    """Return an answer as the SDK's two parsers read it: one believes the charset in its headers."""
    yield response.body().decode("utf-8", "replace")
    with suppress(LookupError, UnicodeError):
        yield response.text()


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, read in full."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes


class BareTransport(AsyncHttpTransport[HttpRequest, Answer]):
    """Sends a request on a session that is another's to close, and raises aiohttp's own errors."""

    def __init__(self, session: aiohttp.ClientSession, proxy: dict[str, Any]) -> None:
        self._session = session
        self._proxy = proxy

    async def send(self, request: HttpRequest, **_: Any) -> Answer:
        """Send a request and return its answer. The URL is sent as it is: it may be signed."""
        url = URL(request.url, encoded=True)
        async with self._session.request(
            request.method, url, headers=request.headers, data=request.data, allow_redirects=False, **self._proxy
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    async def open(self) -> None:
        """Do nothing: the session is open."""

    async def close(self) -> None:
        """Do nothing: the session is another's."""

    async def __aexit__(self, *_: object) -> None:
        """Do nothing, as close does."""
