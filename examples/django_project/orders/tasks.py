"""What happens after an order is placed: plain functions, since Django's models block."""

from django.db.models import Sum
from mysite.background import app

from orders.models import Order, Total


@app.task
def send_receipt(order: int) -> None:
    found = Order.objects.get(pk=order)
    if not found.receipt_sent:  # a job may run more than once
        print(f"receipt of {found.amount} sent to {found.email}", flush=True)
        found.receipt_sent = True
        found.save(update_fields=["receipt_sent"])


@app.task(executor="process", queue="reports")
def add_up() -> None:
    amount = Order.objects.aggregate(sum=Sum("amount"))["sum"]
    Total.objects.create(amount=amount or 0)
