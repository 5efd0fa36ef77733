"""The examples of the guide run as they stand."""

import re
from pathlib import Path

import torch

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "training.md"


def test_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    torch.manual_seed(0)
    exec("\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)), names)
    files = {path.name for path in (tmp_path / "runs" / "cues").iterdir()}
    said = set(re.findall(r"^\| `(\w+\.\w+)` \|", PAGE.read_text("utf-8"), re.MULTILINE))
    assert files == said - {"epoch_0010.safetensors", "test.csv"}
