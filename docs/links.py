"""Check the links within a built site: each leads to a file, and to an element that is there.

`python docs/links.py docs/_build` prints those that do not, and exits with 1 if there are any.
"""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path
from urllib.parse import unquote

LINK = re.compile(r'<(?:a|img|link|script)\b[^>]*?\b(?:href|src)="([^"]*)"')
NAME = re.compile(r'\bid="([^"]*)"')
ELSEWHERE = re.compile(r"[a-z]+:|//")


def find_broken_links(site: Path) -> list[str]:
    """Return a line for each link that leads nowhere: the page, and what it links to."""
    texts = {path: path.read_text("utf-8") for path in site.rglob("*.html")}
    names = {path: set(map(html.unescape, NAME.findall(text))) for path, text in texts.items()}
    broken = []
    for page, text in sorted(texts.items()):
        for link in sorted(set(LINK.findall(text))):
            if not ELSEWHERE.match(link) and not leads_somewhere(page, html.unescape(link), names):
                broken.append(f"{page.relative_to(site)}: {link}")
    return broken


def leads_somewhere(page: Path, link: str, names: dict[Path, set[str]]) -> bool:
    """Return whether the file of a link exists, and holds the element that it names."""
    file, _, name = link.partition("#")
    file = unquote(file.partition("?")[0])
    target = (page.parent / file).resolve() if file else page
    if not name:
        return target.exists()
    return unquote(name) in names.get(target, set())


if __name__ == "__main__":
    found = find_broken_links(Path(sys.argv[1]).resolve())
    print("\n".join(found), end="\n" * bool(found))
    sys.exit(bool(found))
