"""`xcam report`, and `xcam explain --report`."""

import sys

import pytest
import torch
from browser import read
from commands import refused, run
from evaluations import Pictures
from PIL import Image

import xcam
from xcam.models.toy import GapNet
from xcam.results import page_facts


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A class with a name to escape, of two pictures, and a class of one."""
    root = tmp_path_factory.mktemp("photos")
    for number, name in enumerate(("a&amp;b/0.png", "a&amp;b/1.png", "dog/2.png")):
        (root / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (24, 16), (90 * number, 60, 30)).save(root / name)
    return root


@pytest.fixture(scope="module")
def evaluated(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    data = xcam.data.folder(photos, 16)
    xcam.evaluate(
        GapNet(), data, ["gradcam"], ["sparseness"], out=folder, save_maps=True, controls=False
    )
    return folder


def test_report_is_that_of_python(evaluated, photos, tmp_path):
    page = tmp_path / "page.html"
    done = run(
        "report", evaluated, "--out", page, "--data", photos, "--size", "16", "--title", "A & B",
        "--examples", "2", "--worst", "1", "--seed", "4",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert done.stdout == f"page -> {page}\n"
    same = tmp_path / "same.html"
    found = xcam.Results(evaluated)
    data = xcam.data.folder(photos, 16)
    found.to_html(same, data, title="A & B", examples=2, worst=1, seed=4)
    assert page.read_text("utf-8") == same.read_text("utf-8")
    assert read(page).texts.count("A & B") == 2  # the title and the heading
    assert len(read(page).find("img")) == 6


def test_report_without_pictures_shows_maps_alone(evaluated, tmp_path):
    page = tmp_path / "page.html"
    assert run("report", evaluated, "--out", page).exit_code == 0
    assert len(read(page).find("img")) == 3 + 3


def test_bad_arguments_of_report(evaluated, tmp_path):
    missing = tmp_path / "none" / "page.html"
    assert "none' for --out" in refused("report", evaluated, "--out", missing)
    assert "is a folder" in refused("report", evaluated, "--out", tmp_path)
    assert "no rows in" in refused("report", tmp_path, "--out", tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_evaluate_leaves_its_command(photos, tmp_path, monkeypatch):
    data = Pictures(3)
    monkeypatch.setattr("xcam.cli.evaluating.make_loader", lambda *given: data)
    monkeypatch.setattr("xcam.cli.evaluating.load_models", lambda *given: {"net": GapNet()})
    words = ["evaluate", "--data", "my photos", "--metrics", "sparseness", "--out"]
    words.append(tmp_path / "run")
    monkeypatch.setattr(sys, "argv", ["xcam", *map(str, words)])
    for _ in range(2):
        assert run(*words, "--no-controls").exit_code == 0
    command = f"xcam evaluate --data 'my photos' --metrics sparseness --out {tmp_path / 'run'}"
    assert page_facts.read_commands(tmp_path / "run") == [command]
    assert run("report", tmp_path / "run", "--out", tmp_path / "page.html").exit_code == 0
    assert command in read(tmp_path / "page.html").text


def test_explain_writes_a_page_of_all_methods(photos, tmp_path, monkeypatch):
    net = xcam.models.Normalized(GapNet(), [0.5], [0.5], input_size=16)
    monkeypatch.setattr("xcam.cli.explaining.load_model", lambda *given: net)
    page, words = tmp_path / "page.html", ["--methods", "gradcam,gradcam(relu=True),layercam"]
    (photos / "dog" / "broken.png").write_bytes(b"")
    done = run("explain", photos, "--out", tmp_path, "--report", page, *words)
    (photos / "dog" / "broken.png").unlink()
    assert done.exit_code == 1
    assert f"page -> {page}" in done.stdout
    found = read(page)
    columns = found.tables[0][0]
    assert columns[:2] + columns[-1:] == ["name", "image", "LayerCAM"]
    assert columns[2].startswith("GradCAM(")
    assert [row[0].split("\n")[0] for row in found.tables[0][1:]] == [
        "a&amp;b/0.png",
        "a&amp;b/1.png",
        "dog/2.png",
    ]
    assert len(found.find("img")) == 3 * 4
    missing = ("explain", photos, "--out", tmp_path, "--report", tmp_path / "none" / "page.html")
    assert "none' for --report" in refused(*missing)


def test_page_shows_the_photograph_not_the_crop(photos, tmp_path, monkeypatch):
    net = xcam.models.Normalized(GapNet(), [0.5], [0.5], input_size=16)
    monkeypatch.setattr("xcam.cli.explaining.load_model", lambda *given: net)
    shapes = []
    note = lambda pixels, side: shapes.append(pixels.shape) or "data:,"  # noqa: E731
    monkeypatch.setattr("xcam.core.page.encode_picture", note)
    photo = photos / "dog" / "2.png"
    words = ["--out", tmp_path, "--report", tmp_path / "page.html"]
    assert run("explain", photo, *words).exit_code == 0
    assert run("explain", photo, *words, "--resize", "16").exit_code == 0
    assert shapes == [torch.Size([3, 16, 24])] * 2 + [torch.Size([3, 16, 16])] * 2
