"""The site of the documentation: which pages it has, and how its links are checked."""

import importlib.util
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import qworker
import qworker.testing
from running import ROOT


@pytest.fixture(scope="module")
def make_site() -> ModuleType:
    """Return docs/make_site.py as a module: it is a script, and not installed."""
    spec = importlib.util.spec_from_file_location("make_site", ROOT / "docs" / "make_site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pages_of(nav: Any) -> Iterator[str]:
    for entry in nav:
        if isinstance(entry, str):
            yield entry
        else:
            for pages in entry.values():
                yield from pages_of(pages)


def test_every_page_of_the_index_is_in_the_sites_navigation() -> None:
    nav = set(pages_of(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]))
    linked = re.findall(r"\]\(([^)#]+\.md)\)", (ROOT / "docs" / "index.md").read_text())
    assert {"docs/index.md"} | {(ROOT / "docs" / link).resolve().relative_to(ROOT).as_posix() for link in linked} == nav


def test_the_public_names_are_read_without_an_import(make_site: ModuleType) -> None:
    read = {name: make_site.public_names((ROOT / file).read_text()) for name, file in make_site.PUBLIC.items()}
    assert {"qworker": qworker.__all__, "qworker.testing": qworker.testing.__all__} == read


def test_a_name_that_the_reference_lacks_is_reported(make_site: ModuleType) -> None:
    shown = [f"qworker.{name}" for name in qworker.__all__ if name != "Retry"]
    shown += [f"qworker.testing.{name}" for name in qworker.testing.__all__]
    reference = make_site.Page("".join(f'<h3 id="{name}">' for name in shown))
    assert ["docs/reference.html: the API reference lacks qworker.Retry"] == list(
        make_site.missing_names({"docs/reference.html": reference})
    )


def test_links_of_the_site_lead_somewhere(make_site: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "index.html").write_text(
        '<h1 id="top">Home</h1><a href="docs/a.html#one">1</a><a href="#top">2</a><a href="https://example.org">3</a>'
        '<a href="docs/">4</a><img src="data:image/gif;base64,AAAA"><img src="top%20view.svg">'
    )
    (tmp_path / "top view.svg").write_text("<svg/>")
    (tmp_path / "docs" / "index.html").write_text('<a href="../index.html">1</a><a href="/index.html#top">2</a>')
    (tmp_path / "docs" / "a.html").write_text('<h2 id="one">One</h2>')
    assert [] == list(make_site.broken_links(tmp_path, make_site.read(tmp_path)))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('<a href="gone.html">', "page.html: gone.html leads nowhere"),
        ('<a href="../page.html">', "page.html: ../page.html leads nowhere"),
        ('<img src="gone.svg">', "page.html: gone.svg leads nowhere"),
        ('<a href="folder/">', "page.html: folder/ leads nowhere"),
        ('<a href="#gone">', "page.html: #gone has no such anchor"),
        ('<a href="page.html#gone">', "page.html: page.html#gone has no such anchor"),
        ('<script src="https://example.org/x.js">', "page.html: loads https://example.org/x.js"),
        ('<link href="//example.org/x.css">', "page.html: loads //example.org/x.css"),
    ],
)
def test_a_broken_link_of_the_site_is_reported(text: str, problem: str, make_site: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "page.html").write_text(text)
    assert [problem] == list(make_site.broken_links(tmp_path, make_site.read(tmp_path)))
