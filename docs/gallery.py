"""The gallery: a page for each script in `examples/gallery`, with what it printed and drew.

`python docs/gallery.py` runs the scripts, or those that are named, and keeps the output in
`docs/figures/gallery`, where the pages take it from; building the site runs nothing. A script is a
docstring with a title and an introduction, then parts that begin with `# %%` and may go on with
comments, which become text. It works in an empty folder and writes its pictures there, as PNG.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import io
import json
import os
import re
import runpy
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "examples" / "gallery"
FIGURES = ROOT / "docs" / "figures" / "gallery"
WIDTH = 1200  # of pictures, at most


def list_scripts() -> list[Path]:
    """Return the scripts, in the order of the gallery: that of their names."""
    return sorted(SCRIPTS.glob("*.py"))


def make_gallery_pages() -> dict[str, str]:
    """Return the pages, by their path without the suffix."""
    pages = {f"gallery/{path.stem}": make_page(path) for path in list_scripts()}
    return {"gallery": make_index(), **pages}


def make_index() -> str:
    """Return the page that lists the scripts, with a picture of each."""
    parts = [
        "# Gallery",
        "Short scripts to start from. Each was run as it stands by `make docs-full`; what it "
        "printed and drew is below it.",
    ]
    for path in list_scripts():
        title, introduction = read_heading(path)
        pictures = sorted(FIGURES.glob(f"{path.stem}-*.webp"))
        parts.append(f"## [{title}](gallery/{path.stem}.md)\n\n{introduction}")
        if pictures:
            parts.append(
                f"[![{title}](../figures/gallery/{pictures[0].name})](gallery/{path.stem}.md)"
            )
    pages = "\n".join(f"gallery/{path.stem}" for path in list_scripts())
    return "\n\n".join([*parts, f"```{{toctree}}\n:hidden:\n\n{pages}\n```"]) + "\n"


def read_heading(path: Path) -> tuple[str, str]:
    """Return the title and the introduction of a script."""
    title, _, introduction = (
        ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    ).partition("\n")
    return title.rstrip("."), introduction.strip()


def make_page(path: Path) -> str:
    """Return the page of a script: its parts, each with the pictures that it names."""
    title, introduction = read_heading(path)
    parts = [f"# {title}", introduction]
    for text, code in split_parts(path.read_text("utf-8")):
        parts += [text, f"```python\n{code}\n```" if code else ""]
        for name in re.findall(r'"([\w-]+)\.png"', code):
            picture = FIGURES / f"{path.stem}-{name}.webp"
            if picture.exists():
                parts.append(f"![{title}: {name}](../../figures/gallery/{picture.name})")
    printed = FIGURES / f"{path.stem}.txt"
    if printed.exists():
        parts += ["It prints:", f"```text\n{printed.read_text('utf-8').rstrip()}\n```"]
    parts.append(f"{{download}}`The script <../../../examples/gallery/{path.name}>`.")
    return "\n\n".join(filter(None, parts)) + "\n"


def split_parts(source: str) -> list[tuple[str, str]]:
    """Return text and code of each part of a script."""
    parts = []
    for part in re.split(r"^# %%.*\n", source, flags=re.MULTILINE)[1:]:
        comment = re.match(r"(?:#.*\n)*", part)
        assert comment
        text = re.sub(r"^# ?", "", comment[0], flags=re.MULTILINE).strip()
        parts.append((text, part[comment.end() :].strip()))
    return parts


def run(path: Path) -> None:
    """Run a script in an empty folder; keep what it prints and draws, and of which text it was."""
    printed, before = io.StringIO(), Path.cwd()
    for old in [*FIGURES.glob(f"{path.stem}-*.webp"), FIGURES / f"{path.stem}.txt"]:
        old.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        try:
            os.chdir(folder)
            with contextlib.redirect_stdout(printed):
                runpy.run_path(str(path), run_name="__main__")
        finally:
            os.chdir(before)
        for picture in sorted(Path(folder).glob("*.png")):
            shrink(picture, FIGURES / f"{path.stem}-{picture.stem}.webp")
    if text := printed.getvalue():
        (FIGURES / f"{path.stem}.txt").write_text(text, "utf-8")
    file = FIGURES / "runs.json"
    runs = {**read_runs(), path.stem: digest(path)}
    known = {script.stem for script in list_scripts()}
    kept = {name: of for name, of in sorted(runs.items()) if name in known}
    file.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")


def shrink(picture: Path, target: Path) -> None:
    """Store a picture as WebP, no wider than the page can show."""
    with Image.open(picture) as image:
        image.thumbnail((WIDTH, 4 * WIDTH))
        image.convert("RGB").save(target, quality=82, method=6)


def read_runs() -> dict[str, str]:
    """Return for each script that was run the digest of its text."""
    file = FIGURES / "runs.json"
    return json.loads(file.read_text("utf-8")) if file.exists() else {}


def digest(path: Path) -> str:
    """Return what changes when the text of a script does."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def main(names: list[str]) -> None:
    """Run the scripts of these names, or all."""
    os.environ["MPLBACKEND"] = "Agg"
    FIGURES.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(ROOT / "examples"))
    for path in list_scripts():
        if not names or path.stem in names:
            start = time.process_time()
            run(path)
            print(f"{path.stem}: {time.process_time() - start:.0f} s of processor time")


if __name__ == "__main__":
    main(sys.argv[1:])
