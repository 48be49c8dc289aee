"""The requests of a message's life, as the protocol has them: put, get, update and delete.

They run on the SDK's own pipeline, with its credentials, but not through its client: that took 0.63 ms of CPU for a
put where this takes 0.18, most of it in models, serialisers and policies that these four have no use for.
The protocol: https://learn.microsoft.com/rest/api/storageservices/operations-on-messages.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from datetime import MAXYEAR, UTC, datetime, timedelta
from email.utils import formatdate, parsedate_to_datetime
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote, urlsplit
from xml.sax.saxutils import escape

from azure.core.pipeline import AsyncPipeline
from azure.core.pipeline.policies import AsyncBearerTokenCredentialPolicy
from azure.core.pipeline.transport import HttpRequest
from azure.storage.queue.aio import QueueServiceClient

from qworker.brokers.azure.transport import Answer, BareTransport, refuse, root_of
from qworker.brokers.base import Message

Pipeline = AsyncPipeline[HttpRequest, Answer]

_TOKEN_SCOPE: Final = "https://storage.azure.com/.default"  # noqa: S105 - a scope is no secret
_FOREVER: Final = -1


def new_pipeline(service: QueueServiceClient, transport: BareTransport) -> Pipeline:
    """Return the way to a service for the requests of this module, with the credential of its client."""
    # The SDK has made a policy of a key, and a SAS is in the URL.
    policy: Any = service.credential
    if hasattr(policy, "get_token"):
        policy = AsyncBearerTokenCredentialPolicy(policy, _TOKEN_SCOPE)
    return AsyncPipeline(transport, [] if policy is None else [policy])


class MessageRequests:
    """One queue's messages. Raises Refused, or whatever keeps a request from being sent or its answer from being read.

    *url*: the queue's, with the SAS if there is one.
    """

    def __init__(self, pipeline: Pipeline, url: str, version: str) -> None:
        parts = urlsplit(url)
        self._pipeline = pipeline
        self._url = f"{parts.scheme}://{parts.netloc}{parts.path}/messages"
        self._sas = f"&{parts.query}" if parts.query else ""
        self._version = version

    async def put(self, body: str, delay: int, ttl: int | None) -> str:
        """Put Message; returns its id."""
        query = f"visibilitytimeout={delay}&messagettl={_FOREVER if ttl is None else ttl}"
        answer = await self._ask("POST", f"{self._url}?{query}", HTTPStatus.CREATED, _encoded(body))
        (put,) = _messages(answer)
        return put["MessageId"]

    async def get(self, limit: int, visibility: int) -> list[Message]:
        """Get Messages."""
        query = f"numofmessages={limit}&visibilitytimeout={visibility}"
        answer = await self._ask("GET", f"{self._url}?{query}", HTTPStatus.OK)
        return [_message(fields, visibility) for fields in _messages(answer)]

    async def update(self, message_id: str, receipt: str, visibility: int, body: str | None) -> str:
        """Update Message, with its body as it was if *body* is None; returns the new receipt."""
        query = f"popreceipt={quote(receipt, safe='')}&visibilitytimeout={visibility}"
        content = None if body is None else _encoded(body)
        answer = await self._ask("PUT", f"{self._of(message_id)}?{query}", HTTPStatus.NO_CONTENT, content)
        return _given(answer.headers.get("x-ms-popreceipt"))

    async def delete(self, message_id: str, receipt: str) -> None:
        """Delete Message."""
        query = f"popreceipt={quote(receipt, safe='')}"
        await self._ask("DELETE", f"{self._of(message_id)}?{query}", HTTPStatus.NO_CONTENT)

    def _of(self, message_id: str) -> str:
        return f"{self._url}/{quote(message_id, safe='')}"

    async def _ask(self, method: str, url: str, expected: HTTPStatus, content: bytes | None = None) -> Answer:
        headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": self._version}
        if content is not None:
            headers |= {"Content-Length": str(len(content)), "Content-Type": "application/xml"}
        request = HttpRequest(method, url + self._sas, headers, data=content)
        answer = (await self._pipeline.run(request)).http_response
        if answer.status_code != expected:
            refuse(answer.status_code, answer.headers, answer.content)
        return answer


def _root(answer: Answer) -> ET.Element:
    # As text, so that the parser takes it in no other encoding than this one.
    return root_of(answer.content.decode("utf-8-sig"))


def _messages(answer: Answer) -> Iterator[dict[str, str]]:
    root = _root(answer)
    if root.tag != "QueueMessagesList":
        raise ValueError("an answer of something else")
    return ({field.tag: field.text or "" for field in message} for message in root)


def _message(fields: dict[str, str], visibility: int) -> Message:
    return Message(
        id=fields["MessageId"],
        receipt=fields["PopReceipt"],
        dequeue_count=int(fields["DequeueCount"]),
        body=fields["MessageText"],
        inserted_at=_moment(fields["InsertionTime"]),
        expires_at=_expiry(fields["ExpirationTime"]),
        received_at=_moment(fields["TimeNextVisible"]) - timedelta(seconds=visibility),
    )


@lru_cache(maxsize=256)
def _moment(text: str) -> datetime:
    return parsedate_to_datetime(text).astimezone(UTC)


def _expiry(text: str) -> datetime | None:
    moment = _moment(text)
    return None if moment.year == MAXYEAR else moment  # what the service says of one that never does


def _given(value: str | None) -> str:
    if value is None:
        raise ValueError("the answer lacks a value")
    return value


def _encoded(body: str) -> bytes:
    return f"<QueueMessage><MessageText>{escape(body)}</MessageText></QueueMessage>".encode()
