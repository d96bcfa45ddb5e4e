"""Check that the built site loads nothing from another host: it works offline, and no other host learns who reads it.

Links to other sites are for readers to follow, and are allowed. Scripts, styles, fonts, pictures, and frames are not.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

SITE: Final = Path(__file__).resolve().parents[1] / "site"
_REMOTE: Final = re.compile(r"(?:https?:)?//", re.IGNORECASE)
_STYLE_URL: Final = re.compile(r"(?:@import|url\()\s*['\"]?((?:https?:)?//[^'\")\s]+)", re.IGNORECASE)
# What a browser loads without a click. A `link` is loaded unless it only describes the page.
_LOADED: Final = frozenset({"audio", "embed", "iframe", "img", "input", "object", "script", "source", "track", "video"})
_DESCRIBES: Final = frozenset({"canonical", "next", "prev", "alternate", "author", "license"})


class _Resources(HTMLParser):
    """Collects what a page loads from other hosts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at one element."""
        values = {name: value or "" for name, value in attrs}
        is_link = tag == "link" and not set(values.get("rel", "").split()) <= _DESCRIBES
        names = ("src", "srcset", "data", "poster") if tag in _LOADED else ("href",) if is_link else ()
        self.found += [f"<{tag}> {values[name]}" for name in names if _REMOTE.match(values.get(name, ""))]
        self.found += _STYLE_URL.findall(values.get("style", ""))


def remote_resources(site: Path) -> Iterator[str]:
    """Yield a line for each resource that a page or a style sheet of the site loads from another host."""
    for path in sorted(site.rglob("*.html")):
        parser = _Resources()
        parser.feed(path.read_text(encoding="utf-8"))
        yield from (f"{path.relative_to(site)}: {found}" for found in parser.found)
    for path in sorted(site.rglob("*.css")):
        yield from (f"{path.relative_to(site)}: {url}" for url in _STYLE_URL.findall(path.read_text(encoding="utf-8")))


def main() -> int:
    """Print what the site loads from other hosts, and return 1 if there is any; also if there is no site."""
    if not (SITE / "index.html").is_file():
        print(f"{SITE.name}/index.html does not exist; run: make docs", file=sys.stderr)
        return 1
    found = list(remote_resources(SITE))
    for line in found:
        print(line, file=sys.stderr)
    if not found:
        print(f"{sum(1 for _ in SITE.rglob('*.html'))} pages in {SITE.name}/; open {SITE.name}/index.html")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
