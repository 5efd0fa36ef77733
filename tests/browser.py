"""Pages as a parser reads them, and as a headless Chromium shows them."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="there is no chromium; apt-get install chromium"
)
VOID = {"meta", "link", "img", "br", "path", "circle", "polygon", "polyline"}


class Page(HTMLParser):
    """The elements of a page, and its text; refuses tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.open, self.tables = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    @property
    def text(self):
        return " ".join("".join(self.texts).split())

    def find(self, tag, **attributes):
        """The attributes of each element of a kind that has these ones."""
        return [
            found
            for name, found in self.elements
            if name == tag and attributes.items() <= found.items()
        ]


def read(path):
    return Page(path.read_text("utf-8"))


def open_page(path):
    """The page after its script ran, and what the browser logged of it."""
    command = [
        BROWSER,
        *("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"),
        *("--virtual-time-budget=3000", f"--user-data-dir={path.parent / 'browser'}"),
        *("--dump-dom", path.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def ask(path, script):
    """What the body of an asynchronous function returns in the page, as JSON."""
    text = path.read_text("utf-8")
    free = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    assert free != text
    call = f"(async () => {{{script}}})().then(JSON.stringify, String)"
    show = f"{call}.then((found) => {{ document.body.textContent = found; }});"
    copy = path.with_name("asked.html")
    copy.write_text(free.replace("</body>", f"<script>{show}</script></body>"), "utf-8")
    shown, log = open_page(copy)
    assert log == []
    return json.loads(html.unescape(shown[shown.index("<body>") + 6 : shown.index("</body>")]))
