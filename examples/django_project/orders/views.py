"""A view that enqueues once its transaction is committed."""

from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from orders.models import Order
from orders.tasks import add_up, send_receipt


@csrf_exempt  # an example has no form
@require_POST
def place(request: HttpRequest) -> JsonResponse:
    order = Order.objects.create(email=request.POST["email"], amount=request.POST["amount"])
    transaction.on_commit(lambda: send_receipt.enqueue(order.pk))
    transaction.on_commit(add_up.enqueue)
    return JsonResponse({"order": order.pk}, status=201)
