"""`Explanation`: choosing images, joining, pictures."""

import re

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import xcam
from xcam import Explanation
from xcam.core import Note, SavedMethod
from xcam.errors import XcamWarning
from xcam.methods import GradCAM, Saliency
from xcam.metrics import AverageDrop
from xcam.models.toy import GapNet

FLAT, NEGATIVE = "the map is flat, it points nowhere", "no value is positive, nothing speaks"


def explanation(count=4, size=(6, 8), **changes):
    generator = torch.Generator().manual_seed(count)
    values = {
        "raw": torch.randn(count, 3, 4, generator=generator),
        "size": size,
        "target": torch.arange(count),
        "logits": torch.randn(count, 5, generator=generator),
        "method": GradCAM("features"),
    } | changes
    return Explanation(**values)


class TestIndexing:
    @pytest.mark.parametrize(
        ("index", "images"),
        [
            (0, [0]),
            (-1, [3]),
            (np.int64(2), [2]),
            (torch.tensor(2), [2]),
            (slice(1, 3), [1, 2]),
            (slice(None, None, -1), [3, 2, 1, 0]),
            (slice(2, 2), []),
            ([3, 0, 0], [3, 0, 0]),
            ((1, -1), [1, 3]),
            ([], []),
            ([True, False, False, True], [0, 3]),
            (np.array([2, 1]), [2, 1]),
            (torch.tensor([2, 1]), [2, 1]),
            (torch.tensor([False, True, False, True]), [1, 3]),
            (torch.tensor([False] * 4), []),
        ],
    )
    def test_any_index_gives_a_batch(self, index, images):
        whole = explanation()
        part = whole[index]
        assert len(part) == len(images)
        for name in ("maps", "raw", "target", "logits"):
            assert_close(getattr(part, name), getattr(whole, name)[images])
        assert part.method is whole.method

    @pytest.mark.parametrize(
        "index",
        [4, -5, [0, 4], torch.tensor([4]), [True, False], 1.5, "0", None, [[0, 1]], torch.zeros(2)],
    )
    def test_no_such_image(self, index):
        with pytest.raises(IndexError, match="explanation") as caught:
            explanation()[index]
        assert "\n" not in str(caught.value)

    def test_iteration(self):
        whole = explanation()
        parts = list(whole)
        assert [len(part) for part in parts] == [1, 1, 1, 1]
        assert_close(torch.cat([part.maps for part in parts]), whole.maps)

    def test_unknown_parts_stay_unknown(self):
        part = explanation(target=None, logits=None)[1]
        assert part.target is None
        assert part.logits is None


class TestWarnings:
    """Warnings number the images of the explanation they stand in."""

    def whole(self):
        raw = explanation().raw
        raw[1] = 0.3
        raw[2] = -raw[2].abs()
        return explanation(raw=raw, run_notes=(Note(None, "layer 'x' is called 2 times"),))

    def test_notes_name_their_images(self):
        general, flat, negative = self.whole().warnings
        assert general == "layer 'x' is called 2 times"
        assert flat == f"image 1: {FLAT}"
        assert negative.startswith(f"image 2: {NEGATIVE}")

    def test_indexing_renumbers_notes(self):
        assert self.whole()[0].warnings == ("layer 'x' is called 2 times",)
        assert self.whole()[1].warnings[1:] == (f"image 0: {FLAT}",)
        assert self.whole()[[2, 0, 1]].warnings[1:] == (
            f"image 0: {NEGATIVE} for the target",
            f"image 2: {FLAT}",
        )

    def test_joining_renumbers_notes(self):
        whole = self.whole()
        assert Explanation.cat([whole[3], whole[1], whole[1]]).warnings == (
            "layer 'x' is called 2 times",
            f"image 1: {FLAT}",
            f"image 2: {FLAT}",
        )
        assert Explanation.cat(list(whole)).warnings == whole.warnings

    @pytest.mark.parametrize("value", [0.0, 0.1, -1 / 3, 1e-20, 1e20])
    @pytest.mark.parametrize("size", [(7, 7), (14, 14), (1, 3), (5, 9)])
    def test_flat_maps_are_seen_after_a_resize(self, value, size):
        whole = explanation(1, (224, 160), raw=torch.full((1, *size), value))
        assert whole.notes == (Note(0, FLAT),)
        assert xcam.imaging.normalize(whole.maps).abs().max() == 0

    def test_nearly_flat_is_not_flat(self):
        maps = torch.full((1, 4, 4), 0.1)
        maps[0, 2, 2] += 1e-5
        assert explanation(1, (4, 4), raw=maps).notes == ()
        assert xcam.imaging.normalize(maps).max() == 1

    def test_notes_on_an_image_follow_it(self):
        noted = explanation(3, run_notes=(Note(1, "odd"), Note(None, "all")))
        assert noted[[2, 1, 1]].run_notes == (Note(None, "all"), Note(1, "odd"), Note(2, "odd"))
        assert noted[0].run_notes == (Note(None, "all"),)
        joined = Explanation.cat([noted[0], noted])
        assert joined.run_notes == (Note(None, "all"), Note(2, "odd"))
        assert joined.warnings == ("all", "image 2: odd")


class TestCat:
    def test_joins(self):
        first, second = explanation(2), explanation(3)
        whole = Explanation.cat([first, second])
        assert len(whole) == 5
        for name in ("maps", "raw", "target", "logits"):
            assert_close(
                getattr(whole, name), torch.cat([getattr(first, name), getattr(second, name)])
            )

    def test_tensor_missing_in_one_part_is_missing_in_the_whole(self):
        whole = Explanation.cat([explanation(2), explanation(2, target=None)])
        assert whole.target is None
        assert whole.logits is not None

    @pytest.mark.parametrize(
        ("parts", "words"),
        [
            ([], "no explanations to join"),
            (
                [explanation(), explanation(method=GradCAM("stem"))],
                r"GradCAM\(layer='stem'.*features",
            ),
            ([explanation(), explanation(size=(8, 6))], r"maps of size \(8, 6\) to \(6, 8\)"),
        ],
    )
    def test_refused(self, parts, words):
        with pytest.raises(ValueError, match=words):
            Explanation.cat(parts)


class TestNormalized:
    def test_normalized_follows_its_formula(self):
        whole = explanation()
        positive = whole.maps.clamp(min=0)
        assert_close(whole.normalized(), positive / positive.amax((1, 2), keepdim=True))
        low, high = whole.maps.amin((1, 2), keepdim=True), whole.maps.amax((1, 2), keepdim=True)
        assert_close(whole.normalized(relu=False), (whole.maps - low) / (high - low))

    def test_each_map_is_normalized_alone(self):
        whole = explanation()
        assert torch.equal(whole.normalized()[2:3], whole[2].normalized())

    @pytest.mark.parametrize("relu", [True, False])
    def test_flat_map_becomes_zeros_with_a_warning(self, relu):
        with pytest.warns(XcamWarning, match=f"image 0: {FLAT}"):
            got = explanation(1, raw=torch.full((1, 3, 4), 0.7)).normalized(relu)
        assert torch.equal(got, torch.zeros(1, 6, 8))

    def test_negative_everywhere(self):
        whole = explanation(raw=-explanation().raw.abs() - 0.1)
        with pytest.warns(XcamWarning, match=NEGATIVE):
            got = whole.normalized()
        assert torch.equal(got, torch.zeros(4, 6, 8))
        assert whole.normalized(relu=False).max() == 1  # without a warning

    def test_normalized_leaves_the_maps(self):
        whole = explanation()
        before = whole.maps.clone()
        whole.normalized()
        assert torch.equal(whole.maps, before)


class TestOverlay:
    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize(("scale", "shift"), [(1, 0), (4, -2), (255, 0), (0, 5)])
    def test_overlay_takes_any_range_and_leaves_the_images(self, channels, scale, shift):
        images = torch.rand(4, channels, 6, 8) * scale + shift
        before = images.clone()
        got = explanation().overlay(images)
        assert got.shape == (4, 3, 6, 8)
        assert got.dtype == torch.float32
        assert got.min() >= 0
        assert got.max() <= 1
        assert torch.equal(images, before)

    def test_images_in_range_show_through_where_the_map_is_zero(self):
        whole, images = explanation(), torch.rand(4, 3, 6, 8)
        zero = (whole.maps <= 0)[:, None].expand(-1, 3, -1, -1)
        assert_close(whole.overlay(images)[zero], images[zero])
        assert_close(whole.overlay(images, alpha=0), images)

    def test_overlay_rescales_each_normalized_image_by_itself(self):
        whole, images = explanation(), torch.randn(4, 3, 6, 8)
        alone = [whole[i].overlay(images[i : i + 1]) for i in range(4)]
        assert_close(whole.overlay(images), torch.cat(alone))

    @pytest.mark.parametrize("shape", [(3, 3, 6, 8), (4, 3, 8, 6), (3, 6, 8)])
    def test_images_of_another_shape_are_refused(self, shape):
        with pytest.raises(ValueError, match="of 4 images of 6×8, got images of shape"):
            explanation().overlay(torch.zeros(shape))

    @pytest.mark.parametrize(
        ("images", "options", "error", "words"),
        [
            (torch.zeros(4, 2, 6, 8), {}, ValueError, "1 or 3 channels, got 2"),
            (np.zeros((4, 3, 6, 8)), {}, ValueError, "a picture as ndarray must be"),
            (
                torch.zeros(4, 3, 6, 8),
                {"alpha": 1.5},
                ValueError,
                r"alpha must be in \[0, 1\], got 1.5",
            ),
            (
                torch.zeros(4, 3, 6, 8),
                {"colors": "turbid"},
                ValueError,
                "no color map 'turbid'.*turbo",
            ),
        ],
    )
    def test_refused(self, images, options, error, words):
        with pytest.raises(error, match=words):
            explanation().overlay(images, **options)


class TestMaps:
    def test_maps_are_raw_maps_resized_to_the_images(self):
        whole = explanation()
        assert whole.maps.shape == (4, 6, 8)
        assert torch.equal(whole.maps, xcam.imaging.resize(whole.raw, (6, 8)))
        assert whole.maps is whole.maps
        assert torch.equal(whole.reduced, whole.raw)

    @pytest.mark.parametrize("reduce", ["sum", "abs_sum", "abs_max"])
    def test_channels_are_reduced_by_the_method_setting(self, reduce):
        raw = torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))
        whole = explanation(2, raw=raw, target=None, logits=None, method=Saliency(reduce=reduce))
        wanted = {"sum": raw.sum(1), "abs_sum": raw.abs().sum(1), "abs_max": raw.abs().amax(1)}
        assert torch.equal(whole.reduced, wanted[reduce])
        assert torch.equal(whole.maps, wanted[reduce])

    def test_indexing_and_joining_keep_the_bits_of_maps(self):
        whole = explanation(9, (31, 45))
        assert torch.equal(whole[3:5].maps, whole.maps[3:5])
        assert torch.equal(Explanation.cat(list(whole)).maps, whole.maps)


class TestOf:
    """Maps from elsewhere."""

    IMAGES = torch.zeros(2, 3, 6, 8)
    MAPS = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))

    @pytest.mark.parametrize(
        "change",
        [torch.clone, torch.Tensor.numpy, list, lambda m: [*m.numpy()], torch.Tensor.double],
    )
    def test_takes_tensors_arrays_and_sequences(self, change):
        got = Explanation.of(change(self.MAPS), self.IMAGES, 1, method="mine")
        assert torch.equal(got.raw, self.MAPS)
        assert got.raw.dtype == torch.float32
        assert got.maps.shape == (2, 6, 8)
        assert got.target.tolist() == [1, 1]
        assert got.method == SavedMethod("mine", is_foreign=True)

    def test_keeps_a_copy(self):
        maps = self.MAPS.clone()
        got = Explanation.of(maps, self.IMAGES)
        maps.zero_()
        assert torch.equal(got.raw, self.MAPS)

    def test_sums_channels(self):
        channels = torch.stack([self.MAPS, self.MAPS], 1)
        assert_close(Explanation.of(channels, self.IMAGES).reduced, 2 * self.MAPS)

    def test_explains_the_predicted_class_of_logits(self):
        logits = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
        got = Explanation.of(self.MAPS, self.IMAGES, logits=logits)
        assert got.target.tolist() == [1, 0]
        assert got.logits is not None
        assert Explanation.of(self.MAPS, self.IMAGES).target is None

    def test_copied_explanation_gets_the_same_score(self):
        net, images = GapNet(), torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        made = xcam.explain(net, images)
        copied = Explanation.of(made.raw, images, made.target, made.logits, made.method)
        metric = AverageDrop()
        assert torch.equal(metric(net, images, copied), metric(net, images, made))
        rows = metric.score(net, images, made)
        assert metric(net, images, made) == metric.finish(rows.double().mean(0))

    @pytest.mark.parametrize(
        ("maps", "options", "error", "words"),
        [
            (MAPS[:1], {}, ValueError, r"maps must be \(2, h, w\), got \(1, 3, 4\)"),
            (MAPS[0], {}, ValueError, r"must be \(2, h, w\), got \(3, 4\)"),
            (MAPS / 0, {"method": "mine"}, ValueError, "mine gave a map that is not finite"),
            ("maps", {}, TypeError, "must be a tensor of 2 maps, got a str"),
            (
                [MAPS[0], MAPS[1, :2]],
                {},
                ValueError,
                "different sizes; make an explanation of each",
            ),
            (MAPS, {"target": [0, 1, 2]}, ValueError, "one class for each of the 2 images"),
            (MAPS, {"target": 2, "logits": torch.zeros(2, 2)}, ValueError, "2 is out of range"),
            (MAPS, {"images": np.zeros((2, 3, 6, 8))}, TypeError, "must be a .* tensor, got"),
            (MAPS, {"images": "dog.png"}, TypeError, "must be a .* tensor, got str"),
        ],
    )
    def test_refused(self, maps, options, error, words):
        with pytest.raises(error, match=words):
            Explanation.of(maps, **({"images": self.IMAGES} | options))


def test_repr_is_one_line():
    assert repr(explanation()) == (
        "<Explanation of 4 images of 6×8 by GradCAM(layer='features', output='logit', "
        "relu=False, rendering=None), target [0, 1, 2, 3]>"
    )
    assert repr(explanation(1, target=None)).endswith(
        "of 6×8 by " + repr(GradCAM("features")) + ", target unknown>"
    )
    assert "target [0, 1, 2, 3, 4, 5, 6, 7, …]>" in repr(explanation(9))


def test_moves_to_a_device_or_dtype():
    whole = explanation()
    moved = whole.to(torch.float64)
    assert (moved.raw.dtype, moved.maps.dtype, moved.logits.dtype) == (torch.float64,) * 3
    assert moved.target.dtype == torch.int64
    assert torch.equal(moved.maps, whole.maps.double())
    assert whole.to("meta").target.device.type == "meta"
    assert torch.equal(whole.to("cpu").maps, whole.maps)
    with pytest.raises(TypeError, match=r"maps are floating point, got torch\.int64"):
        whole.to(torch.int64)


@pytest.mark.parametrize(
    ("place", "error", "sentence"),
    [
        (
            "nodevice",
            ValueError,
            "torch knows no device 'nodevice'; name one such as 'cpu' or 'cuda:0'",
        ),
        (
            "cpu:x",
            ValueError,
            "torch knows no device 'cpu:x'; name one such as 'cpu' or 'cuda:0'",
        ),
        (None, TypeError, "maps move to a device or a dtype, got None; name one such as 'cpu'"),
        (0.5, TypeError, "maps move to a device or a dtype, got 0.5; name one such as 'cpu'"),
    ],
)
def test_refuses_to_move_to_what_is_no_place(place, error, sentence):
    with pytest.raises(error, match=f"^{re.escape(sentence)}$"):
        explanation().to(place)
