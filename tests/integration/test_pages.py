"""Each page of docs/ for newcomers is followed from its first block to its last, as a reader would."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from documents import Reader, Runner, blocks_of, log_lines
from qworker.retry import Backoff, RetryPolicy
from running import ROOT

DOCS = ROOT / "docs"

WHAT_IS_SEEN = {
    "start": ["receipt of order 1 sent to ada@example.org", "Reject", "'grace' is no address"],
    "tasks": [
        "opened in the function's own thread",
        "closed there",
        "resized a.png of 2026 to large",
        "indexed a.png",
        "indexed b.png",
        "albums.resize",
    ],
    "producing": [
        "welcome, 1 fr",
        "enqueued signup.welcome ",
        "welcome, 4 en",
        "welcome, 6 de",
        "welcome, 8 en",
        "signup.welcome: ",
        "too large: 1",
        "3 jobs enqueued in ",
        "1 job enqueued in ",
        "welcome, 9 en",
        "welcome, 11 en",
        '"name": "signup.welcome"',
        '"task:signup.welcome"',
    ],
    "retries": [
        "order 1 delivered at attempt 1",
        "order 3 delivered at attempt 2",
        "order 4 delivered at attempt 1",
        "there is no such order",
        "1 job would be put back into orders",
        "1 job put back into orders",
        "1 job deleted",
        "ValueError: there is no invoice -1",
        "ConnectionError: the ledger does not answer",
        "sending missing.pdf",
        "QUEUE    MESSAGES  OLDEST  GIVEN UP",
        "1 job would be put back into default\n1 job put back into default\n2 jobs put back into default\n",
    ],
    "running": ["sent to ada@example.org", "tidied up", '"grace": "20s"', '"lease": "30s"', "done: True"],
    "testing": ["5 passed"],
    "logging": [
        "] shipped           order=1 task=shop.ship attempt=1 queue=default job=",
        "] order 1 is done   [shop] task=shop.ship attempt=1 queue=default job=",
        "PLAIN INFO shop: order 2 is done",
        "PLAIN INFO shop.ship: shipped order=2 task=shop.ship",
        "PLAIN INFO qworker: job.succeeded task=shop.ship attempt=1 seconds=",
        "DJANGO INFO shop order 3 is done",
        "DJANGO INFO shop.ship shipped order=3 task=",
        "DJANGO INFO qworker worker.started broker=",
        '"event": "shipped", "task": "shop.ship", "job": ',
        "event=shipped ",
        '"event": "job.succeeded", "level": "info"',
    ],
    "migrating": ["the report of 2026-11"],
    "adding-a-broker": [" passed in ", "hello Ada"],
}


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    running = Runner()
    yield running
    running.close()


@pytest.fixture
def reader(runner: Runner, tmp_path: Path) -> Reader:
    """A reader in a clone of the repository."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return Reader(runner, tmp_path)


@pytest.mark.parametrize("page", WHAT_IS_SEEN)
def test_a_page_can_be_followed(page: str, reader: Reader) -> None:
    text = (DOCS / f"{page}.md").read_text()
    reader.read(text)
    for seen in WHAT_IS_SEEN[page]:
        assert seen in reader.output, reader.output
    assert text.count("```") == 2 * len(blocks_of(text))


def test_the_page_on_sizing(reader: Reader) -> None:
    """Its tables are what the script prints; what is spread over queues and accounts is all there."""
    page = (DOCS / "sizing.md").read_text()
    reader.read(page)
    table = page.partition("<!-- sizing -->\n")[2].partition("<!-- /sizing -->")[0]
    assert reader.output.startswith(table)
    assert table.count("| 1,000,000 |") == 2
    assert {f"{number}@example.org" for number in range(20)} == set(re.findall(r"sent to (\S+)", reader.output))


def test_a_plan_of_ones_own(runner: Runner) -> None:
    options = ["--rate", "50000", "--bundle", "1", "--seconds", "0.2", "--concurrency", "64", "--spare", "0.5"]
    code, printed = runner.run(["python", "-m", "examples.deploy.sizing", *options], ROOT, {})
    assert (0, 3) == (code, len(printed.splitlines()))
    # 2.03 requests a job; half of 2,000 a queue and of 20,000 an account; 10,000 at once, of which 64 in half a process
    assert printed.endswith("| 50,000 | 1 | 50% | 101,500 | 102 | 11 | 313 | 0.0 |\n")


@pytest.mark.parametrize("wrong", [["--rate", "0"], ["--spare", "1"], ["--seconds", "-1"], ["--bundle", "7"]])
def test_a_plan_of_nonsense_is_one_line(wrong: list[str], runner: Runner) -> None:
    code, printed = runner.run(["python", "-m", "examples.deploy.sizing", *wrong], ROOT, {})
    assert (2, 1) == (code, sum("error: " in line for line in printed.splitlines()))
    assert wrong[0] in printed.splitlines()[-1]


def test_the_app_that_is_deployed(reader: Reader) -> None:
    module = (ROOT / "examples" / "deploy" / "tasks.py").read_text()
    (reader.folder / "tasks.py").write_text(module)
    reader.read("""```console\n$ qworker enqueue tasks.send --args '["ada@example.org"]'\n$ qworker run tasks\n```\n""")
    (started,) = log_lines(reader.output, "worker.started")
    assert "mail" == started["queues"]  # whose length scales it
    assert ["ada@example.org"] == [line["to"] for line in log_lines(reader.output, "sent")]


def test_the_backoff_is_as_the_page_has_it() -> None:
    page = (DOCS / "retries.md").read_text()
    rests = [int(cell) for cell in re.findall(r"\d+", page.partition("| rest at most, s |")[2].partition("\n")[0])]
    assert rests == [Backoff().delay(attempt, rand=lambda: 0) for attempt in range(1, len(rests) + 1)]
    assert 75 == sum(rests[: RetryPolicy().max_attempts - 1])
    shortest = [sum(Backoff().delay(attempt, rand=lambda: 1) for attempt in range(1, tries)) for tries in (14, 15)]
    assert shortest[0] < 3600 <= shortest[1]
    assert "max_attempts=15" in page
    assert repr(Backoff()).replace("5.0", "5").replace("2.0", "2").replace("600.0", "600") in page


def test_jobs_that_are_put_back_have_all_their_attempts_again(reader: Reader) -> None:
    reader.read((DOCS / "retries.md").read_text())
    before = len(log_lines(reader.output, "job.poisoned"))
    reader.read("```console\n$ qworker run invoices\n```\n")
    attempts = {line["error"]: line["attempt"] for line in log_lines(reader.output, "job.poisoned")[before:]}
    assert {
        "ConnectionError: the ledger does not answer": 2,
        "ValueError: there is no invoice -1": 1,
        "FileNotFoundError: [Errno 2] No such file or directory: 'missing.pdf'": 1,
    } == attempts


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "index.md").read_text()
    assert {found.name for found in DOCS.glob("*.md")} - {"index.md"} == set(re.findall(r"\]\(([\w-]+\.md)\)", index))
    assert "(docs/index.md)" in (ROOT / "README.md").read_text()


# What https://learn.microsoft.com/cli/azure/reference-index says of those that are shown.
_SAS = {"expiry", "https-only", "output"}
_AZ = {
    "group create": {"name", "location"},
    "storage account create": {"resource-group", "name", "sku", "kind"},
    "storage account show": {"resource-group", "name", "query", "output"},
    "storage account generate-sas": {
        "account-name",
        "services",
        "resource-types",
        "permissions",
        "expiry",
        "https-only",
    }
    | {"output"},
    "storage queue create": {"account-name", "name", "auth-mode"},
    "storage queue generate-sas": {"account-name", "name", "permissions"} | _SAS,
    "role assignment create": {"assignee", "role", "scope"},
    "role definition create": {"role-definition"},
    "deployment group create": {"resource-group", "template-file", "parameters"},
}
_OTHERS = {"docker", "kubectl", "systemctl", "install", "pip", "export"}


@pytest.mark.parametrize("document", ["docs/azure.md", "docs/rights.md", "examples/deploy/README.md"])
def test_commands_that_need_azure_or_a_cluster_are_written_as_they_should_be(document: str) -> None:
    """None can be run here: their names and options are looked up, and whether the files that they name are there."""
    text = (ROOT / document).read_text().replace("\\\n    ", "")
    sessions = [block.text for block in blocks_of(text) if block.language == "console"]
    lines = [line for session in sessions for line in session.splitlines()]
    assert lines
    for line in lines:
        words = shlex.split(re.sub(r"^\$ (\w+=)?(\$\()?|\)$", "", line))
        if words[0] == "az":
            verb = " ".join(words[1 : next(n for n, word in enumerate(words) if word.startswith("--"))])
            assert {word[2:] for word in words if word.startswith("--")} <= _AZ[verb], line
        else:
            assert words[0] in _OTHERS or "=" in line, line
        assert all((ROOT / word).exists() for word in words if word.startswith("examples/")), line
