"""Explanations as pictures: the colors, photographs of any size, captions, notebooks."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

import xcam
from xcam import imaging
from xcam.core import SavedMethod
from xcam.core.captions import fit_text, measure_text
from xcam.core.drawing import draw_maps
from xcam.models import Normalized
from xcam.models.toy import GapNet

NAMES = ("ant", "bee", "cat", "dog", "eel")


@pytest.fixture(scope="module")
def net():
    net = Normalized(
        GapNet(num_classes=5), [0.5] * 3, [0.5] * 3, categories=NAMES, input_size=(12, 12)
    )
    return net.eval()


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Two files: 30 × 60 and 50 × 40 pixels."""
    folder = tmp_path_factory.mktemp("photographs")
    generator = np.random.default_rng(0)
    paths = [folder / "wide.png", folder / "tall.png"]
    for path, size in zip(paths, ((30, 60, 3), (50, 40, 3)), strict=True):
        Image.fromarray(generator.integers(0, 256, size, dtype=np.uint8)).save(path)
    return paths


@pytest.fixture(scope="module")
def explanation(net, photographs):
    return xcam.explain(net, photographs, [0, 3])


def make_maps(raw, method="gradcam", size=None, **fields):
    """An explanation with given raw maps."""
    size = size or tuple(raw.shape[-2:])
    made = xcam.get_method(method)() if isinstance(method, str) else method
    return xcam.Explanation(raw, size, torch.zeros(len(raw)).long(), None, made, **fields)


@pytest.mark.parametrize("size", [(30, 60), (60, 30), (24, 24), (600, 800), (13, 47)])
def test_unfit_is_where_fit_looked(size):
    """A gradient over the photograph, fitted, is put back where it was."""
    rows = torch.linspace(0, 1, size[0])[:, None].expand(size)
    columns = torch.linspace(0, 1, size[1]).expand(size)
    fitted = torch.stack([imaging.fit(one.expand(3, *size), 64)[0] for one in (rows, columns)])
    back, seen = imaging.unfit(fitted, size)
    assert back.shape == (2, *size)
    side = min(size)
    assert abs(int(seen.sum()) - side * side) <= 0.02 * side * side + 2 * side
    tolerance = 2 / 64  # a pixel of the small one
    for found, wanted in zip(back, (rows, columns), strict=True):
        assert (found - wanted)[seen].abs().max() < tolerance
        assert (found[~seen] == 0).all()


def test_overlay_has_the_photographs_own_resolution(explanation, photographs):
    for single, path, size in zip(explanation, photographs, ((30, 60), (50, 40)), strict=True):
        laid = single.overlay(path)
        photograph = xcam.read_image(path)[None]
        assert laid.shape == (1, 3, *size)
        shades, seen = imaging.unfit(single.normalized(), size)
        expected = imaging.overlay(photograph, shades)
        assert torch.allclose(laid[..., seen], expected[..., seen], atol=1e-6)
        faded = 0.35 * photograph + 0.325
        assert torch.allclose(laid[..., ~seen], faded[..., ~seen], atol=1e-6)
    with pytest.raises(ValueError, match="photographs differ in size; lay each map over its own"):
        explanation.overlay(photographs)
    with pytest.raises(ValueError, match="the explanation is of 2 images, got 1"):
        explanation.overlay(photographs[0])


def test_plot_draws_photographs_of_several_sizes(explanation, photographs, tmp_path):
    figure = explanation.plot(photographs, tmp_path / "plot.png", labels=[0, "bee"])
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    shapes = [axes.get_images()[0].get_array().shape[:2] for axes in figure.axes[:4]]
    assert shapes == [(30, 60)] * 2 + [(50, 40)] * 2
    labels = [axes.get_ylabel().split("\n") for axes in (figure.axes[0], figure.axes[2])]
    assert [label[:2] for label in labels] == [["wide.png", "ant"], ["tall.png", "dog"]]
    assert [label[-1] for label in labels] == ["(label ant)", "(label bee)"]
    named = explanation.plot(photographs, titles=["one", "two"], labels=torch.tensor([2, 2]))
    assert named.axes[2].get_ylabel().startswith("two\ndog\n")
    assert named.axes[2].get_ylabel().endswith("(label cat)")
    with pytest.raises(ValueError, match="got 1 titles for 2 images"):
        explanation.plot(photographs, titles="one")
    with pytest.raises(ValueError, match="got 3 labels for 2 images"):
        explanation.plot(photographs, labels=[1, 2, 3])


def test_photographs_are_drawn_no_finer_than_the_picture(net, tmp_path):
    large = Image.new("RGB", (900, 1200), (200, 10, 10))
    figure = xcam.explain(net, large).plot(large, dpi=50)
    assert figure.axes[0].get_images()[0].get_array().shape == (130, 98, 3)


def test_signed_maps_of_pixels_diverge_around_zero():
    raw = torch.zeros(1, 3, 40, 40)
    raw[0, :, 10, 10], raw[0, :, 30, 30] = 1.0, -1.0
    gray = torch.full((1, 3, 40, 40), 0.5)
    laid = make_maps(raw, "integrated_gradients").overlay(gray)[0]
    red, _, blue = laid[:, 10, 10]
    assert red > blue + 0.15
    red, _, blue = laid[:, 30, 30]
    assert blue > red + 0.15
    assert torch.allclose(laid[:, 20, 20], gray[0, :, 20, 20], atol=1e-3)
    positive = make_maps(raw, "integrated_gradients").overlay(gray, relu=True)[0]
    assert torch.allclose(positive[:, 30, 30], gray[0, :, 30, 30], atol=1e-3)


def test_unsigned_maps_of_pixels_are_bright():
    raw = torch.zeros(1, 3, 40, 40)
    raw[0, :, 10, 10], raw[0, :, 30, 30] = 100.0, 1.0  # an outlier
    for method in ("saliency", SavedMethod("other")):
        laid = make_maps(raw, method).overlay(torch.zeros(1, 3, 40, 40))[0]
        assert laid[:, 10, 10].max() > 0.2


def test_maps_of_a_layer_show_what_is_positive():
    raw = torch.tensor([[[-1.0, 0.0], [0.5, 1.0]]])
    laid = make_maps(raw).overlay(torch.zeros(1, 3, 2, 2))[0]
    expected = imaging.colorize(torch.tensor([[[0.0, 0.0], [0.5, 1.0]]]))[0]
    expected = expected * 0.6 * torch.tensor([[0, 0], [0.5, 1.0]])
    assert torch.allclose(laid, expected, atol=1e-6)


def test_background_contours_and_colors():
    images = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    ramp = torch.linspace(0, 1, 40).expand(1, 40, 40)
    laid = make_maps(ramp).overlay(images, 0, background="gray", contours=[0.5])[0]
    weights = torch.tensor([0.299, 0.587, 0.114])
    luminance = (images[0] * weights[:, None, None]).sum(0)
    assert torch.allclose(laid[:, :, :18], luminance[:, :18].expand(3, -1, -1), atol=1e-6)
    assert (laid[:, :, 19] == 0).all()  # the last column below one half, and the first above
    assert (laid[:, :, 20] == 1).all()
    with pytest.raises(ValueError, match="background must be 'color' or 'gray', got 'grey'"):
        make_maps(ramp).overlay(images, background="grey")
    with pytest.raises(ValueError, match=r"in \(0, 1\), got 1.5"):
        make_maps(ramp).overlay(images, contours=[1.5])
    with pytest.raises(ValueError, match="no color map 'turbos'; did you mean turbo"):
        make_maps(ramp).plot(images, colors="turbos")


def test_the_scale_has_the_colors_of_the_picture():
    """On a gray image, the colors of a ramp are those of the scale."""
    ramp = torch.linspace(0, 1, 256).expand(1, 4, 256)
    gray = torch.full((1, 3, 4, 256), 0.5)
    for options in ({}, {"alpha": 0.9, "colors": "viridis"}):
        figure = make_maps(ramp).plot(gray, **options)
        overlay, scale = (axes.get_images()[0].get_array() for axes in figure.axes[1:])
        assert abs(overlay[0, ::-1] - scale[:, 0]).max() < 0.01
    signed = make_maps(ramp * 2 - 1, contrast=torch.ones(1).long())
    overlay, scale = (axes.get_images()[0].get_array() for axes in signed.plot(gray).axes[1:])
    assert abs(overlay[0, ::-1] - scale[:, 0]).max() < 0.02


def test_the_scale_of_maps_without_images_has_full_colors():
    ramp = torch.linspace(0, 1, 256).expand(1, 4, 256)
    maps, scale = (axes.get_images()[0].get_array() for axes in draw_maps(make_maps(ramp)).axes)
    assert abs(maps[0, ::-1] - scale[:, 0]).max() < 0.01
    assert abs(scale[0, 0] - imaging.colorize(torch.ones(1, 1, 1))[0, :, 0, 0].numpy()).max() < 1e-6


def test_the_scale_is_of_a_fixed_size():
    sizes = []
    for count in (1, 8):
        figure = make_maps(torch.rand(count, 20, 20)).plot(torch.rand(count, 3, 20, 20))
        figure.draw_without_rendering()
        box = figure.axes[-1].get_window_extent()
        sizes.append((round(box.width), round(box.height)))
    assert sizes[0] == sizes[1]


def test_many_images_stand_side_by_side():
    """They are no ribbon, each still beside its overlay, none on another."""
    figure = make_maps(torch.rand(26, 4, 4)).plot(torch.rand(26, 3, 4, 4))
    width, height = figure.get_size_inches()
    assert height < 2 * width
    boxes = np.array([axes.get_position().bounds for axes in figure.axes[:52]])
    assert len({tuple(box.round(6)) for box in boxes}) == 52
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= 1 + 1e-9).all()
    for image, overlay in zip(boxes[::2], boxes[1::2], strict=True):
        assert overlay[1] == pytest.approx(image[1])
        assert overlay[0] > image[0] + image[2]
    titled = [axes.get_title() for axes in figure.axes[:52]].count("image")
    assert titled == len({round(box[0], 6) for box in boxes[::2]}) > 1


@pytest.mark.filterwarnings("ignore:image:xcam.XcamWarning")
def test_a_map_that_says_nothing_says_so():
    raw = torch.stack([torch.zeros(4, 4), -torch.rand(4, 4) - 0.1, torch.rand(4, 4)])
    figure = make_maps(raw).plot(torch.rand(3, 3, 4, 4))
    marks = [[text.get_text() for text in axes.texts] for axes in figure.axes[1:6:2]]
    assert marks == [["flat map"], ["nowhere positive"], []]


def test_titles_break_at_words_and_shrink():
    assert fit_text("Integrated Gradients", 5)[0] == "Integrated Gradients"
    text, size = fit_text("Guided Backpropagation of something", 1.0)
    assert text.replace("\n", " ") == "Guided Backpropagation of something"
    assert size < 9
    for given in ("smoothgrad(base=GradCAM(layer='model.layer3'))", "x" * 60):
        text, size = fit_text(given, 0.9)
        assert text.replace("\n", "") == given
        assert all(measure_text(line, size) <= 0.9 for line in text.split("\n"))
    assert fit_text("smoothgrad(base=1)", 0.7)[0].startswith("smoothgrad(\n")


def read_png(content):
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGB"))


def test_notebook_shows_maps_and_then_what_was_plotted(net, photographs):
    explanation = xcam.explain(net, photographs, [0, 3])
    alone = read_png(explanation._repr_png_())
    figure = explanation.plot(photographs)
    plotted = explanation._repr_png_()
    assert plotted == figure._repr_png_()
    assert read_png(plotted).shape[1] > alone.shape[1]
    page = explanation._repr_html_()
    assert base64.b64decode(re.search('base64,([^"]+)', page)[1]) == plotted
    assert "&lt;Explanation of 2 images" in page
    assert "<Explanation" not in page


def test_notebook_shows_the_first_of_many():
    shown = make_maps(torch.rand(30, 4, 4))
    figure = draw_maps(shown)
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels[23].endswith("… and 6 more")
    assert len(figure.axes) == 25  # and the scale
