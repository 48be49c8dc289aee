"""Reads the metrics of workers, from another machine too: the extra ``metrics``."""

from typing import Final
from urllib.parse import urlsplit

import aiohttp
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from qworker.errors import ConfigurationError
from qworker.operate.top.model import Scrape

_WITHIN: Final = 3.0
"""Seconds in which a worker has to answer."""
_LARGEST: Final = 4 << 20
"""Bytes of an answer that are read; a worker with a thousand tasks says 2 MiB."""
_OF_A_REFUSAL: Final = 4_096
"""Bytes of an answer without metrics that are read."""
_LONGEST_REASON: Final = 200
"""Characters of an answer without metrics."""
_OK: Final = 200
_GAUGES: Final = {
    "qworker_jobs_running": "running",
    "qworker_jobs_waiting": "waiting",
    "qworker_slots": "slots",
    "qworker_workers": "workers",
    "qworker_leases_lost_total": "leases_lost",
    "qworker_process_deaths_total": "process_deaths",
}


class Endpoint:
    """The address of a worker's metrics."""

    def __init__(self, url: str) -> None:
        """Take http://HOST:PORT, with or without a path. Raises ConfigurationError."""
        try:
            parts = urlsplit(url)
            self.name = parts.netloc.rpartition("@")[2]
            sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            sound = False
        if not sound:
            raise ConfigurationError("--from: must be the URL of a worker's health port, as in http://worker-1:9000")
        self._url = url if parts.path.strip("/") else parts._replace(path="/metrics").geturl()

    async def scrape(self, session: aiohttp.ClientSession) -> Scrape | str:
        """Return its metrics, or the reason why there are none."""
        try:
            status, body = await self._ask(session)
        except TimeoutError:
            return f"no answer within {_WITHIN:g} s"
        except aiohttp.ClientConnectorError as error:
            return f"can't be reached: {error.strerror or type(error.os_error).__name__}"
        except _TooLong:
            return f"its answer has more than {_LARGEST >> 20} MiB"
        except Exception as error:  # noqa: BLE001 — whatever it is, the other sources are still shown
            return f"can't be asked: {type(error).__name__}"
        return _understood(body) if status == _OK else _refusal(status, body)

    async def _ask(self, session: aiohttp.ClientSession) -> tuple[int, bytes]:
        """Ask this address, and no other that it may name."""
        timeout, headers = aiohttp.ClientTimeout(_WITHIN), {"Accept": "text/plain", "Accept-Encoding": "identity"}
        async with session.get(self._url, timeout=timeout, headers=headers, allow_redirects=False) as answer:
            if answer.status != _OK:
                return answer.status, await answer.content.read(_OF_A_REFUSAL)
            return answer.status, await _all_of(answer)


def _refusal(status: int, body: bytes) -> str:
    first, _, _ = body.decode(errors="replace").partition("\n")
    return f"answers {status}: {first[:_LONGEST_REASON]}".rstrip(": ")


def _understood(body: bytes) -> Scrape | str:
    try:
        return read(body.decode())
    except Exception:  # noqa: BLE001 — the parser raises any error for a text in another format
        return "its answer is not in the format of Prometheus"


class _TooLong(Exception):
    """An answer that nobody reads to its end."""


async def _all_of(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > _LARGEST:
            raise _TooLong
    return bytes(body)


def read(text: str) -> Scrape:
    """Return the figures of a worker from a text for Prometheus. Raises ValueError for any other text."""
    gauges: dict[str, float] = {}
    outcomes: dict[tuple[str, str], float] = {}
    durations: dict[str, dict[float, float]] = {}
    running: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for name, labels, value in _samples(family):
            if name in _GAUGES:
                gauges[_GAUGES[name]] = value
            elif name == "qworker_task_jobs_running":
                running[labels.get("task", "")] = value
            elif name == "qworker_jobs_total":
                outcomes[labels.get("task", ""), labels.get("outcome", "")] = value
            elif name == "qworker_job_duration_seconds_bucket":
                durations.setdefault(labels.get("task", ""), {})[float(labels.get("le", "inf"))] = value
    if not gauges:
        raise ValueError("it has no metrics of qworker")
    return Scrape(gauges, outcomes, durations, running)


def _samples(family: Metric) -> list[tuple[str, dict[str, str], float]]:
    return [(sample.name, sample.labels, sample.value) for sample in family.samples]
