"""Builds the site of the documentation into build/site, and checks its links: `make docs` runs it."""  # noqa: INP001 — a script beside its pages

import ast
import posixpath
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "build" / "docs"
SITE = ROOT / "build" / "site"
SHOWN = ["*.md", "LICENSE", "docs", "examples"]
PUBLIC = {"qworker": "qworker/__init__.py", "qworker.testing": "qworker/testing/__init__.py"}
"""The modules whose ``__all__`` the API reference shows in full."""


def copy_pages() -> None:
    """Copy everything that documents link to, in the same layout, so that links hold in both places."""
    shutil.rmtree(PAGES, ignore_errors=True)
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *SHOWN]
    names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")  # noqa: S603 — our own
    for name in filter(None, names):
        if (ROOT / name).is_file():  # and not deleted since
            (PAGES / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, PAGES / name)


def build() -> None:
    """Run the generator. Exits with its code if it warns of anything."""
    shutil.rmtree(SITE, ignore_errors=True)
    zensical = Path(sys.executable).with_name("zensical")
    ran = subprocess.run([zensical, "build", "--strict", "--clean"], cwd=ROOT, check=False)  # noqa: S603 — our own
    if ran.returncode:
        sys.exit(ran.returncode)


class Page(HTMLParser):
    """The anchors and links of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        """Links that a browser follows by itself: styles, scripts and pictures."""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Iterable[tuple[str, str | None]]) -> None:
        """Note the element's anchor and links."""
        values = {name: value for name, value in attrs if value}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        found = {values[name] for name in ("href", "src") if name in values}
        self.links |= found
        if tag != "a":
            self.loaded |= found


def read(site: Path) -> dict[str, Page]:
    """Return the site's pages, by their paths."""
    return {path.relative_to(site).as_posix(): Page(path.read_text("utf-8")) for path in site.rglob("*.html")}


def broken_links(site: Path, pages: Mapping[str, Page]) -> Iterator[str]:
    """Find links that lead nowhere in the site, and those by which a page would load anything from elsewhere."""
    for name, page in sorted(pages.items()):
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.loaded and parts.scheme != "data":
                    yield f"{name}: loads {link}"
                continue
            path, anchor = urldefrag(unquote(link))
            target = _resolved(site, name, path)
            if not (site / target).is_file():
                yield f"{name}: {link} leads nowhere"
            elif anchor and target in pages and anchor not in pages[target].anchors:
                yield f"{name}: {link} has no such anchor"


def _resolved(site: Path, page: str, path: str) -> str:
    """Return the path in the site that a link of a page means."""
    base = "" if path.startswith("/") else posixpath.dirname(page)
    target = posixpath.normpath(posixpath.join(base, path.lstrip("/"))) if path else page
    return posixpath.join(target, "index.html") if (site / target).is_dir() else target


def missing_names(pages: Mapping[str, Page]) -> Iterator[str]:
    """Find public names that the API reference doesn't show."""
    anchors = pages["docs/reference.html"].anchors
    for module, file in PUBLIC.items():
        for name in public_names((ROOT / file).read_text(encoding="utf-8")):
            if f"{module}.{name}" not in anchors:
                yield f"docs/reference.html: the API reference lacks {module}.{name}"


def public_names(source: str) -> list[str]:
    """Return a module's ``__all__``."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return names
    return []


def main() -> None:
    """Build the site. Exits with 1 if anything in it is broken."""
    copy_pages()
    build()
    pages = read(SITE)
    problems = [*broken_links(SITE, pages), *missing_names(pages)]
    for problem in problems:
        print(problem, file=sys.stderr)  # noqa: T201 — a script
    if problems:
        sys.exit(1)
    links = sum(len(page.links) for page in pages.values())
    print(f"{len(pages)} pages, {links} links: {SITE.relative_to(ROOT)}/index.html")  # noqa: T201 — the same


if __name__ == "__main__":
    main()
