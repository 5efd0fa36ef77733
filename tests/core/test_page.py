"""The page of an explanation, and what all pages share."""

import base64
import io
import re
from hashlib import sha256

import numpy as np
import pytest
import torch
from browser import ask, needs_browser, open_page, read
from PIL import Image

import xcam
from xcam.core import explanation_page
from xcam.core.page import encode_picture

HOSTILE = '</script><script>document.title = "owned"</script><img src=x onerror=alert(1)>'


def decode(uri):
    """The pixels of a data URI, (H, W, 3)."""
    kind, _, content = uri.partition(",")
    assert kind == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


@pytest.fixture(scope="module")
def images():
    coarse = torch.rand(3, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, (12, 16), mode="bilinear")


@pytest.fixture(scope="module")
def explanation(images):
    maps = torch.rand(3, 3, 4, generator=torch.Generator().manual_seed(1)) - 0.2
    maps[1] = -1
    logits = torch.tensor([[0.0, 1, 2], [3, 1, 0], [0, 4, 1]])
    return xcam.Explanation.of(maps, images, [2, 0, 0], logits, method="mine <i>")


@pytest.fixture(scope="module")
def path(explanation, images, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    titles = ["one.png", HOSTILE, "caf\udce9.png"]
    explanation.to_html(path, images, [HOSTILE, "dog", "cat & co"], titles=titles, labels=[2, 1, 0])
    return path


@pytest.fixture(scope="module")
def page(path):
    return read(path)


def test_pictures_are_the_images_and_their_overlays(page, explanation, images):
    sources = [found["src"] for found in page.find("img")]
    assert len(sources) == 6
    overlays = [one.overlay(images[i : i + 1])[0] for i, one in enumerate(explanation) if i != 1]
    for source, pixels in zip(
        (sources[0], sources[1], sources[5]), (images[0], overlays[0], overlays[1]), strict=True
    ):
        error = decode(source) / 255 - pixels.movedim(0, -1).numpy()
        assert np.abs(error).mean() < 0.03


def test_captions_labels_notes_and_method(page, explanation):
    rows = [" ".join(row[0].split()) for row in page.tables[0][1:]]
    assert rows[0] == "one.png cat & co 67% (label cat & co)"
    assert rows[2].startswith("caf\\xe9.png")
    assert "(predicted dog)" in rows[2]
    assert "nowhere positive" in page.tables[0][2][2] or "flat" in page.tables[0][2][2]
    assert page.tables[1][1][:2] == ["mine <i>", repr(explanation.method)]


def test_hostile_names_stay_text(page):
    assert " ".join(page.tables[0][2][0].split()).startswith(HOSTILE)
    assert len(page.find("script")) == 1
    assert not any("onerror" in found for found in page.find("img"))
    assert page.find("i") == []


def test_page_loads_nothing_and_runs_its_own_script_only(path, page):
    text = path.read_text("utf-8")
    script = text[text.rindex("<script>") + 8 : text.rindex("</script>")]
    digest = base64.b64encode(sha256(script.encode()).digest()).decode()
    (policy,) = page.find("meta", **{"http-equiv": "Content-Security-Policy"})
    assert f"script-src 'sha256-{digest}'" in policy["content"]
    assert "default-src 'none'" in policy["content"]
    links = [found[key] for _, found in page.elements for key in ("src", "href") if key in found]
    assert [link for link in links if not link.startswith(("data:", "#"))] == []
    assert re.findall(r"url\(|@import", text) == []


def test_photographs_keep_their_names_and_shapes(tmp_path):
    file = tmp_path / "cat & dog.png"
    Image.new("RGB", (40, 20), (200, 100, 0)).save(file)
    photograph = torch.zeros(1, 3, 8, 8)
    found = xcam.Explanation.of(torch.rand(1, 8, 8), photograph)
    found.to_html(tmp_path / "page.html", [file])
    page = read(tmp_path / "page.html")
    assert page.tables[0][1][0].split() == [
        "cat",
        "&",
        "dog.png",
        "a",
        "score",
        "of",
        "the",
        "output",
    ]
    assert [decode(one["src"]).shape for one in page.find("img")] == [(20, 40, 3)] * 2
    assert np.abs(decode(page.find("img")[0]["src"])[10, 20] - [200.0, 100, 0]).max() < 4


def test_many_images_are_cut_with_a_sentence(tmp_path, explanation, images, monkeypatch):
    monkeypatch.setattr(explanation_page, "MOST", 2)
    explanation.to_html(tmp_path / "page.html", images)
    page = read(tmp_path / "page.html")
    assert len(page.find("img")) == 4
    assert "The first 2 of 3 images are shown." in page.text


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"images": torch.rand(2, 3, 12, 16)}, "the explanation is of 3 images"),
        ({"titles": ["a"]}, "got 1 titles for 3 images"),
        ({"labels": [0]}, "got 1 labels for 3 images"),
    ],
)
def test_bad_input_writes_nothing(explanation, images, tmp_path, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        explanation.to_html(tmp_path / "page.html", **({"images": images} | change))
    assert list(tmp_path.iterdir()) == []


def test_missing_folder(explanation, images, tmp_path):
    with pytest.raises(OSError, match="none"):
        explanation.to_html(tmp_path / "none" / "page.html", images)


def test_large_pictures_shrink_and_gray_ones_have_three_channels():
    assert decode(encode_picture(torch.rand(3, 100, 50), 20)).shape == (20, 10, 3)
    assert decode(encode_picture(torch.full((1, 8, 8), 0.5), 20)).shape == (8, 8, 3)


@needs_browser
def test_browser_shows_every_picture_and_logs_nothing(path):
    shown, log = open_page(path)
    assert log == []
    assert "<title>mine &lt;i&gt; of 3 images</title>" in shown
    widths = ask(
        path,
        "await Promise.all([...document.images].map((one) => one.decode()));"
        "return [...document.images].map((one) => one.naturalWidth);",
    )
    assert widths == [16] * 6
