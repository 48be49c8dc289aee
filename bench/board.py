"""Holds the results of a run, and their medians with the spread between rounds."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bench.results import Result


@dataclass(frozen=True)
class Figure:
    """A median, with the lowest and the highest of its values."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Figure":
        """Return the figure of some rounds."""
        return cls(statistics.median(values), min(values), max(values))

    def text(self, form: str = ",.0f") -> str:
        """Return it for a table."""
        return f"{self.median:{form}} ({self.low:{form}}-{self.high:{form}})"


class Board:
    """All results, by scene, measurement and contestant."""

    def __init__(self, results: Iterable[Result]) -> None:
        self._results: defaultdict[tuple[str, str, str], list[Result]] = defaultdict(list)
        for result in results:
            self._results[result.scene, result.what, result.who].append(result)

    def scenes(self, prefix: str) -> list[str]:
        """Return the scenes that begin with *prefix*."""
        return list(dict.fromkeys(scene for scene, _, _ in self._results if scene.startswith(prefix)))

    def who(self, scene: str, what: str) -> list[str]:
        """Return the contestants that were measured in a scene."""
        return [name for place, thing, name in self._results if (place, thing) == (scene, what)]

    def whats(self, scene: str) -> list[str]:
        """Return the measurements of a scene."""
        return list(dict.fromkeys(what for place, what, _ in self._results if place == scene))

    def figure(self, scene: str, what: str, who: str, of: Callable[[Result], float]) -> Figure:
        """Return one figure."""
        return Figure.of([of(result) for result in self._results[scene, what, who]])
