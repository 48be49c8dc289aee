"""What a task's checkpoints save, as JSON and back: what the next attempt finds equals what was saved."""

from typing import Any, Final

from qworker.errors import ConfigurationError, InvalidArguments, ValidatorFailed
from qworker.wire.codec import Codec, Refused

_STATE: Final = "state"


class States:
    """Turns one task's states into JSON and back; *kind* is their type, or None for any JSON value.

    Raises ConfigurationError for a type that JSON can't carry.
    """

    def __init__(self, task: str, kind: Any = None) -> None:
        self._task = task
        self._typed = kind is not None
        try:
            self._codec = Codec({_STATE: kind if self._typed else Any})
        except ConfigurationError as error:
            reason = str(error)
        else:
            return
        raise ConfigurationError(f"task {task}: state must be a type that pydantic can check: {reason}")

    def encode(self, state: Any) -> Any:
        """Return a checkpoint's state as a JSON value. Raises InvalidArguments."""
        try:
            saved = self._codec.encode({_STATE: state})[_STATE]
        except Refused as refused:
            problem = refused.problem
        else:
            if saved is not None or state is None:
                return saved
            problem = f"{_STATE}: it would be null, which is no state"
        raise InvalidArguments(self._task, f"a state that can't be saved as JSON: {problem}")

    def decode(self, saved: Any) -> Any:
        """Return a saved state as its task wants it, or None if there is none.

        Raises InvalidArguments, or ValidatorFailed.
        """
        if saved is None or not self._typed:
            return saved
        try:
            return self._codec.decode({_STATE: saved})[_STATE]
        except Refused as refused:
            kind, problem = ValidatorFailed if refused.unknown else InvalidArguments, refused.problem
        raise kind(self._task, f"its saved state doesn't fit: {problem}")
