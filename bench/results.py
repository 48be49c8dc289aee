"""What was measured, kept in a file of JSON lines."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from bench.measure import Figures


@dataclass(frozen=True)
class Result:
    """One figure or more of one contestant in one round."""

    scene: str
    what: str
    who: str
    round: int
    rate: float = 0.0
    """Jobs a second."""
    cpu_ms: float = 0.0
    requests: float = 0.0
    value: float = 0.0
    """Where it is none of these: seconds, bytes, a share."""

    @classmethod
    def of(cls, scene: str, what: str, who: str, number: int, figures: Figures) -> Self:
        """Return what a round took."""
        return cls(scene, what, who, number, figures.rate, figures.cpu_ms, figures.requests_each)

    def __str__(self) -> str:
        figures = (
            f"{self.value:.4g}" if self.value else f"{self.rate:,.0f}/s  {self.cpu_ms:.3f} ms  {self.requests:.3f}"
        )
        return f"{self.scene:22} {self.what:20} {self.who:30} {figures}"


def append(path: Path, results: Iterable[Result]) -> None:
    """Write results as they come, and show them."""
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for result in results:
            print(result, flush=True)
            file.write(json.dumps(asdict(result)) + "\n")
            file.flush()


def load(path: Path) -> list[Result]:
    """Return what was written."""
    return [Result(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
