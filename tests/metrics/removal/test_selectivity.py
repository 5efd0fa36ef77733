"""Selectivity: loops in place for every unit, explained once and again, and the two agreeing."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from by_hand import curve_of, edited, explained, seeded
from nets import unchanged
from torch.testing import assert_close

import xcam
from xcam.core import Explanation, Method, MethodSpec
from xcam.engine.forward import run_settings
from xcam.metrics import Selectivity
from xcam.models import Normalized
from xcam.models.toy import GapNet, SmallCNN

IMAGES = seeded(2, 3, 8, 9)
MAPS = seeded(2, 8, 9, seed=1) - 0.5
CLASSES = [3, 1]
NORMALISED = Normalized(SmallCNN(), (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
RAW = seeded(1, 3, 8, 9, seed=2)[0] - 0.5


@dataclass(frozen=True)
class Fixed(Method):
    """Explains every image by the same elements."""

    spec: ClassVar[MethodSpec] = MethodSpec("fixed", "Fixed", "", "control", "none")

    def maps(self, model, images, target):
        return RAW.expand(len(images), -1, -1, -1)


def curves(metric, explanation=None, model=NORMALISED):
    explanation = explained(MAPS, CLASSES) if explanation is None else explanation
    return metric.score(model, IMAGES, explanation)


def saliency(images=IMAGES, classes=CLASSES):
    return xcam.explain(NORMALISED, images, classes, "saliency")


def fixed(**changes):
    return replace(xcam.explain(NORMALISED, IMAGES, CLASSES, Fixed()), **changes)


def patch_sums(scores, side):
    """A map in which every pixel has the sum of its patch."""
    sums = torch.empty_like(scores)
    for y in range(0, scores.shape[0], side):
        for x in range(0, scores.shape[1], side):
            sums[y : y + side, x : x + side] = scores[y : y + side, x : x + side].sum()
    return sums


class TestStatic:
    def test_pixels_as_a_loop_in_place(self):
        found = curves(Selectivity(unit="pixel", steps=10, step=7))
        assert found.shape == (2, 11, 2)
        for i, target in enumerate(CLASSES):
            pictures = list(edited(IMAGES[i], torch.zeros(3, 8, 9), MAPS[i], 7))[:11]
            by_hand = curve_of(NORMALISED, pictures, target)
            assert_close(found[i, :, 0], by_hand, atol=1e-6, rtol=1e-5)
            with torch.no_grad():
                hits = NORMALISED(torch.stack(pictures)).argmax(1) == target
            assert found[i, :, 1].equal(hits.float())

    def test_patches_as_a_loop_in_place(self):
        found = curves(Selectivity(patch=4, steps=6))  # 2 × 3 patches, the last ones 4 × 1
        for i, target in enumerate(CLASSES):
            sums, picture, pictures = patch_sums(MAPS[i], 4), IMAGES[i].clone(), [IMAGES[i]]
            for value in sums.unique().flip(0):
                picture = torch.where(sums == value, 0, picture)
                pictures.append(picture)
            assert_close(
                found[i, :, 0], curve_of(NORMALISED, pictures, target), atol=1e-6, rtol=1e-5
            )

    def test_elements_as_a_loop_in_place(self):
        explanation = saliency()
        found = curves(Selectivity(unit="element", steps=9, step=20), explanation)
        for i, target in enumerate(CLASSES):
            order = explanation.raw[i].flatten().argsort(descending=True, stable=True)
            pictures = []
            for done in range(0, 181, 20):
                picture = IMAGES[i].flatten().clone()
                picture[order[:done]] = 0
                pictures.append(picture.view(3, 8, 9))
            assert_close(
                found[i, :, 0], curve_of(NORMALISED, pictures, target), atol=1e-6, rtol=1e-5
            )

    @pytest.mark.parametrize("unit", ["pixel", "patch", "element"])
    def test_ends_where_everything_is_gone(self, unit):
        found = curves(Selectivity(unit=unit, patch=3, steps=5), fixed())
        black = curve_of(NORMALISED, [torch.zeros(3, 8, 9)], CLASSES)[0]
        assert_close(found[:, -1, 0], black, atol=1e-6, rtol=1e-5)
        beyond = curves(Selectivity(unit=unit, patch=3, steps=2, step=1000), fixed())
        assert_close(beyond[:, 1:, 0], black[:, None].expand(-1, 2), atol=1e-6, rtol=1e-5)

    def test_patch_may_be_larger_than_the_image(self):
        found = curves(Selectivity(patch=50, steps=2))
        assert_close(found[:, 0], found[:, 1])
        assert not torch.allclose(found[:, 1, 0], found[:, 2, 0])


class TestRecomputed:
    @pytest.mark.parametrize("exclude_removed", [True, False])
    def test_elements_as_a_loop_that_explains_again(self, exclude_removed):
        metric = Selectivity(
            unit="element", recompute=True, exclude_removed=exclude_removed, steps=8, step=1
        )
        found = curves(metric, saliency())
        for i, target in enumerate(CLASSES):
            picture, pictures, gone = IMAGES[i].flatten().clone(), [IMAGES[i]], []
            for _ in range(8):
                raw = saliency(picture.view(1, 3, 8, 9), [target]).raw[0].flatten()
                if exclude_removed:
                    raw[gone] = -torch.inf
                gone.append(int(raw.argmax()))
                picture[gone[-1]] = 0
                pictures.append(picture.view(3, 8, 9).clone())
            assert (len(set(gone)) == 8) or not exclude_removed
            assert_close(
                found[i, :, 0], curve_of(NORMALISED, pictures, target), atol=1e-5, rtol=1e-4
            )

    def test_patches_as_a_loop_that_explains_again(self):
        found = curves(Selectivity(patch=4, recompute=True, steps=6), saliency())
        for i, target in enumerate(CLASSES):
            picture, pictures, gone = IMAGES[i].clone(), [IMAGES[i]], torch.zeros(8, 9).bool()
            for _ in range(6):
                sums = patch_sums(saliency(picture[None], [target]).maps[0], 4)
                sums[gone] = -torch.inf
                gone = gone | (sums == sums.max())
                picture = torch.where(gone, 0, IMAGES[i])
                pictures.append(picture)
            assert_close(
                found[i, :, 0], curve_of(NORMALISED, pictures, target), atol=1e-5, rtol=1e-4
            )

    @pytest.mark.parametrize("unit", ["pixel", "patch", "element"])
    @pytest.mark.parametrize("space", ["input", "normalized"])
    def test_recomputed_constant_map_gives_the_static_curves(self, unit, space):
        settings = {"unit": unit, "patch": 3, "space": space, "steps": 7}
        static = curves(Selectivity(**settings), fixed())
        again = curves(Selectivity(recompute=True, **settings), fixed())
        assert_close(again, static, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(static[:, 0, 0], static[:, -1, 0])

    def test_what_is_gone_can_be_chosen_for_ever(self):
        flat = curves(Selectivity(preset="whitebox"), fixed())
        assert flat.shape == (2, 51, 2)
        assert not torch.allclose(flat[:, 0, 0], flat[:, 1, 0])
        assert_close(flat[:, 1:], flat[:, 1:2].expand(-1, 50, -1))

    def test_recompute_with_a_method_not_installed_is_refused(self):
        with pytest.raises(ValueError, match="'by_hand' is not installed here"):
            curves(Selectivity(recompute=True))

    def test_recompute_of_maps_from_elsewhere_is_refused(self):
        foreign = Explanation.of(MAPS, IMAGES, CLASSES)
        with pytest.raises(ValueError, match="were made elsewhere, and recompute=True explains"):
            Selectivity(recompute=True).score(NORMALISED, IMAGES, foreign)


def test_finish_is_the_area_under_the_chosen_curve():
    mean = seeded(4, 11, 2)
    for output, place in (("prob", 0), ("accuracy", 1)):
        metric = Selectivity(steps=10, output=output)
        expected = torch.trapezoid(mean[..., place], dx=0.1)
        assert_close(metric.finish(mean), expected)
        assert metric.curve(mean)[0].tolist() == list(range(11))
        assert metric.curve(mean)[1].equal(mean[..., place])


def test_preset_whitebox_sets_its_fields():
    assert repr(xcam.get_metric("selectivity")(preset="whitebox")) == repr(
        Selectivity(unit="element", recompute=True, exclude_removed=False, steps=50, step=1)
    )
    with pytest.raises(ValueError, match="presets 'whitebox', got 'quantus'"):
        Selectivity(preset="quantus")
    with pytest.raises(ValueError, match="sets steps=50, got steps=10"):
        Selectivity(preset="whitebox", steps=10)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("size", [1, 3])
def test_curves_are_the_same_for_any_batch_size(recompute, size):
    metric = Selectivity(unit="pixel", recompute=recompute, steps=6)
    explanation = saliency()
    whole = curves(metric, explanation)
    with run_settings(batch_size=size):
        assert_close(curves(metric, explanation), whole, atol=1e-5, rtol=1e-5)
    with unchanged(NORMALISED, IMAGES):
        curves(metric, explanation)


def test_elements_need_a_value_of_each():
    explanation = xcam.explain(GapNet(), IMAGES, CLASSES, "gradcam")
    with pytest.raises(ValueError, match=r"got \(2, 4, 5\); use a method that explains pixels"):
        curves(Selectivity(unit="element"), explanation, GapNet())


@pytest.mark.parametrize("recompute", [False, True])
def test_elements_of_one_channel_are_pixels(recompute):
    net, images = SmallCNN(1), seeded(2, 1, 8, 9)
    explanation = xcam.explain(net, images, CLASSES, "gradcam")
    settings = {"recompute": recompute, "steps": 5, "step": 2}
    element, pixel = (
        Selectivity(unit=unit, **settings).score(net, images, explanation)
        for unit in ("element", "pixel")
    )
    assert torch.equal(element, pixel)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"unit": "segment"}, "unit must be 'pixel', 'patch' or 'element', got 'segment'"),
        ({"space": "pixel"}, "space must be 'input' or 'normalized', got 'pixel'"),
        ({"output": "logit"}, "output must be 'prob' or 'accuracy', got 'logit'"),
        ({"patch": 0}, "patch must be an int of at least 1, such as 8, got 0"),
        ({"steps": 0}, "steps must be an int of at least 1, such as 50, got 0"),
        ({"step": -1}, "step must be an int of at least 1 or None, got -1"),
        ({"exclude_removed": False}, "needs recompute=True"),
        ({"fill": "black"}, "got 'black'"),
    ],
)
def test_bad_settings(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        Selectivity(**values)
