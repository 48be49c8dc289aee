"""A stage on each broker; on Azurite its workers go through the fault proxy, so that what they ask for is known."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from fault_exchange import Seen
from fault_proxy import FaultProxy
from stage import MakeStage, Stage, WorkerProcess


@dataclass(frozen=True)
class Watched:
    """A stage, and the proxy that its workers go through; None on SQLite, where nobody knows what they ask for."""

    stage: Stage
    proxy: FaultProxy | None

    def seen(self, operation: str) -> list[Seen]:
        return self.proxy.seen(operation, self.stage.queue) if self.proxy else []

    def unwatched_worker(self, *options: str, app: str = "jobs") -> WorkerProcess:
        """Start a worker that goes another way."""
        return self.stage.worker(*options, app=app, env={"QWORKER_BROKER": self.stage.url})


@pytest.fixture(params=["sqlite", "azure"])
def watched(request: pytest.FixtureRequest, stage_on: MakeStage, tmp_path: Path) -> Watched:
    if request.param == "sqlite":
        return Watched(stage_on(f"sqlite:///{tmp_path}/jobs.db"), None)
    proxy: FaultProxy = request.getfixturevalue("fault_proxy")
    azurite = request.getfixturevalue("azurite")
    return Watched(stage_on(azurite.connection_string, proxy.connection_string), proxy)
