"""`Explanation`: choosing images, joining, pictures."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import xcam
from xcam import Explanation
from xcam.core.explanation import notes_on
from xcam.errors import XcamWarning
from xcam.methods import GradCAM

FLAT, NEGATIVE = "the map is flat, it points nowhere", "no value is positive, nothing speaks"


def explanation(count=4, size=(6, 8), warnings=(), **changes):
    generator = torch.Generator().manual_seed(count)
    maps = torch.randn(count, *size, generator=generator)
    values = {
        "maps": maps,
        "raw": torch.randn(count, 3, 4, generator=generator),
        "target": torch.arange(count),
        "logits": torch.randn(count, 5, generator=generator),
        "method": GradCAM("features"),
    } | changes
    return Explanation(**values, warnings=(*warnings, *notes_on(values["maps"])))


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
        maps = explanation().maps
        maps[1] = 0.3
        maps[2] = -maps[2].abs()
        return explanation(maps=maps, warnings=("layer 'x' is called 2 times",))

    def test_numbers(self):
        general, flat, negative = self.whole().warnings
        assert general == "layer 'x' is called 2 times"
        assert flat == f"image 1: {FLAT}"
        assert negative.startswith(f"image 2: {NEGATIVE}")

    def test_numbers_of_a_part(self):
        assert self.whole()[0].warnings == ("layer 'x' is called 2 times",)
        assert self.whole()[1].warnings[1:] == (f"image 0: {FLAT}",)
        assert self.whole()[[2, 0, 1]].warnings[1:] == (
            f"image 0: {NEGATIVE} for the target",
            f"image 2: {FLAT}",
        )

    def test_numbers_of_a_whole(self):
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
        maps = xcam.imaging.resize(torch.full((1, *size), value), (224, 160))
        assert notes_on(maps) == [f"image 0: {FLAT}"]
        assert xcam.imaging.normalize(maps).abs().max() == 0

    def test_nearly_flat_is_not_flat(self):
        maps = torch.full((1, 4, 4), 0.1)
        maps[0, 2, 2] += 1e-5
        assert notes_on(maps) == []
        assert xcam.imaging.normalize(maps).max() == 1


class TestCat:
    def test_joins(self):
        first, second = explanation(2), explanation(3)
        whole = Explanation.cat([first, second])
        assert len(whole) == 5
        for name in ("maps", "raw", "target", "logits"):
            assert_close(
                getattr(whole, name), torch.cat([getattr(first, name), getattr(second, name)])
            )

    def test_what_one_part_lacks_the_whole_lacks(self):
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
    def test_is_the_formula(self):
        whole = explanation()
        positive = whole.maps.clamp(min=0)
        assert_close(whole.normalized(), positive / positive.amax((1, 2), keepdim=True))
        low, high = whole.maps.amin((1, 2), keepdim=True), whole.maps.amax((1, 2), keepdim=True)
        assert_close(whole.normalized(relu=False), (whole.maps - low) / (high - low))

    def test_each_map_alone(self):
        whole = explanation()
        assert torch.equal(whole.normalized()[2:3], whole[2].normalized())

    @pytest.mark.parametrize("relu", [True, False])
    def test_flat(self, relu):
        with pytest.warns(XcamWarning, match=f"image 0: {FLAT}"):
            got = explanation(1, maps=torch.full((1, 6, 8), 0.7)).normalized(relu)
        assert torch.equal(got, torch.zeros(1, 6, 8))

    def test_negative_everywhere(self):
        maps = -explanation().maps.abs() - 0.1
        with pytest.warns(XcamWarning, match=NEGATIVE):
            got = explanation(maps=maps).normalized()
        assert torch.equal(got, torch.zeros_like(maps))
        assert explanation(maps=maps).normalized(relu=False).max() == 1  # without a warning

    def test_leaves_the_maps(self):
        whole = explanation()
        before = whole.maps.clone()
        whole.normalized()
        assert torch.equal(whole.maps, before)


class TestOverlay:
    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize(("scale", "shift"), [(1, 0), (4, -2), (255, 0), (0, 5)])
    def test_any_image(self, channels, scale, shift):
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

    def test_normalised_images_are_stretched_one_by_one(self):
        whole, images = explanation(), torch.randn(4, 3, 6, 8)
        alone = [whole[i].overlay(images[i : i + 1]) for i in range(4)]
        assert_close(whole.overlay(images), torch.cat(alone))

    @pytest.mark.parametrize("shape", [(3, 3, 6, 8), (4, 3, 8, 6), (3, 6, 8)])
    def test_other_images(self, shape):
        with pytest.raises(ValueError, match="of 4 images of 6×8, got images of shape"):
            explanation().overlay(torch.zeros(shape))

    @pytest.mark.parametrize(
        ("images", "options", "error", "words"),
        [
            (torch.zeros(4, 2, 6, 8), {}, ValueError, "1 or 3 channels, got 2"),
            (np.zeros((4, 3, 6, 8)), {}, TypeError, "must be a torch tensor, got ndarray"),
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
                "no colour map 'turbid'.*turbo",
            ),
        ],
    )
    def test_refused(self, images, options, error, words):
        with pytest.raises(error, match=words):
            explanation().overlay(images, **options)
