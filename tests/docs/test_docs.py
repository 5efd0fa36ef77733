import csv
import re
import shutil
import statistics
import subprocess
from pathlib import Path

import catalogue
import demo
import pytest
import torch.nn.functional as F
from commands import run
from launches import LAUNCH

import xcam

ROOT = Path(__file__).parents[2]
PAGES = [
    "README.md",
    "docs/start/first_map.md",
    "docs/howto/explain.md",
    "docs/howto/models.md",
    "docs/howto/targets.md",
    "docs/howto/metrics.md",
]
ALL_PAGES = [
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/*.md", "docs/*/*.md")
    for path in ROOT.glob(pattern)
    if path.parent.name not in ("_build", "generated")
]


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """The files that the examples read, in the current folder."""
    for name, file in {"cat": "cat.png", "coffee": "coffee.png"}.items():
        shutil.copy(demo.find_photograph(name), tmp_path / file)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_examples_run(page, pictures, lite0, monkeypatch):
    monkeypatch.setattr(xcam.models, "load", lambda *args, **kwargs: lite0)
    code = "\n".join(blocks(page, "python"))
    names = {}
    # They run as they stand, but the net looks at a quarter of the pixels: that is a third as long.
    with lite0.model.register_forward_pre_hook(lambda _, inputs: F.avg_pool2d(inputs[0], 2)):
        exec(compile(code, page, "exec"), names)
    assert "explain" in code
    for written in re.findall(r'"(cat-?\w*\.(?:png|safetensors))"', code):
        assert (pictures / written).stat().st_size > 1000


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_the_examples_exist(page):
    for line in "".join(blocks(page, "shell")).replace("\\\n", " ").splitlines():
        program, *rest = line.split("#")[0].split()
        if program == "accelerate":
            assert [program, *rest][: len(LAUNCH)] == LAUNCH, "only this command is tested"
            program, rest = "xcam", rest[len(LAUNCH) - 2 :]
        if program == "xcam":
            done = run(rest[0], "--help")
            assert done.exit_code == 0, line
            for option in (word for word in rest if word.startswith("--")):
                assert re.search(rf"  (--\w+, )?{option}[, ]", done.stdout), line
        elif program == "make":
            assert f"\n{rest[0]}:" in (ROOT / "Makefile").read_text()
        else:
            assert program == "pip"


@pytest.mark.parametrize("page", ALL_PAGES)
def test_commands_can_be_pasted(page):
    """The shell reads them: what it would take for its own is quoted."""
    for block in blocks(page, "shell"):
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), block


def test_readme_example_has_at_most_twelve_lines():
    (code,) = blocks("README.md", "python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 12


def test_readme_table_is_up_to_date():
    text = (ROOT / "README.md").read_text("utf-8")
    assert catalogue.update_readme(text) == text, "run `make readme`"


@pytest.mark.parametrize("name", xcam.list_methods())
def test_every_method_is_in_the_readme(name):
    spec = xcam.get_method(name).spec
    assert f"\n| `{name}` | {spec.title} | {spec.cost} |" in catalogue.make_methods_table()


@pytest.mark.parametrize("name", xcam.list_metrics())
def test_every_metric_is_in_the_readme(name):
    spec = xcam.get_metric(name).spec
    assert f"\n| `{name}` | {spec.title} | {spec.direction} | " in catalogue.make_metrics_table()


def test_every_family_and_question_has_a_heading():
    assert {xcam.get_method(name).spec.family for name in xcam.list_methods()} == set(
        catalogue.group_by_family()
    )
    assert {xcam.get_metric(name).spec.question for name in xcam.list_metrics()} == set(
        catalogue.group_by_question()
    )


def test_papers_become_links():
    link = "A, 2020, [arXiv:2001.00001](https://arxiv.org/abs/2001.00001)"
    assert catalogue.link_paper("A, 2020, arXiv:2001.00001") == link
    assert catalogue.link_paper("B, WACV 2020") == "B, WACV 2020"


def test_links_between_pages_lead_somewhere():
    for page in [*PAGES, "CONTRIBUTING.md", "CHANGELOG.md"]:
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text("utf-8")):
            if not target.startswith(("http", "../generated/")):
                assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"


def test_rise_table_in_results_matches_its_csv_file():
    with (ROOT / "docs" / "figures" / "rise_convergence.csv").open() as file:
        measured = list(csv.DictReader(file))
    text = (ROOT / "docs" / "numbers" / "results.md").read_text("utf-8")
    (header,) = [line for line in text.splitlines() if line.startswith("| photograph")]
    masks = [cell.strip() for cell in header.strip("|").split("|")][3:]
    for key in {(row["image"], row["estimator"], row["sampling"]) for row in measured}:
        means = []
        for count in masks:
            wanted = dict(zip(("image", "estimator", "sampling"), key, strict=True), n_masks=count)
            values = [
                float(row["correlation"]) for row in measured if wanted.items() <= row.items()
            ]
            means.append(f"{statistics.mean(values):.2f}")
        image, estimator, sampling = key
        assert f"| {image} | `{estimator}` | `{sampling}` | {' | '.join(means)} |" in text
