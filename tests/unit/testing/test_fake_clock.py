import pytest

from qworker.testing.clock import FakeClock


def test_time_stands_still() -> None:
    clock = FakeClock(100)
    assert (100, 0) == (clock.time(), clock.monotonic())
    assert (100, 0) == (clock.time(), clock.monotonic())


def test_both_clocks_advance() -> None:
    clock = FakeClock(100)
    clock.advance(2.5)
    assert (102.5, 2.5) == (clock.time(), clock.monotonic())


def test_only_the_wall_clock_is_stepped() -> None:
    clock = FakeClock(100)
    clock.step(-60)
    assert (40, 0) == (clock.time(), clock.monotonic())


def test_time_does_not_pass_backwards() -> None:
    with pytest.raises(ValueError, match="backwards"):
        FakeClock().advance(-1)
