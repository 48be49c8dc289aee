import subprocess
import sys

import pytest
import typer

from qworker.cli import command
from qworker.cli.commands import COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_found_by_its_name(name: str) -> None:
    with command.make_context("qworker", [name]) as context:
        found = command.get_command(context, name)  # type: ignore[attr-defined]
        assert name == found.name
        assert "completion" not in found.get_help(typer.Context(found, info_name=name))


def test_the_list_of_commands_imports_none() -> None:
    code = (
        "import sys; sys.argv[1:] = ['--help']\n"
        "from qworker.cli import main\n"
        "try: main()\n"
        "finally: print([each for each in sys.modules if each in {places}])"
    )
    places = {place.module for place in COMMANDS.values()}
    process = subprocess.run(
        [sys.executable, "-c", code.replace("{places}", repr(places))], capture_output=True, text=True, check=True
    )
    assert [place.summary for place in COMMANDS.values()] == [
        line.split(maxsplit=1)[1] for line in process.stdout.splitlines() if line.strip().startswith(tuple(COMMANDS))
    ]
    assert "[]" == process.stdout.splitlines()[-1]
