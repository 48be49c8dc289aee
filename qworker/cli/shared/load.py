"""Finds the App that a command is about."""

import importlib
import os
import re
import sys
import traceback
from collections.abc import Sequence
from types import ModuleType
from typing import Final, NoReturn

from qworker.app import App, default_app
from qworker.brokers.base import Broker
from qworker.brokers.choose import broker_from_url
from qworker.errors import ConfigurationError
from qworker.settings import Settings
from qworker.system.import_path import admit
from qworker.system.project import anchored, here

_DOTTED: Final = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")
"""Names with dots between them, of which each could be a variable's."""


def load_app(reference: str) -> App:
    """Return the App that "module" or "module:name" means.

    Without a name: the one App in the module, else the default app, if the module has put tasks on it.
    Raises ConfigurationError, in one line, for whatever is wrong with the reference or the module.
    """
    module_name, colon, name = reference.partition(":")
    module = _import(module_name)
    if colon:
        return _named_app(module, name)
    apps = {id(value): (name, value) for name, value in vars(module).items() if isinstance(value, App)}
    if len(apps) > 1:
        names = " or ".join(f"{module_name}:{name}" for name, _ in apps.values())
        raise ConfigurationError(f"module {module_name!r} has {len(apps)} Apps; say which: {names}")
    if apps:
        return next(iter(apps.values()))[1]
    if not default_app.tasks:
        raise ConfigurationError(f"module {module_name!r} has no App and no @task")
    return default_app


def named_here(url: str | None) -> str | None:
    """Return a broker's URL as it is meant before an app is imported, which may change the directory."""
    return None if url is None else anchored(url, here())


def load_broker(url: str | None, settings: Settings) -> Broker:
    """Return the broker of *url*, else that of the app in the settings, else the one that they name."""
    if url is None and settings.app is not None:
        return load_app(settings.app).broker
    return broker_from_url(settings.broker_url() if url is None else url)


def wanted_queues(settings: Settings, named: Sequence[str]) -> list[str]:
    """Return the queues that a command is about: those *named*, else those set, else the app's; without any, none."""
    app = None if settings.app is None else load_app(settings.app)
    of_app = [] if app is None else sorted({task.queue for task in app.tasks.values()})
    return list(dict.fromkeys(named)) or [*settings.queues] or of_app


def _named_app(module: ModuleType, name: str) -> App:
    found = getattr(module, name, None)
    if found is None:
        raise ConfigurationError(f"module {module.__name__!r} has no {name!r}")
    if not isinstance(found, App):
        raise ConfigurationError(f"{module.__name__}:{name} is a {type(found).__name__}, not an App")
    return found


def _import(name: str) -> ModuleType:
    folder = here()
    if folder is not None:
        admit(str(folder))
    if name.endswith(".py") or "/" in name or os.sep in name:
        module = name.removesuffix(".py").replace(os.sep, "/").strip("./").replace("/", ".")
        hint = f"; use the module's: {module}" if _DOTTED.fullmatch(module) else ""
        raise ConfigurationError(f"{name!r} is a file's name{hint}")
    if not _DOTTED.fullmatch(name):
        raise ConfigurationError(f"{name!r} is not a module's name, as in tasks or pkg.mod")
    top = name.partition(".")[0]
    if folder is not None and top in sys.stdlib_module_names and (folder / f"{top}.py").exists():
        raise ConfigurationError(f"{top!r} is a module of Python's standard library: rename {top}.py")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            place = f"in {folder} or on Python's path" if folder else "on Python's path, and the directory was deleted"
            raise ConfigurationError(f"no module {name!r} {place}") from None
        _broken(name, error)
    except ConfigurationError as error:
        raise ConfigurationError(f"{error} ({_place_of(error)})") from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 — a module may do anything when it is imported, even exit
        _broken(name, error)


def _place_of(error: ConfigurationError) -> str:
    """Return the line of the user's that made a mistake, not the one of ours that found it."""
    own = [
        f"{frame.f_code.co_filename}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__", "").partition(".")[0] not in {"qworker", "importlib"}
    ]
    return own[-1] if own else "where it is imported"


def _broken(name: str, error: BaseException) -> NoReturn:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 — its class is somebody's own
        text = "its text can't be made"
    if isinstance(error, SyntaxError):
        text, where = error.msg, f"{error.filename}:{error.lineno}"
    else:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{last.filename}:{last.lineno}"
    raise ConfigurationError(f"module {name!r} can't be imported: {type(error).__name__}: {text} ({where})") from None
