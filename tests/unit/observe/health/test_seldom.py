import pytest

from qworker.observe.health.seldom import Seldom


def test_one_line_in_a_while_tells_how_often(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    seldom = Seldom("it failed", lambda: now)
    for _ in range(1000):
        seldom.note("no room")
    assert ["it failed: no room"] == caplog.messages
    now += 30
    seldom.note("no room")
    assert "it failed: no room (1000 times)" == caplog.messages[1]
    seldom.note()
    seldom.flush()
    seldom.flush()
    assert ["it failed"] == caplog.messages[2:]
