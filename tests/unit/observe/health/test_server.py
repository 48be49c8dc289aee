import errno
import socket
from typing import Any

import httpx
import pytest

from qworker.errors import ConfigurationError
from qworker.observe.health.server import NO_METRICS, ServerThread, listen, serving


class Told:
    """A target that says what a test wants."""

    def __init__(self) -> None:
        self.reasons: dict[str, str | None] = {"live": None, "ready": None}
        self.text: bytes | None = b"jobs_total 1\n"
        self.accepted: list[str] = []

    def live(self) -> str | None:
        return self.reasons["live"]

    def ready(self) -> str | None:
        return self.reasons["ready"]

    def metrics(self, accept: str) -> tuple[bytes, str] | None:
        self.accepted.append(accept)
        return None if self.text is None else (self.text, "text/plain; version=0.0.4; charset=utf-8")


async def test_what_is_answered() -> None:
    target, listener = Told(), listen(0)
    async with (
        serving(target, listener),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}") as client,
    ):
        for path in ("live", "ready"):
            answer = await client.get(f"/{path}")
            assert (200, "ok\n") == (answer.status_code, answer.text)
            target.reasons[path] = f"not {path}"
            answer = await client.get(f"/{path}")
            assert (503, f"not {path}\n") == (answer.status_code, answer.text)
        answer = await client.get("/metrics", headers={"Accept": "text/plain"})
        assert (200, b"jobs_total 1\n") == (answer.status_code, answer.content)
        assert "text/plain; version=0.0.4; charset=utf-8" == answer.headers["Content-Type"]
        assert ["text/plain"] == target.accepted
        target.text = None
        answer = await client.get("/metrics")
        assert (501, f"{NO_METRICS}\n") == (answer.status_code, answer.text)
        assert 404 == (await client.get("/")).status_code
    assert -1 == listener.fileno()


def test_it_answers_on_a_thread_of_its_own() -> None:
    listener = listen(0)
    port = listener.getsockname()[1]
    server = ServerThread(Told(), listener)
    server.start()
    for host in ("127.0.0.1", "[::1]") if socket.has_dualstack_ipv6() else ("127.0.0.1",):
        assert "ok\n" == httpx.get(f"http://{host}:{port}/live", verify=False).text
    server.stop()
    assert not server.is_alive()


def test_a_port_that_is_taken() -> None:
    with listen(0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"^health_port: port {port} can't be listened on: Address al"):
            listen(port)


def test_a_machine_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    create = socket.create_server

    def create_server(*args: Any, family: int = socket.AF_INET, **options: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "no")
        return create(*args)

    monkeypatch.setattr("qworker.observe.health.server.socket.create_server", create_server)
    monkeypatch.setattr("qworker.observe.health.server.socket.has_dualstack_ipv6", lambda: True)
    with listen(0) as listener:
        assert socket.AF_INET == listener.family
