"""What is removed: exact counts, order, ties, and what replaces it."""

import numpy as np
import pytest
import torch
from retrainings import SIDE, Bright, ramp

from xcam._roar.images import PlainImages
from xcam._roar.removal import MaskedImages, Ranking, Removal

PIXELS = SIDE * SIDE
IMAGES = PlainImages.open(Bright(), "train")


def removal(**changes):
    defaults = {"unit": "pixel", "fill": "zero", "rank": "signed", "rounds_up": False, "seed": 0}
    return Removal(**defaults | changes)


def masked(maps, count, mode="remove", images=IMAGES, mean=0.0, **changes):
    rule = removal(**changes)
    ranking = Ranking(rule, images, lambda indices: maps[torch.as_tensor(indices)])
    return MaskedImages(images, rule, torch.full((3, 1, 1), mean), ranking, mode, count)


def stack(data):
    return torch.stack([image for image, _ in data.load_batch(range(len(data)))])


class TestCounts:
    # The thresholds of White Box: it keeps int(n · (1 − r)) elements when it removes r of n.
    @pytest.mark.parametrize(
        ("elements", "kept"),
        [
            (784, [705, 627, 548, 470, 392, 313, 235, 156, 78]),
            (3072, [2764, 2457, 2150, 1843, 1536, 1228, 921, 614, 307]),
        ],
    )
    def test_white_box(self, elements, kept):
        rule = removal(rounds_up=True)
        counts = [rule.count(tenth / 10, elements) for tenth in range(1, 10)]
        assert [elements - count for count in counts] == kept

    @pytest.mark.parametrize("percent", [10, 30, 50, 70, 90])
    def test_paper(self, percent):
        assert removal().count(percent / 100, 150528) == int(percent * 150528 // 100)

    def test_ends(self):
        for rounds_up in (False, True):
            rule = removal(rounds_up=rounds_up)
            assert [rule.count(end, 784) for end in (0.0, 1.0)] == [0, 784]


class TestMasks:
    @pytest.mark.parametrize("count", [1, 19, 63])
    def test_highest_pixels_are_removed_or_kept(self, count):
        maps = ramp(IMAGES.load(range(20)), (), None)
        first = torch.arange(PIXELS).view(SIDE, SIDE) < count
        for mode, hidden in (("remove", first), ("keep", ~first)):
            images = stack(masked(maps, count, mode))
            assert torch.equal((images == 0).all(1), hidden.expand(20, -1, -1))
            whole = IMAGES.load(range(20))
            assert torch.equal(images[:, :, ~hidden], whole[:, :, ~hidden])

    def test_signed_and_absolute_ranks(self):
        maps = ramp(IMAGES.load(range(20)), (), None) - 40.5  # from 23.5 to -39.5
        for rank, hidden in (("signed", 0), ("abs", PIXELS - 1), ("square", PIXELS - 1)):
            images = stack(masked(maps, 1, rank=rank)).flatten(2)
            assert (images == 0).any(1).nonzero()[:, 1].tolist() == [hidden] * 20

    def test_elements_have_counts_of_their_own(self):
        generator = torch.Generator().manual_seed(0)
        maps = torch.randn(20, 3, SIDE, SIDE, generator=generator)
        images = stack(masked(maps, 50, unit="element"))
        ranked = maps.flatten(1).argsort(1, descending=True)
        expected = torch.zeros(20, 3 * PIXELS, dtype=torch.bool).scatter(1, ranked[:, :50], True)
        assert torch.equal(images.flatten(1) == 0, expected)

    @pytest.mark.parametrize("unit", ["pixel", "element"])
    def test_equal_values_are_removed_in_exact_numbers_at_random(self, unit):
        flat = torch.ones(20, 2, 2)
        images = stack(masked(flat, 21, unit=unit))
        gone = (images == 0).flatten(1) if unit == "element" else (images == 0).all(1).flatten(1)
        assert gone.sum(1).tolist() == [21] * 20
        assert len({tuple(row.tolist()) for row in gone}) == 20  # not the same in all images
        assert torch.equal(images, stack(masked(flat, 21, unit=unit)))
        assert not torch.equal(images, stack(masked(flat, 21, unit=unit, seed=1)))

    def test_maps_are_resized_to_the_images(self):
        small = torch.tensor([[4.0, 1.0], [1.0, 0.0]]).expand(20, -1, -1)
        gone = (stack(masked(small, 9)) == 0).all(1)
        assert gone[:, :3, :3].all()

    def test_blurred_maps_rank_otherwise(self):
        maps = torch.zeros(20, SIDE, SIDE)
        maps[:, 2, 2], maps[:, 5:8, 5:8] = 2.0, 1.0
        highest = [
            int(Ranking(removal(), IMAGES, lambda i: maps[list(i)], sigma).load([0]).argmin())
            for sigma in (0.0, 2.0)
        ]
        assert highest[0] == 2 * SIDE + 2
        assert highest[1] >= 5 * SIDE + 5


class TestFills:
    MAPS = ramp(IMAGES.load(range(20)), (), None)

    def test_channel_mean_is_of_the_training_images(self):
        expected = Bright().images.mean((0, 2, 3))
        torch.testing.assert_close(IMAGES.compute_channel_mean().flatten(), expected)
        images = stack(masked(self.MAPS, 5, fill="channel_mean", mean=0.4))
        assert (images.flatten(2)[:, :, :5] == 0.4).all()

    @pytest.mark.parametrize("unit", ["pixel", "element"])
    def test_linear_solves_for_the_weighted_mean_of_the_neighbors(self, unit):
        generator = torch.Generator().manual_seed(0)
        shape = (20, 3, SIDE, SIDE) if unit == "element" else (20, SIDE, SIDE)
        maps = torch.rand(shape, generator=generator)
        images = stack(masked(maps, 30, fill="linear", unit=unit))
        for index in range(3):
            cut = maps[index].flatten().topk(30)[0][-1]
            gone = (maps[index] >= cut).expand(3, SIDE, SIDE)
            for channel in range(3):
                whole = IMAGES.load([index])[0, channel].double().numpy()
                expected = solve(whole, gone[channel].numpy())
                np.testing.assert_allclose(images[index, channel], expected, atol=1e-5)


def solve(image, gone):
    """Rong et al. (2022): each is the mean of its neighbors, 1/6 beside it, 1/12 at corners."""
    places = [tuple(place) for place in np.argwhere(gone)]
    matrix, known, filled = np.eye(len(places)), np.zeros(len(places)), image.copy()
    for row, (y, x) in enumerate(places):
        near = {
            (y + dy, x + dx): 1 / 12 if dy and dx else 1 / 6
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
            if (dy or dx) and 0 <= y + dy < SIDE and 0 <= x + dx < SIDE
        }
        for place, weight in near.items():
            share = weight / sum(near.values())
            if place in places:
                matrix[row, places.index(place)] -= share
            else:
                known[row] += share * image[place]
    for place, value in zip(places, np.linalg.solve(matrix, known), strict=True):
        filled[place] = value
    return filled


class TestTransforms:
    def test_masks_act_before_the_transform(self):
        shifted = Bright(transform=lambda image: image.roll(1, dims=2))
        images = PlainImages.open(shifted, "train")
        data = masked(TestFills.MAPS, 3, images=images)
        assert data.load_batch is None
        image, label = data[1]
        assert label == 1
        assert (image[:, 0, 1:4] == 0).all()
        assert torch.equal(image[:, 1:], shifted.images[1].roll(1, dims=2)[:, 1:])

    def test_bytes_and_pictures_come_back_as_they_were(self):
        from PIL import Image

        seen = []

        class Pictures(Bright):
            def __getitem__(self, index):
                values = (self.images[index] * 255).byte().movedim(0, -1).numpy()
                return self.transform(Image.fromarray(values)), self.labels[index]

        images = PlainImages.open(Pictures(transform=lambda p: seen.append(p) or p), "train")
        masked(TestFills.MAPS, 3, images=images)[0]
        (picture,) = seen
        values = np.asarray(picture)
        assert picture.mode == "RGB"
        assert (values.reshape(-1, 3)[:3] == 0).all()
        assert np.array_equal(
            values.reshape(-1, 3)[3:], (images.load([0])[0].flatten(1).T * 255)[3:].round()
        )

    def test_items_and_batches_are_equal(self):
        data = masked(TestFills.MAPS, 10, fill="channel_mean", mean=0.3)
        for index in (0, 7):
            assert torch.equal(data[index][0], stack(data)[index])

    def test_more_than_fits_into_memory_is_computed_each_time(self, monkeypatch):
        whole = stack(masked(TestFills.MAPS, 10))
        monkeypatch.setattr("xcam._roar.images.CACHED_VALUES", 0)
        monkeypatch.setattr("xcam._roar.removal.CACHED_VALUES", 0)
        images = PlainImages.open(Bright(), "train")
        assert images.pixels is None
        assert torch.equal(stack(masked(TestFills.MAPS, 10, images=images)), whole)
