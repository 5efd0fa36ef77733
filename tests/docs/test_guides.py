"""The code on the pages that need no trained net runs, and what it asserts holds."""

import re
import sys
from pathlib import Path
from types import ModuleType

import choices
import numpy as np
import pytest
import torch
from PIL import Image

import xcam

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [
    "howto/own_model.md",
    "howto/choose_method.md",
    "howto/choose_metric.md",
    "howto/score_maps.md",
    "howto/scale.md",
    "howto/paper_settings.md",
    "howto/published_checkpoints.md",
    "howto/faq.md",
    "howto/plugins.md",
    "coming_from/grad_cam.md",
    "coming_from/captum.md",
    "coming_from/torchcam.md",
    "coming_from/quantus.md",
    "explanation/metrics.md",
]
FOREIGN = re.compile(r"import quantus|quantus\.\w+\(")


def read_code(page):
    """The blocks of Python of a page, but those of a library that is not installed here."""
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text("utf-8"), re.M | re.S)
    return "\n".join(block for block in blocks if not FOREIGN.search(block))


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Pictures in a folder for each class, in the current folder."""
    noise = np.random.default_rng(0)
    for number, name in enumerate(["cat", "dog", "cat", "dog"]):
        path = tmp_path / "photos" / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(path)
    monkeypatch.chdir(tmp_path)


@pytest.mark.filterwarnings("ignore::xcam.XcamWarning")  # nets with random weights have flat maps
@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require")  # captum's
@pytest.mark.parametrize("page", PAGES)
def test_code_of_the_page_runs(page, photos, monkeypatch):
    code, module = read_code(page), ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)  # its classes are looked up there
    monkeypatch.syspath_prepend(DOCS.parent / "examples" / "plugin")
    assert "xcam." in code
    with torch.random.fork_rng():
        torch.manual_seed(0)
        exec(compile(code, page, "exec"), module.__dict__)


def test_every_table_is_included_in_a_page_and_made():
    pages = "".join(path.read_text("utf-8") for path in DOCS.glob("*/*.md"))
    included = re.findall(r"\{include\} \.\./generated/tables/(\w+)\.txt", pages)
    assert sorted(included) == sorted(choices.make_tables())


def test_choices_have_every_name():
    methods, metrics = choices.make_method_choices(), choices.make_metric_choices()
    assert all(f"\n| `{name}` |" in methods for name in xcam.list_methods())
    assert all(f"\n| `{name}` |" in metrics for name in xcam.list_metrics())


@pytest.mark.parametrize(
    ("name", "gradients", "layer"),
    [
        ("gradcam", True, True),
        ("finercam", True, True),  # by the method that it wraps
        ("rise", False, False),
        ("scorecam", False, True),
        ("integrated_gradients", True, False),
        ("lcam_img", False, True),
    ],
)
def test_choices_tell_what_a_method_needs(name, gradients, layer):
    cls = xcam.get_method(name)
    assert (choices.needs_gradients(cls), choices.reads_layer(cls)) == (gradients, layer)


@pytest.mark.parametrize(
    "page", ["howto/choose_method.md", "howto/choose_metric.md", "coming_from/quantus.md"]
)
def test_page_offers_names_that_there_are(page):
    text = (DOCS / page).read_text("utf-8")
    cells = re.findall(r"^\| [^|]* \| ([^|]*) \|", text, re.MULTILINE)
    names = {name for cell in cells for name in re.findall(r"`([a-z]\w+)(?:\(.*?\))?`", cell)}
    assert len(names) > 8
    assert names <= {*xcam.list_methods(), *xcam.list_metrics()}


@pytest.mark.parametrize(
    ("section", "ours"),
    [
        ("Stability of attention: LFI-CAM and ABN", ["0.670", "0.502", "0.74", "0.50"]),
        ("CALM on planted cues", ["0.49", "0.45"]),
    ],
)
def test_numbers_of_ours_among_published_ones_are_those_of_the_results(section, ours):
    results = (DOCS / "numbers" / "results.md").read_text("utf-8")
    measured = results.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    published = (DOCS / "numbers" / "published.md").read_text("utf-8")
    assert all(number in measured and number in published for number in ours)


def test_commands_that_measure_again_name_files_that_there_are():
    page = (DOCS / "explanation" / "numbers.md").read_text("utf-8")
    scripts = re.findall(r"`python (\S+\.py)", page)
    assert len(scripts) > 6
    assert all((DOCS.parent / script).exists() for script in scripts)
