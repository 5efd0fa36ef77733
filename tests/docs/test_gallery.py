"""The gallery's pages, and the runner of its scripts."""

import json

import gallery
import pytest
from PIL import Image

SCRIPT = '''"""A title.

What it does.
"""

# %%
# Some *text*.

print("seen")

# %%
from PIL import Image

Image.new("RGB", (2400, 10)).save("drawn.png")
'''


@pytest.fixture
def script(tmp_path, monkeypatch):
    for name in ("SCRIPTS", "FIGURES"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(gallery, name, tmp_path / name)
    path = tmp_path / "SCRIPTS" / "one.py"
    path.write_text(SCRIPT)
    return path


def test_page_holds_text_code_output_and_pictures(script):
    gallery.run(script)
    page = gallery.make_gallery_pages()["gallery/one"]
    assert page.startswith("# A title\n\nWhat it does.\n\nSome *text*.\n\n```python\nprint(")
    assert "](../../figures/gallery/one-drawn.webp)" in page
    assert "```text\nseen\n```" in page
    with Image.open(gallery.FIGURES / "one-drawn.webp") as picture:
        assert picture.size == (1200, 5)
    assert "[![A title](../figures/gallery/one-drawn.webp)]" in gallery.make_index()


def test_run_replaces_what_an_older_one_left(script):
    gallery.run(script)
    script.write_text(SCRIPT.partition("# %%\nfrom")[0].replace("seen", "new"))
    gallery.run(script)
    assert [path.name for path in sorted(gallery.FIGURES.iterdir())] == ["one.txt", "runs.json"]
    assert (gallery.FIGURES / "one.txt").read_text() == "new\n"
    assert json.loads((gallery.FIGURES / "runs.json").read_text()) == {
        "one": gallery.digest(script)
    }


@pytest.mark.parametrize("path", gallery.list_scripts(), ids=lambda path: path.stem)
def test_committed_output_is_of_the_script_as_it_stands(path):
    assert gallery.read_runs().get(path.stem) == gallery.digest(path), "run `make docs-full`"
