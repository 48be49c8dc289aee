"""The three ways to test: the function, what a view enqueues, and all of it with a worker."""

from django.db import transaction
from django.test import TestCase, TransactionTestCase
from mysite.background import app

from orders.models import Order, Total
from orders.tasks import add_up, send_receipt
from qworker.events import JobStarted, JobSucceeded
from qworker.testing import run_until_idle

ORDER = {"email": "ada@example.org", "amount": 7}


class FunctionTest(TestCase):
    """A task is still its function."""

    def test_a_receipt_is_noted(self) -> None:
        order = Order.objects.create(**ORDER)
        send_receipt(order.pk)
        order.refresh_from_db()
        assert order.receipt_sent

    def test_orders_are_added_up(self) -> None:
        for _ in range(2):
            Order.objects.create(**ORDER)
        add_up()
        assert Total.objects.get().amount == 14


class ViewTest(TestCase):
    """A TestCase's transaction is never committed: its callbacks are captured."""

    def test_it_enqueues_once_the_order_is_committed(self) -> None:
        app.use_broker("sqlite://")
        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            assert self.client.post("/orders/", ORDER).status_code == 201
        assert len(callbacks) == 2


class WorkerTest(TransactionTestCase):
    """Handlers run in threads, with connections of their own: what they are to see has to be committed.

    A child process would not know of the tests' database: the queue of such tasks is left alone, and they are called.
    """

    def setUp(self) -> None:
        app.use_broker("sqlite://")
        self.addCleanup(app.close)

    def test_the_receipt_is_sent(self) -> None:
        self.client.post("/orders/", ORDER)
        happened = run_until_idle(app, queues=["default"])
        assert ["orders.tasks.send_receipt"] == [event.job.task for event in happened.of(JobSucceeded)]
        assert Order.objects.get().receipt_sent

    def test_an_order_that_is_rolled_back_sends_none(self) -> None:
        with transaction.atomic():
            assert self.client.post("/orders/", ORDER).status_code == 201
            transaction.set_rollback(True)
        assert [] == run_until_idle(app, queues=["default"]).of(JobStarted)
        assert not Order.objects.exists()
