"""Which requests a fault strikes."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from random import Random

from fault_actions import Action
from http_messages import OPERATIONS, Request


@dataclass(eq=False)
class Rule:
    """Apply an action to the requests that match; to all of them if no more is said.

    A request matches by operation, queue and *when*; of those that match, counted from 1, *nth* picks one, *every* each
    n-th, *probability* some, and *times* the first so many of what is left.
    """

    action: Action
    on: str | Collection[str] | None = None
    """An operation or several of them, of `http_messages.OPERATIONS`; None is all."""
    queue: str | None = None
    nth: int | None = None
    every: int | None = None
    times: int | None = None
    probability: float | None = None
    when: Callable[[Request], bool] | None = None
    """Called on the proxy's thread."""

    random: Random = field(default_factory=Random, init=False)
    """Seeded by the proxy that the rule is added to."""
    matched: int = field(default=0, init=False)
    applied: int = field(default=0, init=False)
    """How many requests it has struck: counted when the service did what it should, before the client knows."""
    _chosen: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.on is not None:
            self.on = frozenset({self.on} if isinstance(self.on, str) else self.on)
            if not self.on <= OPERATIONS:
                raise ValueError(f"no operation: {sorted(self.on - OPERATIONS)}; there are {sorted(OPERATIONS)}")

    def strikes(self, request: Request) -> bool:
        """Say whether this request is to be struck; to be asked once for each request, in order of arrival."""
        if not self._matches(request):
            return False
        self.matched += 1
        # Drawn in any case: what one request meets must not depend on how another was decided.
        drawn = self.probability is None or self.random.random() < self.probability
        return (
            drawn
            and self.nth in (None, self.matched)
            and (self.every is None or self.matched % self.every == 0)
            and (self.times is None or self._chosen < self.times)
        )

    def choose(self) -> None:
        """Count a request that it will strike."""
        self._chosen += 1

    def _matches(self, request: Request) -> bool:
        return (
            (self.on is None or request.operation in self.on)
            and self.queue in (None, request.queue)
            and (self.when is None or self.when(request))
        )
