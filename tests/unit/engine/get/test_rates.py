from doubles import ScriptedQueue
from qworker.engine.get.rates import RateReport
from qworker.events import Event, QueueThrottled, QueueUnthrottled


class Watched:
    """A queue, a clock, and what was told."""

    def __init__(self) -> None:
        self.queue = ScriptedQueue("mail")
        self.now = 100.0
        self.told: list[Event] = []
        self._report = RateReport(self.queue, self.told.append, lambda: self.now)

    def look(self, now: float, rate: float | None) -> list[Event]:
        """Return what a look at that moment has it tell."""
        self.now, self.queue.limit = now, rate
        before = len(self.told)
        self._report.look()
        return self.told[before:]


def test_of_a_queue_that_takes_everything_there_is_nothing_to_tell() -> None:
    assert [] == Watched().look(100, None)


def test_a_rate_is_told_once_it_says_something_and_then_every_half_minute() -> None:
    watched = Watched()
    assert [] == watched.look(100, 10)
    assert [] == watched.look(102.9, 40)
    assert [QueueThrottled(queue="mail", rate=95)] == watched.look(103, 95)
    assert [] == watched.look(132.9, 99)
    assert [QueueThrottled(queue="mail", rate=97)] == watched.look(133, 97)


def test_the_end_is_told_with_how_long_it_took() -> None:
    watched = Watched()
    watched.look(100, 10)
    assert [QueueUnthrottled(queue="mail", seconds=45)] == watched.look(145, None)
    assert [] == watched.look(146, None)
    assert [] == watched.look(147, 10), "the next begins anew"
