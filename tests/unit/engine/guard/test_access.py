import pytest

from doubles import ScriptedBroker
from qworker.brokers.base import Urgency
from qworker.engine.guard.access import Access, GuardedBroker, Suspended
from qworker.errors import AccessDenied, BrokerBusy, LeaseLost

GET, OTHER_GET, UPDATE, DELETE = ("get", "work"), ("get", "other"), ("update", "work"), ("delete", "work")
POISON = ("put", "work-poison")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def access(clock: Clock) -> Access:
    return Access(clock)


def refused(access: Access, asked: tuple[str, str]) -> tuple[str, float, bool]:
    with pytest.raises(Suspended) as caught:
        access.begin(asked)
    return str(caught.value), caught.value.retry_in, caught.value.everywhere


def test_without_a_denial_everything_may_be_asked(access: Access) -> None:
    for _ in range(3):
        for asked in (GET, UPDATE, DELETE):
            access.begin(asked)
            access.grant(asked)


def test_a_denied_get_holds_up_the_gets_of_all_queues_for_five_seconds(access: Access, clock: Clock) -> None:
    access.begin(GET)
    assert ("no get", 5, True) == (str(told := access.deny(GET, "no get")), told.retry_in, told.everywhere)
    assert ("no get", 5, True) == refused(access, OTHER_GET)
    clock.now += 4.5
    assert ("no get", 0.5, True) == refused(access, OTHER_GET)
    assert ("no get", 1.5, True) == refused(access, GET), "it is another's turn"
    clock.now += 0.5
    access.begin(OTHER_GET)
    assert 6 == refused(access, GET)[1]


def test_everything_else_is_tried_once_and_a_second_denial_holds_up_all(access: Access, clock: Clock) -> None:
    access.deny(GET, "no get")
    access.begin(DELETE)
    assert ("no get", 5, True) == refused(access, DELETE), "its answer is awaited"
    access.deny(DELETE, "no delete")
    for asked in (GET, OTHER_GET, UPDATE):
        assert ("no get", 5, True) == refused(access, asked)
    clock.now += 5
    access.begin(UPDATE)
    for asked in (GET, OTHER_GET, UPDATE, DELETE):
        assert 5 <= refused(access, asked)[1]


def test_while_all_is_denied_one_request_is_sent_in_five_seconds(access: Access, clock: Clock) -> None:
    access.deny(UPDATE, "no update")
    access.deny(GET, "no get")
    sent = 0
    for _ in range(600):
        clock.now += 0.1
        for asked in (UPDATE, GET, DELETE):
            try:
                access.begin(asked)
            except Suspended:
                continue
            sent += 1
            access.deny(asked, "still not")
    assert 11 <= sent <= 12


def test_the_first_thing_granted_frees_all_others(access: Access, clock: Clock) -> None:
    access.deny(GET, "no get")
    access.deny(UPDATE, "no update")
    clock.now += 5
    access.begin(DELETE)
    access.grant(DELETE)
    for asked in (GET, UPDATE):
        access.begin(asked)
        assert not refused(access, asked)[2], "one of each, until that is answered"
        access.grant(asked)
        access.begin(asked)


def test_one_missing_right_holds_up_nothing_else(access: Access, clock: Clock) -> None:
    access.deny(UPDATE, "no update")
    for asked in (GET, DELETE):
        access.begin(asked)
        access.grant(asked)
    assert ("no update", 5, False) == refused(access, UPDATE)
    for _ in range(3):
        clock.now += 5
        access.begin(UPDATE)
        assert not access.deny(UPDATE, "no update").everywhere
        access.begin(GET)
        access.begin(GET)


def test_a_right_is_missing_once_it_is_denied_while_others_are_not(access: Access, clock: Clock) -> None:
    assert not access.deny(UPDATE, "no update").missing
    access.grant(GET)
    clock.now += 5
    access.begin(UPDATE)
    assert access.deny(UPDATE, "no update").missing
    access.deny(GET, "no get")
    with pytest.raises(Suspended) as caught:
        access.begin(UPDATE)
    assert not caught.value.missing, "it may be more than that now"
    clock.now += 5
    access.begin(UPDATE)
    access.grant(UPDATE)
    assert not access.deny(UPDATE, "no update").missing


@pytest.mark.parametrize("right", [UPDATE, POISON])
def test_a_right_known_to_be_missing_tells_nothing(access: Access, right: tuple[str, str]) -> None:
    access.expect_denial(right, "no")
    assert not access.deny(right, "no").everywhere
    access.deny(GET, "no get")
    access.deny(right, "no")
    access.begin(DELETE)


def test_a_poison_queue_that_may_not_be_put_to_holds_up_only_itself(access: Access) -> None:
    told = access.deny(POISON, "no put")
    assert (False, True) == (told.everywhere, told.missing)
    assert ("no put", 5, False) == refused(access, POISON)
    access.begin(GET)


async def test_a_guarded_queue_is_asked_no_more_than_that() -> None:
    scripted = ScriptedBroker()
    queue = GuardedBroker(scripted, Access()).queue("work")
    scripted.queue("work").will("get", AccessDenied("403"), [])
    for _ in range(3):
        with pytest.raises(AccessDenied, match="403"):
            await queue.get(visibility=60)
    assert 1 == len(scripted.queue("work").called("get"))
    await queue.delete("m1", "r1")
    await GuardedBroker(scripted, Access()).queue("work").get(visibility=60)


async def test_a_refusal_that_comes_after_the_rights_is_a_grant() -> None:
    access = Access()
    queue = GuardedBroker(broker := ScriptedBroker(), access).queue("work")
    broker.queue("work").will("update", AccessDenied("403"))
    broker.queue("work").will("delete", LeaseLost("m1"))
    with pytest.raises(Suspended):
        await queue.update("m1", "r1", visibility=60)
    with pytest.raises(LeaseLost):
        await queue.delete("m1", "r1")
    with pytest.raises(Suspended) as caught:
        await queue.update("m1", "r1", visibility=60)
    assert not caught.value.everywhere


async def test_an_answer_that_tells_nothing_of_rights_changes_nothing() -> None:
    broker = ScriptedBroker()
    queue = GuardedBroker(broker, Access()).queue("work")
    broker.queue("work").will("update", AccessDenied("403"))
    broker.queue("work").will("delete", BrokerBusy("503"))
    with pytest.raises(Suspended):
        await queue.update("m1", "r1", visibility=60)
    with pytest.raises(BrokerBusy):
        await queue.delete("m1", "r1")
    with pytest.raises(Suspended) as caught:
        await queue.update("m1", "r1", visibility=60)
    assert caught.value.everywhere


async def test_a_right_that_is_checked_is_known_to_be_missing() -> None:
    broker = ScriptedBroker()
    queue = GuardedBroker(broker, Access()).queue("work")
    broker.queue("work").will("check_right", AccessDenied("403"))
    with pytest.raises(AccessDenied):
        await queue.check_right("update")
    with pytest.raises(Suspended) as caught:
        await queue.update("m1", "r1", visibility=60)
    assert not caught.value.everywhere
    assert [] == broker.queue("work").called("update")


async def test_a_guarded_queue_has_the_rate_and_the_room_of_the_one_within() -> None:
    broker = ScriptedBroker()
    queue, within = GuardedBroker(broker, Access()).queue("work"), broker.queue("work")
    within.limit = 95.0
    await queue.admit(Urgency.SETTLEMENT, within=3)
    assert (95.0, [(Urgency.SETTLEMENT, 3)]) == (queue.rate, within.admissions)
