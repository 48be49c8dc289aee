"""What comes over the wire from Azure Queue Storage, before anything reads it."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, NoReturn

import aiohttp
from azure.core.exceptions import AzureError
from azure.core.pipeline.transport import AioHttpTransport, AsyncHttpTransport, HttpRequest
from yarl import URL

from qworker.brokers.azure.errors import Refused
from qworker.brokers.azure.proxy import proxy_options

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


def root_of(text: str) -> ET.Element:
    """Return an answer's root. Raises EntitiesRefused or ParseError."""
    return ET.fromstring(refuse_entities(text))  # noqa: S314 - see refuse_entities


def refuse(status: int, headers: Mapping[str, str], content: bytes) -> NoReturn:
    """Raise what an answer means that is not the one to a request that was done: Refused, or ValueError."""
    code = headers.get("x-ms-error-code") or _code_in(content)
    if code or status >= HTTPStatus.MULTIPLE_CHOICES:
        raise Refused(status, code, headers)
    raise ValueError(f"an answer with status {status}")


def _code_in(content: bytes) -> str:
    """Return the error code in an answer's body; none if it has another author than the service."""
    try:
        return root_of(content.decode("utf-8-sig")).findtext("Code", "")
    except (ET.ParseError, UnicodeDecodeError):
        return ""


_EXPECTED: Final[Mapping[str, frozenset[int]]] = {
    "GET": frozenset({HTTPStatus.OK}),
    "PUT": frozenset({HTTPStatus.CREATED, HTTPStatus.NO_CONTENT}),
    "DELETE": frozenset({HTTPStatus.NO_CONTENT}),
}
"""The answers to requests of the SDK's clients that were done."""


class CautiousTransport(AioHttpTransport):  # type: ignore[misc] # the SDK exports it lazily
    """For the SDK's clients: they get no answer that they would log with a traceback, or that has entities."""

    def __init__(self, session: aiohttp.ClientSession, proxy: dict[str, Any], **options: Any) -> None:
        super().__init__(session=session, session_owner=False, **options)
        self._proxy = proxy

    async def send(self, request: Any, **options: Any) -> Any:
        """Send a request and return its answer, read in full.

        Raises Refused, EntitiesRefused, ValueError or ParseError for what is not the answer to a request that was
        done, or what the SDK raises.
        """
        response = await super().send(request, **options, **self._proxy)
        for text in _readings(response):
            refuse_entities(text)
        if response.status_code not in _EXPECTED[request.method]:
            refuse(response.status_code, response.headers, response.body())
        for text in _readings(response):
            if text:
                root_of(text.removeprefix("\ufeff"))
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
