"""What comes over the wire from Azure Queue Storage, before the SDK reads it."""

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from azure.core.exceptions import AzureError
from azure.core.pipeline.transport import AioHttpTransport

_DOCUMENT_TYPE: Final = re.compile(r"\A\ufeff?(?>\s+|<\?(?>.*?\?>)|<!--(?>.*?-->))*+<!DOCTYPE", re.DOTALL)


class EntitiesRefused(AzureError):
    """The answer declares a document type, which no answer of the service does.

    Its entities could let kilobytes grow to gigabytes: not every version of Python's parser limits them, and none does
    so closely. It has no response: the SDK would parse that once more, to see which error it is.
    """


class CautiousTransport(AioHttpTransport):  # type: ignore[misc] # the SDK exports it lazily
    """Refuses an answer with entities before anything parses it."""

    async def send(self, request: Any, **options: Any) -> Any:
        """Send a request and return its answer, read in full. Raises EntitiesRefused, or what the SDK does."""
        response = await super().send(request, **options)
        if any(_DOCUMENT_TYPE.match(text) for text in _readings(response)):
            raise EntitiesRefused("an answer with a document type")
        return response


def _readings(response: Any) -> Iterator[str]:
    """Return an answer as the SDK's two parsers read it: one believes the charset in its headers."""
    yield response.body().decode("utf-8", "replace")
    with suppress(LookupError, UnicodeError):
        yield response.text()
