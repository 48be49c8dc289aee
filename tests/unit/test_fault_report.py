"""The table of faults: what it gathers, and that a fault without a test, or with a failed one, does not hold."""

import os
import re
from pathlib import Path

import pytest

from faults.statements import STATEMENTS

pytest_plugins = ["pytester"]

SUITE = """
    import pytest

    @pytest.mark.fault(1)
    @pytest.mark.parametrize("broker", ["sqlite", "azure"])
    def test_holds(fault, broker):
        fault.did(f"{fault.scale(short=2, full=200)} kills")
        fault.saw("lost 0")

    @pytest.mark.fault(2, 3)
    def test_fails(fault):
        assert fault.seed == fault.random.randrange(0)

    def test_of_something_else():
        pass
"""
KEPT = """# Faults

Above.

<!-- written by make faults -->
of an earlier run
<!-- end of what make faults writes -->

Below.
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    tests = Path(__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tests), str(tests / "support")]))
    monkeypatch.setenv("COVERAGE_PROCESS_CONFIG", "")
    pytester.makepyfile(SUITE)
    return pytester


def run(suite: pytest.Pytester, *arguments: str) -> tuple[int, str]:
    result = suite.runpytest_subprocess("-p", "fault_report", *arguments)
    return int(result.ret), result.stdout.str()


def test_in_full_with_a_table(suite: pytest.Pytester) -> None:
    (suite.path / "faults.md").write_text(KEPT)
    code, output = run(suite, "-m", "fault", "--full", "--fault-table", "faults.md", "--seed", "7", "-n", "2")
    table = (suite.path / "faults.md").read_text()
    assert 1 == code
    assert "1 of 54 hold; seed 7" in output
    assert "seed: 7 (again with --seed 7)" in output
    assert table.startswith("# Faults\n\nAbove.\n")
    assert table.endswith("\nBelow.\n")
    assert "of an earlier run" not in table
    assert re.search(
        r"\| 1 \| One of 3 .* \| 200 kills \| (sqlite|azure): lost 0; (sqlite|azure): lost 0 \| yes \|", table
    )
    assert 2 == table.count("| **no** |")
    assert 51 == table.count("| **no test** |")


def test_a_fault_without_a_test_does_not_hold(suite: pytest.Pytester) -> None:
    code, _ = run(suite, "-k", "holds", "--fault-table", "faults.md")
    assert 1 == code
    assert "2 kills" in (suite.path / "faults.md").read_text()


def test_the_seed_of_a_test_follows_from_that_of_the_run(suite: pytest.Pytester) -> None:
    seeds = [set(re.findall(r"seed (\d+): again", run(suite, "-k", "fails", "--seed", "7")[1])) for _ in range(2)]
    assert seeds[0] == seeds[1] != set()


def test_every_statement_has_a_test() -> None:
    folders = [Path(__file__).parents[1] / name for name in ("faults", "unit", "integration", "contract")]
    tests = "".join(file.read_text() for folder in folders for file in folder.rglob("test_*.py"))
    marked = re.findall(r"\bmark\.fault\((\d+(?:, \d+)*)", tests)
    tested = {int(number) for numbers in marked for number in numbers.split(",")}
    stated = {number for group in STATEMENTS.values() for number in group}
    assert set(range(1, 55)) == stated
    assert set() == stated - tested
