"""What went wrong with a request to Azure Queue Storage, said once, in qworker's own errors.

The service's error codes: https://learn.microsoft.com/rest/api/storageservices/queue-service-error-codes and
https://learn.microsoft.com/rest/api/storageservices/common-rest-api-error-codes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Final

import aiohttp
from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError, IncompleteReadError

from qworker.brokers.base import MAX_BODY_BYTES
from qworker.errors import (
    AccessDenied,
    AnswerLost,
    BrokerBusy,
    BrokerRefused,
    BrokerUnavailable,
    LeaseLost,
    MessageTooLarge,
    QueueBeingDeleted,
    QueueNotFound,
    QworkerError,
)


@dataclass(frozen=True, slots=True)
class Operation:
    """What can be asked of the service, and the right it takes."""

    does: str
    permission: str
    """The letter in a SAS."""
    role: str
    """The least of Azure's built-in roles that has this right."""
    changes: bool = True
    """Whether it matters if a request without an answer was applied."""


PUT: Final = Operation("put a message into", "a", "Storage Queue Data Message Sender")
GET: Final = Operation("get messages from", "p", "Storage Queue Data Message Processor")
PEEK: Final = Operation("peek into", "r", "Storage Queue Data Reader", changes=False)
UPDATE: Final = Operation("update a message of", "u", "Storage Queue Data Contributor")
DELETE: Final = Operation("delete a message of", "p", "Storage Queue Data Message Processor")
CLEAR: Final = Operation("clear", "d", "Storage Queue Data Contributor")
COUNT: Final = Operation("count the messages of", "r", "Storage Queue Data Reader", changes=False)
CREATE_QUEUE: Final = Operation("create queue", "c", "Storage Queue Data Contributor")
DELETE_QUEUE: Final = Operation("delete queue", "d", "Storage Queue Data Contributor")
LIST_QUEUES: Final = Operation("list queues like", "l", "Storage Queue Data Reader", changes=False)


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked; its texts are fit for logs."""

    operation: Operation
    account: str
    queue: str
    message_id: str = ""
    body: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.operation.does} {self.queue!r}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the service answered instead of doing it."""

    status: int
    code: str
    """The service's error code; empty if the answer came from something in between."""
    retry_after: float | None

    @property
    def overloaded(self) -> bool:
        """Whether it is a matter of how much is asked, and not of what."""
        return self.status in _OVERLOADED

    def __str__(self) -> str:
        return f"{self.status} {self.code}".rstrip()


class Refused(Exception):
    """The service refused a request."""

    def __init__(self, status: int, code: str, headers: Mapping[str, str]) -> None:
        super().__init__(status, code)
        self.headers = headers
        self.refusal = Refusal(status, code, _seconds(headers.get("Retry-After")))


class QueueExists(BrokerRefused):
    """There is a queue of this name already."""


def translate(error: Exception, request: Request, *, sent: bool) -> QworkerError:
    """Return the error to raise for what the SDK raised.

    The crucial question is what became of the request: refused or never *sent* means that nothing was done; everything
    else leaves it open. The SDK's own classes don't tell: it calls a lost connection a ServiceRequestError too, "no
    request was sent". The result never holds the original: it has URLs with signatures and headers with keys.
    """
    if isinstance(error, QworkerError):
        return error
    if (refusal := refusal_of(error)) is not None:
        return _BY_CODE.get(refusal.code, _BY_STATUS.get(refusal.status, _refused))(request, refusal)
    if isinstance(error, ClientAuthenticationError):
        return AccessDenied(f"{request.account}: no credential to {request}: {_first_line(error)}")
    if sent:
        return AnswerLost(f"{request.account}: {_what_was_lost(error)}: the request to {request} may have been applied")
    if isinstance(error, AzureError | aiohttp.ClientError | TimeoutError | OSError):
        return BrokerUnavailable(f"{request.account} can't be reached to {request}: {_why_not_sent(error)}")
    return BrokerRefused(f"{request.account}: the request to {request} can't be made: {_where(error)}")


def refusal_of(error: Exception) -> Refusal | None:
    """Return what the service answered instead of doing it, or None if it did not answer that."""
    if isinstance(error, Refused):
        return error.refusal
    if not isinstance(error, HttpResponseError):
        return None
    status: int | None = getattr(error, "status_code", None)  # some are raised half made
    if status is None:
        return None
    code = getattr(error, "error_code", None)  # a str-enum, a str, or not set
    code = str(getattr(code, "value", code) or "")
    if not code and (status < _FIRST_ERROR or _is_of_sign_in(error)):
        return None
    headers = getattr(error.response, "headers", {})
    return Refusal(status, code, _seconds(headers.get("Retry-After")))


def _is_of_sign_in(error: HttpResponseError) -> bool:
    return isinstance(error, ClientAuthenticationError) and error.status_code != _UNAUTHORIZED


def _seconds(header: str | None) -> float | None:
    if header is None or not header.isascii() or not header.isdigit():
        return None
    return min(float(header), _LONGEST_WAIT)


def _lease_lost(request: Request, _: Refusal) -> QworkerError:
    return LeaseLost(request.message_id)


def _queue_not_found(request: Request, _: Refusal) -> QworkerError:
    return QueueNotFound(request.queue)


def _queue_being_deleted(request: Request, _: Refusal) -> QworkerError:
    return QueueBeingDeleted(request.queue)


def _queue_exists(request: Request, _: Refusal) -> QworkerError:
    return QueueExists(f"queue {request.queue!r} exists already")


def _too_large(request: Request, _: Refusal) -> QworkerError:
    return MessageTooLarge(len(request.body.encode()), MAX_BODY_BYTES)


def _busy(request: Request, refusal: Refusal) -> QworkerError:
    return BrokerBusy(f"{request.account} is too busy to {request} ({refusal})", refusal.retry_after)


def _failed(request: Request, refusal: Refusal) -> QworkerError:
    """A failure on the service's side: unlike when it is busy, it may have done what was asked."""
    if not request.operation.changes:
        return _busy(request, refusal)
    return AnswerLost(f"{request.account} failed ({refusal}): the request to {request} may have been applied")


def _bad_credential(request: Request, refusal: Refusal) -> QworkerError:
    return AccessDenied(
        f"{request.account} did not accept the credential to {request} ({refusal}): "
        "the key or SAS is wrong, has expired or is not for this, or this machine's clock is off",
    )


def _no_right(request: Request, refusal: Refusal) -> QworkerError:
    return AccessDenied(f"{request.account} denied the right to {request} ({refusal}): {_needs(request)}")


def _no_right_or_way_in(request: Request, refusal: Refusal) -> QworkerError:
    return AccessDenied(
        f"{request.account} denied the right to {request} ({refusal}): {_needs(request)}, "
        "unless the account's firewall is what keeps this machine out",
    )


def _needs(request: Request) -> str:
    return f"it takes permission {request.operation.permission!r} in a SAS or the role {request.operation.role!r}"


def _refused(request: Request, refusal: Refusal) -> QworkerError:
    return BrokerRefused(f"{request.account} refused to {request} ({refusal})")


def _what_was_lost(error: Exception) -> str:
    """Say why a request that was sent has no usable answer."""
    if _caused_by(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, IncompleteReadError | aiohttp.ClientPayloadError):
        return "the answer was cut off"
    if _caused_by(error, aiohttp.ClientError | OSError):
        return "the connection was lost before an answer"
    return f"the answer can't be read ({type(error).__name__})"


def _why_not_sent(error: Exception) -> str:
    cause = getattr(error, "inner_exception", None) or error
    if isinstance(cause, aiohttp.ClientConnectorError):
        return str(cause)
    if isinstance(cause, TimeoutError):
        return "no connection in time"
    return type(cause).__name__


def _where(error: Exception) -> str:
    """Say which module raised an error that nobody expects, but not its text, which may have anything in it."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    module = "" if place is None else f" in {place.tb_frame.f_globals.get('__name__')}, line {place.tb_lineno}"
    return f"{type(error).__name__}{module}"


def _caused_by(error: Exception, kind: type | UnionType) -> bool:
    return isinstance(error, kind) or isinstance(getattr(error, "inner_exception", None), kind)


def _first_line(error: AzureError) -> str:
    return error.message.partition("\n")[0]


_FIRST_ERROR: Final = 300
_UNAUTHORIZED: Final = 401
_OVERLOADED: Final = frozenset({429, 500, 502, 503, 504})
_LONGEST_WAIT: Final = 60.0
"""Seconds that a Retry-After is waited for at most: a mistaken header should not stop a worker for a day."""

_Build = Callable[[Request, Refusal], QworkerError]
_BY_CODE: Final[dict[str, _Build]] = {
    "MessageNotFound": _lease_lost,
    "PopReceiptMismatch": _lease_lost,
    "QueueNotFound": _queue_not_found,
    "QueueBeingDeleted": _queue_being_deleted,
    "QueueDisabled": _queue_being_deleted,
    "QueueAlreadyExists": _queue_exists,
    "MessageTooLarge": _too_large,
    "RequestBodyTooLarge": _too_large,
    "ServerBusy": _busy,
    "InternalError": _failed,
    "OperationTimedOut": _failed,
    "OperationTimeout": _failed,
    "AuthenticationFailed": _bad_credential,
    "InvalidAuthenticationInfo": _bad_credential,
    "NoAuthenticationInformation": _bad_credential,
    "AuthorizationFailure": _no_right_or_way_in,
    "AuthorizationPermissionMismatch": _no_right,
    "InsufficientAccountPermissions": _no_right,
}
# For codes that the table doesn't have, and for answers of gateways and proxies, which have none.
_BY_STATUS: Final[dict[int, _Build]] = {
    401: _bad_credential,
    403: _no_right,
    429: _busy,
    500: _failed,
    502: _failed,
    503: _busy,
    504: _failed,
}
