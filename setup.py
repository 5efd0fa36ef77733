"""The README for PyPI, where links within the repository lead nowhere."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from setuptools import setup

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent
LINK = re.compile(r"(!?)\[((?:[^\]\[]|\[[^\]]*\])*)\]\((?!https?:|#)([^)]+)\)")


def make_description(readme: str, repository: str) -> str:
    """Return the README with absolute links: pages on the site of the repository, pictures raw."""

    def make_absolute(match: re.Match[str]) -> str:
        kind = "raw" if match[1] else "blob"
        return f"{match[1]}[{match[2]}]({repository}/{kind}/main/{match[3]})"

    return LINK.sub(make_absolute, readme)


def read_description() -> str:
    """Return the description of this version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    readme = (ROOT / "README.md").read_text("utf-8")
    return make_description(readme, project["urls"]["Repository"])


if __name__ == "__main__":
    setup(long_description=read_description(), long_description_content_type="text/markdown")
