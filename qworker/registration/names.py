"""Gives tasks their names, and sees to it that each means one function."""

import inspect
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType, FunctionType, MethodType
from typing import Any, Final

from qworker.errors import ConfigurationError, shown
from qworker.registration.callables import described
from qworker.wire.bounds import MAX_NAME, in_short, is_name

RESERVED: Final = "qworker."
"""Names that begin so are qworker's own: a bundle of jobs is a job of this kind."""
_LOCAL: Final = ".<locals>."
_OWN_PACKAGE: Final = __name__.partition(".")[0]
_MAIN: Final = frozenset({"__main__", "__mp_main__"})
"""What a script is called while it runs, and in a process that it spawned."""


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """Where a task was made, and by which execution of which module."""

    place: str
    """The line, as file:line."""
    module: str
    """The module whose execution made it, by the name that it runs under; empty if none does."""
    file: str
    """That module's file; empty if it has none, as what is typed in a shell or a notebook."""
    execution: tuple[CodeType, dict[str, Any]] | None = field(repr=False)
    """No two executions of a module have the same two: each is of code of its own, or in a namespace of its own."""
    scopes: frozenset[tuple[str, str]] = field(repr=False)
    """The functions that are running, by file and name."""

    @classmethod
    def here(cls) -> "Origin":
        """Return where this is called from, qworker itself left out."""
        frames = [*_callers()]
        module = next((frame for frame in frames if frame.f_code.co_name == "<module>"), None)
        return cls(
            place=f"{frames[0].f_code.co_filename}:{frames[0].f_lineno}" if frames else "?",
            module="" if module is None else module.f_globals.get("__name__", ""),
            file="" if module is None else _file_of(module.f_code),
            execution=None if module is None else (module.f_code, module.f_globals),
            scopes=frozenset((frame.f_code.co_filename, frame.f_code.co_qualname) for frame in frames),
        )

    def repeats(self, earlier: "Origin") -> bool:
        """Say whether the same module is executed once more: reloaded, or as a script and as what others import."""
        if self.execution is None or earlier.execution is None or _are_one(self.execution, earlier.execution):
            return False
        if self.file or earlier.file:
            return self.file == earlier.file
        return self.module == earlier.module != ""


@dataclass(frozen=True, slots=True)
class _Taken:
    name: str
    function: Callable[..., Any]
    options: Mapping[str, Any]
    origin: Origin


class Names:
    """The names of an app's tasks, and the function that each of them means."""

    def __init__(self) -> None:
        self._taken: dict[str, _Taken] = {}

    def take(self, name: str, function: Callable[..., Any], options: Mapping[str, Any], origin: Origin) -> None:
        """Let a name mean *function*. Raises ConfigurationError if it means another already."""
        new = _Taken(name, function, options, origin)
        known = self._taken.setdefault(_folded(name), new)
        if known is new:
            return
        if known.name != name:
            raise ConfigurationError(
                f"tasks {known.name!r} and {name!r}, {_places(known, new)}, "
                "differ only by case, spaces or the form of letters: rename one of them"
            )
        if not (_is_redefined(known, new) or _is_the_same(known.function, function)):
            raise ConfigurationError(
                f"two functions are named {name!r}, {_places(known, new)}: give each a name= of its own"
            )
        if not origin.repeats(known.origin) and dict(options) != dict(known.options):
            raise ConfigurationError(
                f"one function is named {name!r} twice, with different options, {_places(known, new)}: "
                "give each a name= of its own"
            )
        self._taken[_folded(name)] = new


def check_name(name: Any) -> str:
    """Return a task's name. Raises ConfigurationError for one that others could take for another, or for qworker's."""
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"a task's name must be a text, not {shown(name)}")
    if not is_name(name):
        limits = f"of at most {MAX_NAME} characters, without control characters and those that turn text"
        raise ConfigurationError(f"a task's name must be a text {limits}: {in_short(name)} is not")
    if not name.isprintable() or name != " ".join(name.split()):
        raise ConfigurationError(f"a task's name must have nothing invisible and no spaces around it, not {name!a}")
    if not unicodedata.is_normalized("NFC", name):
        raise ConfigurationError(f"a task's name must be in Unicode's composed form (NFC), not {name!a}")
    if _folded(name).startswith(RESERVED):
        raise ConfigurationError(f"no task may be named {shown(name)}: {RESERVED!r} begins the names of qworker's own")
    return name


def name_of(function: Callable[..., Any], origin: Origin) -> str:
    """Return the name of a function, for messages. Raises ConfigurationError if it has none that is its own."""
    name, module = getattr(function, "__qualname__", None), getattr(function, "__module__", None)
    if not isinstance(name, str) or not isinstance(module, str) or _is_an_objects(function):
        raise ConfigurationError(
            f"{described(function)} belongs to an object, of which its name says nothing: "
            f"give the task one, as in task(name={_example(function)!r})(…)"
        )
    if name.endswith("<lambda>"):
        raise ConfigurationError("a lambda has no name: give the task one, as in task(name='mail.send')(…)")
    if _LOCAL in name and not _is_in_scope(function, name, origin):
        raise ConfigurationError(
            f"a task can't be named {_dotted(module, name)!r}, as all are that {name.partition(_LOCAL)[0]}() returns: "
            "give that decorator functools.wraps, or the task a name="
        )
    return _dotted(module, name)


def _callers() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 — what inspect uses too
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] != _OWN_PACKAGE:
            yield frame
        frame = frame.f_back


def _file_of(code: CodeType) -> str:
    file = Path(code.co_filename)
    return str(file.resolve()) if file.is_file() else ""


def _is_an_objects(function: Callable[..., Any]) -> bool:
    """Say whether it is a method of an object, or an object that stands for a function and has another name."""
    if isinstance(function, FunctionType):
        return False
    plain = inspect.unwrap(function)
    return isinstance(function, MethodType) or _full_name(plain) != _full_name(function)


def _full_name(function: Callable[..., Any]) -> tuple[Any, Any]:
    return getattr(function, "__module__", None), getattr(function, "__qualname__", None)


def _example(function: Callable[..., Any]) -> str:
    owner = getattr(function, "__self__", function)
    return f"{type(owner).__name__.lower()}.{getattr(function, '__name__', 'run').strip('_')}"


def _is_in_scope(function: Callable[..., Any], name: str, origin: Origin) -> bool:
    """Say whether a local function is made a task where it is defined: its name then says enough."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code is not None and (code.co_filename, name.rpartition(_LOCAL)[0]) in origin.scopes


def _dotted(module: str, qualname: str) -> str:
    return f"{_module_name(module)}.{qualname.replace('<locals>.', '')}"


def _module_name(module: str) -> str:
    """Return the name a worker will import a module by, for a script that runs as __main__ too."""
    if module not in _MAIN:
        return module
    main = sys.modules["__main__"]
    if main.__spec__ is not None:
        return main.__spec__.name.removesuffix(".__main__")
    file = getattr(main, "__file__", None)
    return Path(file).stem if file else module


def _folded(name: str) -> str:
    """Return the same text for names that people may take for one another."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).replace(" ", "")


def _places(known: _Taken, new: _Taken) -> str:
    if known.origin.place == new.origin.place:
        return f"both at {new.origin.place}"
    return f"at {known.origin.place} and at {new.origin.place}"


def _is_redefined(known: _Taken, new: _Taken) -> bool:
    """Say whether the same definition was executed once more, perhaps after it was edited."""
    return new.origin.repeats(known.origin) and _definition(known.function) == _definition(new.function)


def _definition(function: Callable[..., Any]) -> object:
    return getattr(function, "__qualname__", type(function).__qualname__)


def _is_the_same(known: Callable[..., Any], new: Callable[..., Any]) -> bool:
    """Say whether two functions can't but do the same."""
    if isinstance(known, MethodType) and isinstance(new, MethodType):
        return known.__self__ is new.__self__ and _is_the_same(known.__func__, new.__func__)
    if isinstance(known, FunctionType) and isinstance(new, FunctionType):
        return known is new or (
            known.__code__ is new.__code__
            and known.__globals__ is new.__globals__
            and all(map(_are_one, _values_of(known), _values_of(new)))
            and known.__annotations__ == new.__annotations__
        )
    return known is new


def _values_of(function: FunctionType) -> list[tuple[Any, ...]]:
    """Return all that makes a function differ from another of the same code."""
    cells = tuple(_contents(cell) for cell in function.__closure__ or ())
    named = function.__kwdefaults__ or {}
    wrapped = (getattr(function, "__wrapped__", None),)
    return [cells, wrapped, function.__defaults__ or (), tuple(named), tuple(named.values())]


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty, as that of a function which comes later
        return None


def _are_one(known: tuple[Any, ...], new: tuple[Any, ...]) -> bool:
    return len(known) == len(new) and all(one is other for one, other in zip(known, new, strict=True))
