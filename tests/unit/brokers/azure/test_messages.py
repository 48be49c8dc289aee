"""The requests of a message's life; test_broker.py has them against a service that answers."""

import time
from typing import Any

from azure.core.credentials import AccessToken
from azure.core.pipeline.transport import HttpRequest
from azure.storage.queue.aio import QueueServiceClient

from azurite_server import KEY, connection_string
from qworker.brokers.azure.messages import MessageRequests, new_pipeline
from qworker.brokers.azure.transport import Answer, BareTransport


class Transport(BareTransport):
    """Keeps requests, and answers each as a delete."""

    def __init__(self) -> None:
        self.requests: list[HttpRequest] = []

    async def send(self, request: HttpRequest, **_: Any) -> Answer:
        self.requests.append(request)
        return Answer(204, {}, b"")


class Credential:
    def __init__(self) -> None:
        self.scopes: list[str] = []

    async def get_token(self, *scopes: str, **_: object) -> AccessToken:
        self.scopes += scopes
        return AccessToken("t0ken", int(time.time()) + 3600)


async def delete(service: QueueServiceClient) -> HttpRequest:
    transport = Transport()
    requests = MessageRequests(new_pipeline(service, transport), service.get_queue_client("mail").url, "2025-11-05")
    await requests.delete("an id", "a+b/c==")
    [request] = transport.requests
    return request


async def test_a_token_is_asked_for_once_and_sent() -> None:
    credential = Credential()
    service = QueueServiceClient("https://shop.queue.core.windows.net", credential)  # type: ignore[arg-type]
    assert "Bearer t0ken" == (await delete(service)).headers["Authorization"]
    assert ["https://storage.azure.com/.default"] == credential.scopes


async def test_a_request_is_signed_with_the_key() -> None:
    request = await delete(QueueServiceClient.from_connection_string(connection_string(1, KEY)))
    assert request.headers["Authorization"].startswith("SharedKey devstoreaccount1:")
    assert "2025-11-05" == request.headers["x-ms-version"]


async def test_a_sas_stays_in_the_url_as_it_was_given() -> None:
    sas = "sv=2025-11-05&ss=q&sp=ap&sig=a%2Bb%2Fc%3D"
    request = await delete(QueueServiceClient(f"https://shop.queue.core.windows.net?{sas}"))
    assert f"https://shop.queue.core.windows.net/mail/messages/an%20id?popreceipt=a%2Bb%2Fc%3D%3D&{sas}" == request.url
    assert "Authorization" not in request.headers
