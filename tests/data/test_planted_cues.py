"""Planted cues: masks are exact, the cue alone has the class, items depend on their index alone."""

import math

import pytest
import torch
from torch.utils.data import DataLoader

from xcam.data import planted_cues
from xcam.data.planted.silhouettes import SILHOUETTES, draw_blob
from xcam.data.planted.textures import PALETTE, PATTERNS

MODES = ["shape", "texture", "color"]
BLACK, WHITE = torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64)


def items(**settings):
    return list(planted_cues(**settings))


def equal(one, other):
    return torch.equal(one[0], other[0]) and one[1] == other[1] and torch.equal(one[2], other[2])


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


class TestItems:
    @pytest.mark.parametrize("size", [32, 64, (48, 80)])
    def test_shapes_and_ranges(self, mode, size):
        sides = (size, size) if isinstance(size, int) else size
        for image, label, mask in items(count=12, size=size, num_classes=5, mode=mode):
            assert image.shape == (3, *sides)
            assert image.dtype == torch.float32
            assert 0 <= image.min() < image.max() <= 1
            assert type(label) is int
            assert 0 <= label < 5
            assert mask.shape == sides
            assert mask.dtype == torch.bool
            assert 0.01 < mask.float().mean() < 0.15

    def test_labels_take_turns(self, mode):
        labels = torch.tensor([label for _, label, _ in items(count=24, num_classes=6, mode=mode)])
        assert (labels.bincount() == 4).all()

    def test_item_depends_only_on_seed_and_index(self, mode):
        few, many = planted_cues(4, mode=mode), planted_cues(9, mode=mode)
        backwards = [many[index] for index in (3, 2, 1, 0)][::-1]
        assert all(equal(few[index], backwards[index]) for index in range(4))
        assert equal(many[-1], many[8])
        torch.manual_seed(7)
        assert equal(planted_cues(4, mode=mode)[2], few[2])
        assert not torch.equal(planted_cues(4, mode=mode, seed=1)[2][0], few[2][0])

    def test_global_random_state_is_unchanged(self, mode):
        before = torch.get_rng_state()
        planted_cues(1, mode=mode)[0]
        assert torch.equal(torch.get_rng_state(), before)

    def test_neighboring_seeds_share_no_images(self):
        first, second = items(count=6, seed=0), items(count=6, seed=1)
        for image, _, _ in first:
            assert not any(torch.equal(image, other) for other, _, _ in second)

    def test_past_the_end(self):
        data = planted_cues(2, cues=2)
        assert len(data) == len(list(data)) == 4
        for index in (4, -5):
            with pytest.raises(IndexError, match=f"index {index} is out of range for 4 items"):
                data[index]

    def test_batches(self, mode):
        loader = DataLoader(planted_cues(6, mode=mode), batch_size=3, num_workers=1)
        for images, labels, masks in loader:
            assert images.shape == (3, 3, 64, 64)
            assert labels.dtype == torch.int64
            assert masks.shape == (3, 64, 64)


class TestMasks:
    def test_mask_covers_exactly_the_pixels_of_the_cue(self, mode):
        """On black and on white backgrounds, the mask has exactly the object's pixels."""
        settings = {"count": 8, "mode": mode, "distractors": 0}
        pairs = zip(
            items(background=BLACK, **settings), items(background=WHITE, **settings), strict=True
        )
        for (dark, _, mask), (bright, _, same) in pairs:
            assert torch.equal(mask, same)
            assert torch.equal((dark == bright).all(0), mask)

    def test_objects_do_not_touch(self, mode):
        for dark, bright in zip(
            items(count=8, mode=mode, background=BLACK, cues=2),
            items(count=8, mode=mode, background=WHITE, cues=2),
            strict=True,
        ):
            objects, mask = (dark[0] == bright[0]).all(0), dark[2]
            grown = torch.nn.functional.max_pool2d(mask[None].float(), 3, 1, 1)[0] > 0
            assert torch.equal(grown & objects, mask)
            assert (objects & ~mask).any()

    def test_no_object_is_cut_off(self):
        for _, _, mask in items(count=40, mode="texture"):
            top, bottom = (int(end) for end in mask.any(1).nonzero().aminmax())
            left, right = (int(end) for end in mask.any(0).nonzero().aminmax())
            disc = mask[top : bottom + 1, left : right + 1]
            assert torch.equal(disc, disc.T)
            assert torch.equal(disc, disc.flip(0))

    def test_places_are_random(self, mode):
        total = sum(mask.float() for _, _, mask in items(count=60, mode=mode))
        quarters = total.view(2, 32, 2, 32).sum((1, 3))
        assert (quarters / quarters.sum()).min() > 0.15

    def test_diameters_keep_to_the_extent(self):
        for _, _, mask in items(count=20, mode="texture", extent=(0.2, 0.3)):
            across = mask.any(0).sum()
            assert 0.2 * 64 - 1 <= across <= 0.3 * 64 + 1


class TestTwoCues:
    def test_each_image_is_there_twice_with_another_label(self, mode):
        data = planted_cues(10, mode=mode, cues=2)
        assert data.ids == [f"{index // 2:06d}" for index in range(20)]
        for index in range(0, 20, 2):
            (one, first, mask), (same, second, other) = data[index], data[index + 1]
            assert torch.equal(one, same)
            assert first != second
            assert not (mask & other).any()

    def test_cues_may_be_as_many_as_classes(self):
        labels = [label for _, label, _ in items(count=2, num_classes=3, cues=3, extent=(0.2, 0.3))]
        assert sorted(labels[:3]) == sorted(labels[3:]) == [0, 1, 2]

    def test_ids_of_single_cues(self):
        assert planted_cues(3).ids == ["000000", "000001", "000002"]


class TestClasses:
    @pytest.mark.parametrize("mode", ["texture", "color"])
    def test_nothing_but_the_inside_tells_the_class(self, mode):
        """Another number of classes changes nothing but the inside of the cue."""
        for index in range(6):
            masks, rests = [], []
            for classes in (2, 3, 5):
                image, _, mask = planted_cues(6, num_classes=classes, mode=mode)[index]
                masks.append(mask)
                rests.append(image.masked_fill(mask, 0))
            assert all(torch.equal(mask, masks[0]) for mask in masks)
            assert all(torch.equal(rest, rests[0]) for rest in rests)

    @pytest.mark.parametrize("paint", [None, torch.tensor([[0.9, 0.1, 0.2], [0.1, 0.8, 0.3]])])
    @pytest.mark.parametrize("mode", ["texture", "color"])
    def test_distractors_are_of_no_class(self, mode, paint):
        """Each has one tone: a gray, or the mean of the two tones of a pattern."""
        settings = {"count": 12, "num_classes": 2, "mode": mode, "distractors": 1, "colors": paint}
        grays = set()
        for (dark, _, mask), (bright, _, _) in zip(
            items(background=BLACK, **settings), items(background=WHITE, **settings), strict=True
        ):
            others = (dark == bright).all(0) & ~mask
            tone = dark[:, others].unique(dim=1)
            assert tone.shape == (3, 1)
            if mode == "color":
                assert tone.unique().numel() == 1
                grays.add(float(tone[0]))
            else:
                middle = 0.625 * (PALETTE if paint is None else paint)
                assert ((middle - tone[:, 0]).abs() < 1e-6).all(1).any()
        assert mode == "texture" or (len(grays) == 12 and 0.2 <= min(grays) <= max(grays) <= 0.8)

    def test_silhouettes_are_rotated(self):
        settings = {
            "count": 16,
            "size": 96,
            "num_classes": 2,
            "distractors": 0,
            "extent": (0.5, 0.5),
        }
        tilts = []
        for _, label, mask in items(**settings):
            if label == 1:  # triangles: their lower corners tell how far they are turned
                (y, x) = (mask.nonzero()[:, axis].float() for axis in (0, 1))
                left, right = x.argmin(), x.argmax()
                tilts.append(float(torch.atan2(y[right] - y[left], x[right] - x[left]).rad2deg()))
        assert -15 < min(tilts) < -4
        assert 4 < max(tilts) < 15

    def test_silhouettes_differ(self):
        y, x = torch.meshgrid(*[torch.linspace(-1, 1, 33)] * 2, indexing="ij")
        drawn = torch.stack([figure(x, y) for figure in SILHOUETTES.values()]).float().flatten(1)
        union = drawn[:, None].maximum(drawn).sum(2)
        overlap = drawn @ drawn.T / union - 2 * torch.eye(len(drawn))
        assert overlap.max() < 0.8
        assert len(SILHOUETTES) >= 20

    @pytest.mark.parametrize("name", SILHOUETTES)
    def test_silhouettes_fill_their_disc(self, name):
        y, x = torch.meshgrid(*[torch.linspace(-1.2, 1.2, 65)] * 2, indexing="ij")
        drawn = SILHOUETTES[name](x, y)
        assert torch.hypot(x, y)[drawn].max() <= 1.01
        assert torch.hypot(x, y)[drawn].max() > 0.85
        assert 0.2 < float(drawn.sum() / (torch.hypot(x, y) <= 1).sum()) <= 1

    def test_blobs_differ_from_silhouettes(self):
        y, x = torch.meshgrid(*[torch.linspace(-1, 1, 33)] * 2, indexing="ij")
        first, second = (draw_blob(x, y, torch.Generator().manual_seed(seed)) for seed in (0, 1))
        assert not torch.equal(first, second)
        for figure in SILHOUETTES.values():
            drawn = figure(x, y)
            assert (first & drawn).sum() / (first | drawn).sum() < 0.8

    def test_stars_have_their_corners(self):
        """A tip is at radius 1 straight up, an inner corner at `depth` half a step further."""
        star = SILHOUETTES["star"]
        for radius, inside in ((0.99, True), (1.01, False)):
            assert bool(star(torch.tensor(0.0), torch.tensor(-radius))) is inside
        angle = math.pi / 5
        for radius, inside in ((0.37, True), (0.39, False)):
            x, y = radius * math.sin(angle), -radius * math.cos(angle)
            assert bool(star(torch.tensor(x), torch.tensor(y))) is inside

    def test_patterns_differ_and_are_two_tones(self):
        y, x = torch.meshgrid(*[torch.linspace(-1, 1, 65)] * 2, indexing="ij")
        drawn = torch.stack([pattern(x, y) for pattern in PATTERNS]).float().flatten(1)
        assert 0.15 < drawn.mean(1).min() < drawn.mean(1).max() < 0.85
        alike = torch.corrcoef(drawn).abs() - 2 * torch.eye(len(drawn))
        assert alike.max() < 0.6
        assert len(PATTERNS) >= 20

    def test_colors(self):
        paint = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
        for image, label, mask in items(count=6, num_classes=3, mode="color", colors=paint):
            assert (image[:, mask] == paint[label][:, None]).all()
        for image, _, mask in items(count=6, num_classes=3, mode="shape", colors=paint[:1]):
            assert (image[:, mask] == paint[0][:, None]).all()
        distances = torch.cdist(PALETTE, PALETTE) + 9 * torch.eye(len(PALETTE))
        assert distances.min() > 0.2


class TestBackground:
    def test_noise_has_structure_at_every_scale(self):
        image = planted_cues(1, distractors=0, extent=(0.1, 0.1))[0][0]
        fine = (image[:, 1:] - image[:, :-1]).abs().mean()
        coarse = (image[:, 16:] - image[:, :-16]).abs().mean()
        assert 0.003 < fine < 0.1
        assert coarse > 2 * fine

    def test_real_textures_are_cropped(self):
        ramp = torch.linspace(0, 1, 100).expand(2, 3, 80, 100)
        data = planted_cues(20, background=ramp, distractors=0, extent=(0.1, 0.1))
        steps = [
            (image[0, :, 1:] - image[0, :, :-1])[mask.logical_not()[:, 1:]].median()
            for image, _, mask in data
        ]
        assert {round(abs(float(step)) * 99, 3) for step in steps} == {1.0}
        assert {bool(step > 0) for step in steps} == {True, False}
        assert len({float(image[0].min()) for image, _, _ in data}) > 3


class TestRefusals:
    @pytest.mark.parametrize(
        ("settings", "sentence"),
        [
            ({"count": 0}, "count must be at least 1 in mode 'shape', got 0"),
            ({"size": 31}, r"size must be at least 32 pixels a side, got \(31, 31\)"),
            ({"mode": "smell"}, "mode must be 'shape', 'texture' or 'color', got 'smell'"),
            ({"num_classes": 25}, "num_classes must be in 2 to 24 in mode 'shape', got 25"),
            ({"num_classes": 1}, "num_classes must be in 2 to 24 in mode 'shape', got 1"),
            (
                {"mode": "color", "num_classes": 4, "colors": torch.rand(3, 3)},
                "num_classes must be in 2 to 3 in mode 'color', got 4",
            ),
            ({"cues": 9}, "cues must be in 1 to 8 in mode 'shape', got 9"),
            ({"distractors": -1}, "distractors must be at least 0"),
            ({"distractors": 9}, "10 objects of up to 35% of the shorter side would cover 96%"),
            (
                {"size": 32, "distractors": 48, "extent": (0.1, 0.1)},
                r"49 objects of 10% .* found no place in 50 layouts of 32×32 pixels: take fewer",
            ),
            ({"seed": -1}, "seed must be at least 0"),
            ({"extent": (0.5, 0.4)}, r"extent must be .* got \(0.5, 0.4\)"),
            ({"colors": torch.rand(3)}, r"colors must be \(K, 3\), got \(3,\)"),
            ({"colors": 2 * torch.ones(3, 3)}, r"colors must lie in \[0, 1\]"),
            ({"background": "sky"}, "background must be 'noise' or a tensor .* got 'sky'"),
            ({"background": torch.rand(3, 80, 80)}, r"must be \(N, 3, h, w\), got \(3, 80, 80\)"),
            ({"background": torch.rand(1, 3, 80, 50)}, "of 80×50 are smaller than .* 64×64"),
            ({"background": 2 * WHITE}, r"floating point in \[0, 1\], got torch.float32 in \[2, 2"),
        ],
    )
    def test_bad_setting_is_refused(self, settings, sentence):
        with pytest.raises(ValueError, match=sentence):
            planted_cues(**{"count": 4, **settings})

    @pytest.mark.parametrize(("cues", "distractors"), [(1, 3), (2, 2), (4, 0)])
    def test_largest_allowed_number_of_objects_fits_into_an_image(self, cues, distractors):
        assert len(items(count=10, cues=cues, distractors=distractors)) == 10 * cues

    @pytest.mark.parametrize("sides", [32, 64, (32, 200)])
    @pytest.mark.parametrize("across", [0.1, 0.2, 0.5])
    def test_what_is_not_refused_can_be_drawn(self, sides, across):
        """Up to the largest accepted number of distractors, in images with their own layouts."""
        drawn = 0
        for distractors in (0, 1, 2, 4, 8, 16, 32):
            try:
                data = planted_cues(4, size=sides, distractors=distractors, extent=(across,) * 2)
            except ValueError:
                break
            drawn += len(list(data))
        assert drawn >= 8
