"""Each link in a document of the repository leads to a file that is there, and to a title in it."""

import re
import subprocess
from pathlib import Path

import pytest

from running import ROOT

_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!\w+:)([^)\s]*)\)")
DOCUMENTS = sorted(
    subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
)


def anchors(text: str) -> set[str]:
    """Return the anchors that titles have, as most renderers of Markdown make them."""
    titles = re.findall(r"^#+ (.+)$", _FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(document: Path) -> list[str]:
    broken = []
    for link in _LINK.findall(_FENCED.sub("", document.read_text())):
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            broken.append(link)
    return broken


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    assert [] == broken_links(ROOT / name)


def test_a_link_that_leads_nowhere_is_seen(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# A title\n```sh\n# no title\n```\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# Here\n[1](#here) [2](other.md#a-title) [3](https://example.org/x) ![4](other.md)\n```\n[5](code.md)\n```\n"
        "[6](#there) [7](gone.md) [8](other.md#no-title) [9](gone.md#here)\n"
    )
    assert ["#there", "gone.md", "other.md#no-title", "gone.md#here"] == broken_links(page)
