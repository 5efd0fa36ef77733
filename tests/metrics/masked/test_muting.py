"""Maps as masks: min-max, L-CAM's muting one value after the other, what is refused."""

import math
from dataclasses import replace

import pytest
import torch
from by_hand import explained, seeded
from torch.testing import assert_close

import xcam
from xcam.errors import XcamWarning
from xcam.imaging import normalize, resize
from xcam.metrics.masked.muting import make_masks, mute
from xcam.models.toy import GapNet


def muted_by_hand(values, fraction):
    """L-CAM's procedure on a list, in place, one value after the other."""
    values, count = list(values), len(values)
    if fraction == 0:
        return values
    threshold = sorted(values)[int(fraction * count) - 1]
    values = [0.0 if value < threshold else value for value in values]
    surplus = sum(value > 0 for value in values) - math.ceil((1 - fraction) * count)
    for place, value in enumerate(values):
        if surplus > 0 and value == threshold:
            values[place] = 0.0
            surplus -= 1
    return values


class TestMute:
    @pytest.mark.parametrize(("fraction", "kept"), [(0, 50176), (0.5, 25088), (0.85, 7527)])
    @pytest.mark.parametrize("levels", [None, 1, 2, 7, 256])
    def test_counts_at_224(self, fraction, kept, levels):
        maps = seeded(2, 224, 224).clamp(min=1e-6)
        if levels:  # ties, of any number of values
            maps = (maps * levels).ceil() / levels
        left = mute(maps, fraction)
        assert (left > 0).flatten(1).sum(1).tolist() == [kept, kept]
        assert bool(((left == maps) | (left == 0)).all())
        for before, after in zip(maps, left, strict=True):
            if fraction:
                assert before[after == 0].max() <= before[after > 0].min()

    @pytest.mark.parametrize("fraction", [0, 0.01, 0.1, 0.29, 0.3, 0.5, 0.7, 0.85, 0.9, 0.999])
    @pytest.mark.parametrize("levels", [1, 3, 10, 10**6])
    def test_mute_matches_a_hand_written_loop(self, fraction, levels):
        maps = (seeded(4, 10, 10, seed=levels) * levels).floor() / levels  # with zeros, too
        left = mute(maps, fraction)
        for before, after in zip(maps, left, strict=True):
            if int(fraction * 100):
                assert after.flatten().tolist() == muted_by_hand(
                    before.flatten().tolist(), fraction
                )
            else:
                assert torch.equal(before, after)

    def test_ties_go_row_after_row(self):
        left = mute(torch.ones(1, 4, 4), 0.4)  # 6 of 16 are muted
        assert left.flatten().tolist() == [0] * 6 + [1] * 10

    def test_less_than_a_pixel_is_nothing(self):
        maps = seeded(1, 3, 3)
        assert torch.equal(mute(maps, 0.1), maps)

    def test_maps_stay_as_they_were(self):
        maps = seeded(2, 6, 6)
        before = maps.clone()
        mute(maps, 0.5)
        assert torch.equal(maps, before)


class TestMasks:
    images = torch.zeros(2, 3, 12, 10)

    def made(self):
        return xcam.explain(GapNet(), seeded(2, 3, 12, 10), 1)

    def test_before_or_after_the_resize(self):
        explanation = self.made()
        assert explanation.raw.shape[1:] == (6, 5)
        before = make_masks(explanation, self.images, "before_resize")
        after = make_masks(explanation, self.images, "after_resize")
        assert_close(before, resize(normalize(explanation.raw), (12, 10)))
        assert_close(after, normalize(resize(explanation.raw, (12, 10))))
        assert not torch.allclose(before, after, atol=1e-3)

    def test_channels_become_one_as_the_method_says(self):
        images = seeded(2, 3, 8, 8)
        signed = xcam.explain(GapNet(), images, 1, "input_x_gradient", reduce="sum")
        largest = xcam.explain(GapNet(), images, 1, "input_x_gradient", reduce="abs_max")
        assert_close(make_masks(signed, images), normalize(signed.raw.sum(1)))
        assert_close(make_masks(largest, images), normalize(largest.raw.abs().amax(1)))

    def test_none_takes_maps_as_they_are(self):
        maps = seeded(2, 12, 10)
        assert torch.equal(make_masks(explained(maps, [0, 1]), self.images, None), maps)

    def test_binary(self):
        maps = seeded(2, 12, 10)
        masks = make_masks(explained(maps, [0, 1]), self.images, muted=0.75, binary=True)
        for scores, mask in zip(maps, masks, strict=True):
            assert mask.unique().tolist() == [0, 1]
            assert set(mask.flatten().nonzero().flatten().tolist()) == set(
                scores.flatten().topk(30).indices.tolist()
            )

    @pytest.mark.parametrize("normalize", ["before_resize", "after_resize"])
    def test_flat_map_hides_everything_and_is_noted(self, normalize):
        maps = seeded(2, 12, 10)
        maps[1] = 0.4
        with pytest.warns(XcamWarning, match="^image 1: the map is flat, as a mask it hides every"):
            masks = make_masks(explained(maps, [0, 1]), self.images, normalize)
        assert not masks[1].any()

    @pytest.mark.parametrize("value", [-0.1, 1.1, float("inf")])
    def test_refuses_what_is_no_mask(self, value):
        maps = torch.rand(2, 12, 10)
        maps[1, 3, 3] = value
        with pytest.raises(ValueError, match=r"image 1( is not finite|; set normalize='after)"):
            make_masks(explained(maps, [0, 1]), self.images, None)

    def test_refuses_raw_maps_that_are_not_finite(self):
        explanation = explained(seeded(2, 12, 10), [0, 1])
        broken = explanation.raw.clone()
        broken[1, 0, 0] = float("nan")
        with pytest.raises(ValueError, match="image 1 is not finite"):
            make_masks(replace(explanation, raw=broken), self.images)

    def test_follow_raw_maps_that_were_replaced(self):
        mine = seeded(2, 12, 10, seed=5)
        replaced = replace(self.made(), raw=mine)
        assert torch.equal(make_masks(replaced, self.images), normalize(mine))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"muted": 1.0}, r"muted must be a finite number in \[0, 1\), .*got 1.0"),
        ({"muted": -0.1}, r"muted must be a finite number in \[0, 1\), .*got -0.1"),
        ({"muted": "half"}, r"muted must be a finite number in \[0, 1\), .*got 'half'"),
        ({"normalize": "minmax"}, "'before_resize', 'after_resize' or None, got 'minmax'"),
        ({"fill": "black"}, "fill must be 'zero', 'mean', 'blur' or a tensor, got 'black'"),
        ({"space": "model"}, "space must be 'input' or 'normalized', got 'model'"),
        ({"binary": 1}, "binary must be True or False, got 1"),
    ],
)
def test_settings_are_refused(settings, sentence):
    for name in ("average_drop", "masked_accuracy"):
        with pytest.raises((TypeError, ValueError), match=f"^{name}: .*{sentence}$"):
            xcam.get_metric(name)(**settings)
