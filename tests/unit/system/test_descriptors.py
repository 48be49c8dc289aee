"""Want of file descriptors is noticed, and lessened where that is allowed."""

import errno
import os
import subprocess
import sys
import textwrap

import pytest

from qworker.system import descriptors


def run(program: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True, timeout=60
    )
    return ended.stdout.strip()


@pytest.mark.parametrize(("limits", "then"), [((64, 256), 256), ((256, 256), 256), ((64, 512), 512), ((64, 1000), 512)])
def test_the_limit_is_raised_to_what_is_allowed(limits: tuple[int, int], then: int) -> None:
    program = f"""
        import resource
        from qworker.system import descriptors
        descriptors._ENOUGH = 512
        resource.setrlimit(resource.RLIMIT_NOFILE, {limits})
        descriptors.allow_many()
        print(resource.getrlimit(resource.RLIMIT_NOFILE))
    """
    assert str((then, limits[1])) == run(program)


def test_a_limit_that_is_higher_stays() -> None:
    program = """
        import resource
        from qworker.system import descriptors
        descriptors._ENOUGH = 32
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        descriptors.allow_many()
        print(before == resource.getrlimit(resource.RLIMIT_NOFILE))
    """
    assert "True" == run(program)


def test_that_there_are_none_left_is_told() -> None:
    program = """
        import os, resource
        from qworker.system.descriptors import are_out
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        found, held = [are_out()], []
        try:
            while True: held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            found.append(are_out())
        os.close(held.pop())
        print([*found, are_out(), are_out(2)])
    """
    assert "[False, True, False, True]" == run(program)


def test_another_reason_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> int:
        raise OSError(errno.EACCES, "no")

    monkeypatch.setattr(os, "open", denied)
    assert not descriptors.are_out()


def test_a_file_that_no_descriptor_is_left_for_is_waited_for() -> None:
    """SQLite says the same of a file that can't be opened for good; that ends a worker."""
    program = """
        import os, resource, tempfile
        from qworker.brokers.sqlite.broker import SqliteBroker
        from qworker.brokers.sqlite.operation import Mode
        from qworker.errors import BrokerError
        broker = SqliteBroker(tempfile.mkdtemp() + "/jobs.db")
        writer = broker.writer_now()
        writer.run(Mode.KEEP, lambda session: session.create_queue("mail"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        writer._disconnect()
        held, said = [], set()
        try:
            while True: held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError: pass
        while held:
            try:
                writer.run(Mode.KEEP, lambda session: session.create_queue("mail"))
                break
            except BrokerError as error:
                said.add(type(error).__name__)
            writer._disconnect()
            os.close(held.pop())
        print(bool(held), sorted(said))
    """
    assert "True ['BrokerUnavailable']" == run(program)
