"""Ten defects, planted one at a time in a copy of qworker: for each, a test of a fault must fail.

``make mutants`` runs it and writes the table into docs/faults.md. What a defect replaces is checked by the unit tests,
so that it can't silently go stale.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
_BEGIN, _END = "<!-- written by make mutants -->\n", "<!-- end of what make mutants writes -->\n"
_MINUTES: Final = 4


@dataclass(frozen=True, slots=True)
class Edit:
    """One text of a source file that becomes another."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """One defect, and the tests of which at least one has to fail."""

    name: str
    edits: tuple[Edit, ...]
    tests: str
    """What of the tests of faults is run: an expression for ``pytest -k``."""


MUTANTS: Final = (
    Mutant(
        "the message is deleted before its handler runs",
        (
            Edit(
                "qworker/engine/pipeline.py",
                '        faultpoint("before-handler")\n',
                "        await attempt.lease.queue.delete(attempt.lease.message_id, attempt.received.message.receipt)\n"
                '        faultpoint("before-handler")\n',
            ),
        ),
        "each_fault_point",
    ),
    Mutant(
        "waiting messages are not renewed",
        (
            Edit(
                "qworker/engine/worker.py",
                "        self._keeper.keep(each.lease for each in received)\n",
                "",
            ),
            Edit(
                "qworker/engine/worker.py",
                "            self._hold(received, self._pipeline.handle",
                "            self._keeper.keep([received.lease])\n"
                "            self._hold(received, self._pipeline.handle",
            ),
        ),
        "32 or batch",
    ),
    Mutant(
        "an old receipt is used after a renewal",
        (
            Edit(
                "qworker/engine/lease/lease.py",
                "        self._receipt = receipt\n        self._uncertain = False\n",
                "        self._uncertain = False\n",
            ),
        ),
        "ten_leases",
    ),
    Mutant(
        "a job that is given up is deleted before it is put into the poison queue",
        (
            Edit(
                "qworker/engine/settle/settler.py",
                "            await self._poisoner.put(received, ",
                "            await persist(lease.complete, seconds=lease.length)\n"
                '            faultpoint("after-poison-put")\n'
                "            await self._poisoner.put(received, ",
            ),
        ),
        "poison_put",
    ),
    Mutant(
        "a release spends an attempt",
        (
            Edit(
                "qworker/engine/settle/settler.py",
                "        job = replace(job, releases=job.releases + 1, unknown=unknown, begun=begun, last=last)\n",
                "        return None\n",
            ),
        ),
        "released",
    ),
    Mutant(
        "the deadline of a lease counts from the answer",
        (
            Edit(
                "qworker/engine/worker.py",
                "        length = self._settings.lease\n        received",
                "        length, began = self._settings.lease, time.monotonic()\n        received",
            ),
            Edit(
                "qworker/engine/lease/lease.py",
                "        self.deadline = began + visibility\n",
                "        self.deadline = time.monotonic() + visibility\n",
            ),
        ),
        "deadline",
    ),
    Mutant(
        "leases are renewed on the event loop of the handlers",
        (
            Edit(
                "qworker/engine/lease/lease.py",
                "        self._thread.start()\n",
                "        self._kept = asyncio.get_running_loop().create_task(self._keep())\n",
            ),
        ),
        "blocks_the_loop",
    ),
    Mutant(
        "a message that can't be decoded fails its whole batch",
        (
            Edit(
                "qworker/engine/worker.py",
                "        length = self._settings.lease\n        received",
                "        for message in messages:\n            decode(message.body, message_id=message.id)\n"
                "        length = self._settings.lease\n        received",
            ),
            Edit(
                "qworker/engine/worker.py",
                "from qworker.wire.bodies import Encoding\n",
                "from qworker.wire.bodies import Encoding\nfrom qworker.wire.envelope import decode\n",
            ),
        ),
        "bad_message_in_a_batch",
    ),
    Mutant(
        "the SDK tries again by itself",
        (
            Edit("qworker/brokers/azure/connections.py", '        "retry_total": 0,\n', ""),
            Edit(
                "qworker/brokers/azure/messages.py",
                "AsyncPipeline(transport, [] if policy is None else [policy])",
                "AsyncPipeline(transport, [AsyncRetryPolicy(), *([] if policy is None else [policy])])",
            ),
            Edit(
                "qworker/brokers/azure/messages.py",
                "import AsyncBearerTokenCredentialPolicy\n",
                "import AsyncBearerTokenCredentialPolicy, AsyncRetryPolicy\n",
            ),
        ),
        "throttled_account and 100",
    ),
    Mutant(
        "404 at a delete counts as a failure",
        (
            Edit(
                "qworker/engine/lease/lease.py",
                "            if self._uncertain:  # not gone",
                "            if True:  # not gone",
            ),
        ),
        "delete_applied",
    ),
)


def main() -> int:
    """Plant each defect, run the tests that should see it, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-k", dest="only", default="", help="only the defects whose names have this")
    parser.add_argument("-j", dest="at_once", type=int, default=2, help="how many at once")
    parser.add_argument("--table", type=Path, help="the file to write the table into")
    given = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if given.only in mutant.name]
    with ThreadPoolExecutor(given.at_once) as pool:
        rows = list(pool.map(_try, chosen))
    if given.table:
        _write(given.table, rows)
    return 0 if all(failed for _, failed in rows) else 1


def planted(mutant: Mutant, root: Path) -> Iterator[tuple[Path, str]]:
    """Return the files that a defect changes, as they become. Raises ValueError if one has changed meanwhile."""
    texts: dict[str, str] = {}
    for edit in mutant.edits:
        text = texts.get(edit.file) or (root / edit.file).read_text()
        if text.count(edit.old) != 1:
            raise ValueError(f"{edit.file}: there is not one place for: {edit.old!r}")
        texts[edit.file] = text.replace(edit.old, edit.new)
    yield from ((root / file, text) for file, text in texts.items())


def _try(mutant: Mutant) -> tuple[Mutant, list[str]]:
    with tempfile.TemporaryDirectory(prefix="qworker-mutant-") as folder:
        root = Path(folder)
        _copy(root)
        for file, text in planted(mutant, root):
            file.write_text(text)
        output = _run_tests(root, mutant.tests)
    failed = sorted(set(re.findall(r"^(?:FAILED|ERROR) \S*::(\w+)", output, re.MULTILINE)))
    print(f"{'caught' if failed else 'MISSED'}: {mutant.name}: {', '.join(failed) or output[-2000:]}", flush=True)  # noqa: T201 — what it is for
    return mutant, failed


def _copy(root: Path) -> None:
    list_files = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(list_files, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    for name in filter(None, listed.split("\0")):
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
    (root / "tests/azurite/node_modules").symlink_to(ROOT / "tests/azurite/node_modules")


def _run_tests(root: Path, expression: str) -> str:
    command = [sys.executable, "-m", "pytest", "tests/faults", "-k", expression, "-x", "-q", "-p", "no:cacheprovider"]
    try:
        return subprocess.run(
            command,
            cwd=root,
            env=os.environ | {"PYTHONPATH": str(root)},
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60 * _MINUTES,
        ).stdout
    except subprocess.TimeoutExpired as late:
        return f"no end after {_MINUTES} min: {late.output!r}"


def _write(file: Path, rows: list[tuple[Mutant, list[str]]]) -> None:
    lines = ["| planted defect | failing test |", "|---|---|"]
    lines += [
        f"| {mutant.name} | {', '.join(f'`{name}`' for name in failed) or '**nothing**'} |" for mutant, failed in rows
    ]
    before, begin, rest = file.read_text().partition(_BEGIN)
    after = rest.partition(_END)[2] if begin else ""
    file.write_text(f"{before}{_BEGIN}\n" + "\n".join(lines) + f"\n\n{_END}{after}")


if __name__ == "__main__":
    sys.exit(main())
