"""What other tests count on: the proxy's faults are what they say, and without them it changes nothing."""

from fault_proxy import FaultProxy
from qworker.brokers.azure import AzureBroker


async def test_requests_are_counted_by_kind(fault_proxy: FaultProxy) -> None:
    broker = AzureBroker.from_connection_string(fault_proxy.connection_string)
    queue = broker.queue("counted")
    await broker.create_queue("counted")
    for body in ("a", "b", "c"):
        await queue.put(body)
    await queue.peek(32)
    first, second, third = await queue.get(32, visibility=60)
    for message in (first, second):
        await queue.delete(message.id, await queue.update(message.id, message.receipt, visibility=60))
    assert 1 == await queue.count()
    await queue.clear()
    await broker.delete_queue("counted")
    await broker.aclose()
    assert ["a", "b", "c"] == [message.body for message in (first, second, third)]
    assert {
        "create queue": 1,
        "put": 3,
        "peek": 1,
        "get": 1,
        "update": 2,
        "delete": 2,
        "queue properties": 1,
        "clear": 1,
        "delete queue": 1,
    } == fault_proxy.requests
