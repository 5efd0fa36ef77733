"""The notebook, executed by IPython: what its cells return is what a notebook shows.

A kernel would take a process and ten more packages; it hands each result to the same formatters.
"""

import atexit
import io
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebook.ipynb"


@pytest.fixture
def shell(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setattr("sys.displayhook", print)
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # IPython sets its own
    interactive = pytest.importorskip("IPython.core.interactiveshell").InteractiveShell()
    interactive.history_manager.enabled = False
    yield interactive
    interactive.atexit_operations()
    atexit.unregister(interactive.atexit_operations)


@pytest.mark.slow
def test_notebook_shows_pictures_without_any_magic(shell, capsys):
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert not any("%" in source for source in sources)
    shown = []
    for source in sources:
        done = shell.run_cell(source)
        done.raise_error()
        if done.result is not None:
            shown.append(shell.display_formatter.format(done.result)[0])
    assert len(shown) == 4
    pictures = [Image.open(io.BytesIO(data["image/png"])).convert("RGB") for data in shown]
    maps, figure, _, contrast = pictures
    assert figure.width > maps.width  # image and overlay beside each other
    assert shown[2]["image/png"] == shown[1]["image/png"]
    assert contrast.size != figure.size
    for data in (shown[0], shown[2]):
        assert data["text/html"].startswith("<p><code>&lt;Explanation of 1 image of 224×224")
