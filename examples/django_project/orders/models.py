"""What is kept."""

from django.db import models


class Order(models.Model):
    """An order, and whether its receipt was sent."""

    email = models.EmailField()
    amount = models.IntegerField()
    receipt_sent = models.BooleanField(default=False)


class Total(models.Model):
    """The sum of all orders at one time."""

    amount = models.IntegerField()
