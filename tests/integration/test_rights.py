"""What a producer and a worker need of an account's rights, and what a worker says without them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import get_args
from uuid import uuid4

import pytest
from azure.storage.queue import (
    AccountSasPermissions,
    QueueSasPermissions,
    ResourceTypes,
    Services,
    generate_account_sas,
    generate_queue_sas,
)

from azurite_server import ACCOUNT, KEY, Azurite
from fault_report import Fault
from qworker import App, Reject
from qworker.brokers.azure.broker import AzureBroker
from qworker.brokers.azure.errors import (
    CLEAR,
    COUNT,
    CREATE_QUEUE,
    DELETE,
    DELETE_QUEUE,
    GET,
    LIST_QUEUES,
    PEEK,
    PUT,
    UPDATE,
)
from qworker.brokers.base import Right
from qworker.errors import AccessDenied
from qworker.events import JobPoisoned, JobSucceeded, PollFailed, RenewalFailed, RightMissing
from qworker.poison.replay import replay
from qworker.poison.selection import Selection
from qworker.poison.sweep import Pass
from qworker.testing import EventRecorder
from running import ROOT
from stage import Stage

_NAMES = {
    "a": "add",
    "p": "process",
    "u": "update",
    "r": "read",
    "d": "delete",
    "c": "create",
    "w": "write",
    "l": "list",
}
_ROLES = {
    "a": "Storage Queue Data Message Sender",
    "p": "Storage Queue Data Message Processor",
    "u": "Storage Queue Data Contributor",
}


@pytest.fixture
def url_with(azurite: Azurite) -> Callable[[str], str]:
    """Make the account's URL with a SAS of some permissions."""

    def url(permissions: str) -> str:
        sas = generate_account_sas(
            ACCOUNT,
            KEY,
            # A container is a queue: Azurite, unlike the service, counts updates and deletes as its operations.
            resource_types=ResourceTypes(container=True, object=True),
            permission=AccountSasPermissions(**{_NAMES[letter]: True for letter in permissions}),
            start=datetime.now(UTC) - timedelta(hours=1),
            expiry=datetime.now(UTC) + timedelta(hours=1),
            services=Services(queue=True),
        )
        return f"{azurite.account_url}?{sas}"

    return url


@pytest.fixture
async def queue(azurite: Azurite) -> AsyncIterator[str]:
    """Name a queue that is there, with its poison queue: neither a producer nor a worker needs to create them."""
    name = f"q-{uuid4().hex[:12]}"
    broker = AzureBroker.from_connection_string(azurite.connection_string)
    for each in (name, f"{name}-poison"):
        await broker.create_queue(each)
    yield name
    await broker.aclose()


def app_at(url: str, queue: str) -> App:
    app = App(broker=url)

    @app.task(name="ok", queue=queue)
    async def ok(seconds: float = 0) -> None:
        await asyncio.sleep(seconds)

    @app.task(name="bad", queue=queue)
    async def bad() -> None:
        raise Reject("no")

    return app


@pytest.mark.fault(54)
async def test_a_producer_needs_to_add_and_a_worker_to_process_update_and_add(
    url_with: Callable[[str], str], queue: str, fault: Fault
) -> None:
    producer = app_at(url_with("a"), queue)
    await producer.get_task("ok").aenqueue(1.5)
    await producer.get_task("bad").aenqueue()
    await producer.aclose()
    recorder = EventRecorder()
    async with app_at(url_with("pua"), queue).worker(listeners=[recorder], lease=2, poll_max=0.2) as worker:
        await recorder.wait_for(JobPoisoned)
        await recorder.wait_for(JobSucceeded)
        await asyncio.wait(worker._rights._checks.values())
    failed = (RightMissing, RenewalFailed, PollFailed)
    refused = [event for event in recorder.events if isinstance(event, failed)]
    fault.did("a producer with 'a' and a worker with 'pua': a job that is renewed, and one that is given up")
    fault.saw(f"both done, {len(refused)} requests denied")
    assert [] == refused


async def test_a_producer_can_do_with_a_signature_for_its_queue_alone(azurite: Azurite, queue: str) -> None:
    expiry = datetime.now(UTC) + timedelta(hours=1)
    sas = generate_queue_sas(ACCOUNT, queue, KEY, QueueSasPermissions(add=True), expiry)
    app = app_at(f"{azurite.account_url}?{sas}", queue)
    await app.get_task("ok").aenqueue()
    with pytest.raises(AccessDenied):
        await app.get_task("ok").using(queue="another").aenqueue()
    await app.aclose()


@pytest.mark.fault(54)
@pytest.mark.parametrize(
    ("permissions", "missing"),
    [("pa", "u"), ("pu", "a")],
)
async def test_a_worker_names_the_right_it_will_miss(
    url_with: Callable[[str], str], queue: str, permissions: str, missing: str, fault: Fault
) -> None:
    recorder = EventRecorder()
    async with app_at(url_with(permissions), queue).worker(listeners=[recorder], poll_max=0.2) as worker:
        told = await recorder.wait_for(RightMissing)
        await asyncio.wait(worker._rights._checks.values())
    fault.did(f"a worker with '{permissions}'")
    fault.saw(told.reason.replace(queue, "mail"))
    assert [told] == recorder.of(RightMissing)
    assert {"u": ("", "update"), "a": ("-poison", "put")}[missing] == (told.queue.removeprefix(queue), told.right)
    assert f"permission '{missing}' in a SAS or the role '{_ROLES[missing]}'" in told.reason


async def test_a_worker_that_may_not_poll_names_that_right(url_with: Callable[[str], str], queue: str) -> None:
    recorder = EventRecorder()
    async with app_at(url_with("ua"), queue).worker(listeners=[recorder]):
        failed = await recorder.wait_for(PollFailed)
    assert f"permission 'p' in a SAS or the role '{_ROLES['p']}'" in failed.reason
    assert [] == recorder.of(RightMissing)


@pytest.mark.parametrize("permissions", ["a", "pua", "acdlpruw"])
async def test_a_check_of_a_right_leaves_nothing_behind(
    azurite: Azurite, url_with: Callable[[str], str], queue: str, permissions: str
) -> None:
    limited = AzureBroker.from_url(url_with(permissions))
    whole = AzureBroker.from_connection_string(azurite.connection_string)
    rights: tuple[Right, ...] = get_args(Right)
    for right in rights:
        try:
            await limited.queue(queue).check_right(right)
        except AccessDenied:
            assert "a" == permissions
    assert 0 == await whole.queue(queue).count()
    await limited.aclose()
    await whole.aclose()


async def test_a_replay_needs_to_add_process_and_read(
    azurite: Azurite, url_with: Callable[[str], str], queue: str
) -> None:
    whole, limited = (
        AzureBroker.from_connection_string(azurite.connection_string),
        AzureBroker.from_url(url_with("apr")),
    )
    await whole.queue(f"{queue}-poison").put("no record")
    assert 1 == await replay(limited, queue)
    assert (1, 0) == (await whole.queue(queue).count(), await whole.queue(f"{queue}-poison").count())
    await limited.aclose()
    await whole.aclose()


@pytest.mark.parametrize(("permissions", "given_back"), [("apru", True), ("apr", False)])
async def test_a_replay_of_some_needs_to_update_too(
    azurite: Azurite, url_with: Callable[[str], str], queue: str, permissions: str, *, given_back: bool
) -> None:
    whole = AzureBroker.from_connection_string(azurite.connection_string)
    limited = AzureBroker.from_url(url_with(permissions))
    await whole.queue(f"{queue}-poison").put('{"task":"another"}')
    await whole.queue(f"{queue}-poison").put('{"task":"meant"}')
    assert 1 == await replay(limited, queue, Pass(selection=Selection(task="meant")))
    assert (1, 1) == (await whole.queue(queue).count(), await whole.queue(f"{queue}-poison").count())
    assert given_back == bool(await whole.queue(f"{queue}-poison").peek())
    await limited.aclose()
    await whole.aclose()


def test_the_page_on_rights_names_those_that_are_asked_for() -> None:
    operations = {"put": PUT, "get": GET, "delete": DELETE, "update": UPDATE, "count": COUNT, "create": CREATE_QUEUE}
    operations |= {"peek": PEEK, "list": LIST_QUEUES, "clear": CLEAR, "delete queue": DELETE_QUEUE}
    table = (ROOT / "docs/rights.md").read_text().partition("| request |")[2].partition("\n\n")[0]
    rows = [[cell.strip(" `") for cell in row.split("|")[1:-1]] for row in table.splitlines()[2:]]
    named = {name: (operation.permission, operation.role) for name, operation in operations.items()}
    assert named == {row[0]: (row[2], row[4]) for row in rows}


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_burst_that_may_not_poll_ends_and_says_why(
    stage_on: Callable[[str], Stage], url_with: Callable[[str], str], processes: str
) -> None:
    worker = stage_on(url_with("ua")).worker("--burst", "-p", processes)
    assert 1 == worker.wait(), worker.output
    assert "permission 'p'" in worker.lines("poll.failed")[0]["reason"]
    assert "Traceback" not in worker.output


def test_a_burst_on_a_queue_that_it_can_not_create_ends(
    stage_on: Callable[[str], Stage], url_with: Callable[[str], str]
) -> None:
    stage = stage_on(url_with("pua"))
    worker = stage.worker("--burst")
    assert 1 == worker.wait(), worker.output
    [line] = worker.lines("poll.failed")
    assert f"queue '{stage.queue}' does not exist" == line["reason"]
