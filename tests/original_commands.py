"""The commands of docs/coming_from/originals.md."""

import re
import shlex
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "coming_from" / "originals.md"


def read_commands(title):
    """The commands in the tables of a section; an option alone is added to the command above."""
    pattern = rf"\n## {title}\n(.*?)\n## "
    (section,) = re.findall(pattern, PAGE.read_text("utf-8"), re.DOTALL)
    cells = re.findall(r"^\| .* \| ([^|]*) \|$", section, re.MULTILINE)
    found: list[list[str]] = []
    base: list[str] = []
    for text in re.findall(r"`((?:xcam|--)[^`]*)`", " ".join(cells)):
        words = shlex.split(text)
        base = words if words[0] == "xcam" else base
        found.append(words if words is base else base + words)
    return [words[1:] for words in found]
