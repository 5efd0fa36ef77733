import dataclasses
import struct

import pytest
import torch

import xcam
from xcam import imaging
from xcam.core import SavedMethod, figures
from xcam.models.toy import GapNet

NAMES = ("ant", "bee", "cat", "dog", "a very long name of a class that needs two lines")


@pytest.fixture
def images():
    return torch.rand(3, 3, 20, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def explanation(images):
    return xcam.explain(GapNet(), images, [0, 3, 4])


def clipped(figure):
    """The texts of a figure that do not lie inside of it."""
    figure.draw_without_rendering()
    whole = figure.bbox
    texts = [text for axes in figure.axes for text in (axes.title, axes.yaxis.label)]
    boxes = {text.get_text(): text.get_window_extent() for text in texts if text.get_text()}
    assert boxes
    return [
        name
        for name, box in boxes.items()
        if box.x0 < -1 or box.y0 < -1 or box.x1 > whole.x1 + 1 or box.y1 > whole.y1 + 1
    ]


def test_plot_shows_each_image_beside_its_overlay(explanation, images):
    figure = explanation.plot(images, categories=NAMES)
    *shown, _ = [axes.get_images()[0].get_array() for axes in figure.axes]  # and the scale
    assert len(shown) == 6
    expected = explanation.overlay(images)
    for row in range(3):
        left, right = torch.tensor(shown[2 * row]), torch.tensor(shown[2 * row + 1])
        assert torch.equal(left.movedim(-1, 0), images[row])
        assert torch.equal(right.movedim(-1, 0), expected[row])
    assert figure.axes[0].get_title() == "image"
    assert figure.axes[1].get_title() == "Grad-CAM"
    labels = [axes.get_ylabel() for axes in figure.axes[0:6:2]]
    assert labels == explanation.captions(NAMES)


def test_captions_name_class_probability_and_a_different_prediction(explanation):
    odds = explanation.logits.softmax(1)
    for row, (caption, wanted) in enumerate(
        zip(explanation.captions(NAMES), (0, 3, 4), strict=True)
    ):
        words = " ".join(caption.split())
        assert words.startswith(f"{NAMES[wanted]} {odds[row, wanted]:.0%}")
        best = int(odds[row].argmax())
        assert (f"(predicted {NAMES[best]})" in words) == (best != wanted)
    assert explanation.captions()[0].startswith("class 0\n")


def test_captions_without_classes(explanation, images):
    def contrast(output, rows):
        return output[:, 0] - output[:, 1]

    assert xcam.explain(GapNet(), images, contrast).captions() == ["a score of\nthe output"] * len(
        images
    )
    assert dataclasses.replace(explanation, logits=None).captions(NAMES)[0] == "ant"
    binary = xcam.explain(GapNet(num_classes=1), images, 0)
    percent = f"{float(binary.logits[0, 0].sigmoid()):.0%}"
    assert binary.captions() == binary.captions(())
    assert binary.captions()[0] == f"class 0\n{percent}"


def test_plot_of_a_method_that_is_not_installed(explanation, images):
    saved = dataclasses.replace(explanation, method=SavedMethod("theircam", ()))
    assert saved.plot(images).axes[1].get_title() == "theircam"


@pytest.mark.parametrize("cell", [0.9, 1.3, 2.6])
def test_no_label_is_clipped(explanation, images, cell):
    overlays = explanation.overlay(images)
    titles = ["Grad-CAM", "Guided Backpropagation", "Integrated Gradients", "RISE"]
    captions = explanation.captions(NAMES)
    figure = figures.draw_grid(images, dict.fromkeys(titles, overlays), captions, cell=cell)
    assert clipped(figure) == []
    assert clipped(explanation.plot(images, categories=NAMES)) == []
    assert clipped(explanation[:1].plot(images[:1], categories=NAMES)) == []


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg", ".PNG"])
def test_suffix_says_the_kind_of_file(explanation, images, tmp_path, suffix):
    path = tmp_path / f"plot{suffix}"
    explanation.plot(images, path)
    start = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[suffix.lower()]
    assert path.read_bytes().startswith(start)
    assert len(list(tmp_path.iterdir())) == 1


def test_grid_is_as_large_as_its_cells(images, tmp_path):
    overlays = torch.rand(3, 3, 20, 16, generator=torch.Generator().manual_seed(1))
    figures.draw_grid(
        images, {"a": overlays, "b": overlays}, path=tmp_path / "g.png", cell=1, dpi=50
    )
    width, height = struct.unpack(">II", (tmp_path / "g.png").read_bytes()[16:24])
    assert 150 < width < 170
    assert 3 * 1.25 * 50 < height < 3 * 1.25 * 50 + 40


def test_wrong_pictures_are_refused(explanation, images, tmp_path):
    with pytest.raises(ValueError, match="'a' has 2 overlays for 3 images"):
        figures.draw_grid(images, {"a": images[:2]})
    with pytest.raises(ValueError, match="1 labels for 3 images"):
        figures.draw_grid(images, {"a": images}, ["one"])
    with pytest.raises(ValueError, match=r"no such kind of picture: .*plot\.docx'; use \."):
        explanation.plot(images, tmp_path / "plot.docx")
    with pytest.raises(FileNotFoundError, match="cannot write"):
        explanation.plot(images, tmp_path / "none" / "plot.png")
    with pytest.raises(ValueError, match="explanation is of 3 images"):
        explanation.plot(images[:1])


def test_no_global_state_of_matplotlib_is_touched(explanation, images):
    import matplotlib as mpl
    from matplotlib import _pylab_helpers

    mpl.get_backend()  # chosen when first asked for
    before = mpl.rcParams.copy()
    explanation.plot(images)
    assert mpl.rcParams == before
    assert _pylab_helpers.Gcf.get_num_fig_managers() == 0


def test_gray_images_are_drawn_with_three_channels(images):
    gray = images[:, :1]
    explanation = xcam.explain(GapNet(channels=1), gray)
    assert explanation.plot(gray).axes[0].get_images()[0].get_array().shape == (20, 16, 3)


def test_maps_of_single_pixels_are_made_visible(images):
    dots = torch.zeros(2, 50, 100)
    dots[0, 25, 50] = 5.0
    seen = imaging.brighten(dots)
    assert seen[0].aminmax() == (0, 1)
    assert int((seen[0] > 0.5).sum()) > 5  # a dot has become a spot, where it was
    assert seen[0].flatten().argmax() == 25 * 100 + 50 or seen[0, 25, 50] == 1
    assert seen[1].aminmax() == (0, 0)
    explanation = xcam.explain(GapNet(), images, method="saliency")
    bright = imaging.brighten(explanation.normalized())
    assert torch.equal(explanation.overlay(images), imaging.overlay(images, bright))
    assert not torch.equal(bright, explanation.normalized())
