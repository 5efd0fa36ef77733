"""RISE against scikit-image's masks, a sum by hand, and its exact expectation."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import xcam
from xcam import imaging
from xcam.core import Target
from xcam.engine.masking import blend
from xcam.methods import RISE
from xcam.methods.perturbation.grid_masks import GridMasks
from xcam.models.toy import GapNet, LinearNet


def pictures(count=2, size=12, seed=0):
    return torch.rand(count, 3, size, size + 3, generator=torch.Generator().manual_seed(seed))


def by_skimage(grid, size, offset):
    """The mask of a grid, cropped at a pixel offset: the authors' construction."""
    from skimage.transform import resize

    cells = len(grid)
    cell = [-(-side // cells) for side in size]
    canvas = [(cells + 1) * side for side in cell]
    large = resize(grid, canvas, order=1, mode="reflect", anti_aliasing=False)
    return large[offset[0] : offset[0] + size[0], offset[1] : offset[1] + size[1]]


@pytest.mark.parametrize(
    ("cells", "size"), [(7, (224, 224)), (8, (224, 224)), (10, (33, 47)), (2, (8, 11)), (7, (5, 6))]
)
def test_masks_are_those_of_scikit_image(cells, size):
    grids = np.random.default_rng(0).random((3, cells, cells)).round().astype(np.float32)
    cell = [-(-side // cells) for side in size]
    offsets = [(0, 0), (cell[0] - 1, cell[1] - 1), (cell[0] // 2, cell[1] // 3)]
    fractions = torch.tensor([[(dy + 0.5) / cell[0], (dx + 0.5) / cell[1]] for dy, dx in offsets])
    masks = GridMasks(torch.from_numpy(grids), fractions, size)
    expected = [by_skimage(g, size, offset) for g, offset in zip(grids, offsets, strict=True)]
    assert len(masks) == 3
    np.testing.assert_allclose(masks[0:3].numpy(), np.stack(expected), atol=1e-6)


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_every_pixel_is_seen_as_often(probability):
    masks = RISE(n_masks=4000, probability=probability).draw(torch.zeros(1, 3, 32, 32))[0:4000]
    error = (masks.mean(0) - probability).abs().max()
    assert error < 5 * (probability * (1 - probability) / 4000) ** 0.5
    assert masks.min() >= 0
    assert masks.max() <= 1 + 1e-6


def test_offsets_reach_every_pixel_of_a_cell():
    ramp = torch.zeros(1000, 2, 2)
    ramp[:, :, 1] = 1
    offsets = torch.rand(1000, 2, generator=torch.Generator().manual_seed(0))
    starts = GridMasks(ramp, offsets, (8, 8))[0:1000][:, 0].unique(dim=0)
    assert len(starts) == 4


def test_fewer_masks_of_a_seed_are_the_first_of_more():
    few, many = (RISE(n_masks=n).draw(pictures()) for n in (5, 50))
    assert torch.equal(few[0:5], many[0:5])
    assert not torch.equal(RISE(n_masks=5, seed=1).draw(pictures())[0:5], few[0:5])


@pytest.mark.parametrize("probability", [0.5, 0.1])
def test_balanced_turns_each_cell_on_as_often(probability):
    method = RISE(n_masks=125, probability=probability, sampling="balanced")
    grids = method.draw(pictures()).grids
    assert (grids.sum(0) == round(125 * probability)).all()
    assert len(grids.flatten(1).unique(dim=0)) > 100
    iid = RISE(n_masks=125, probability=probability).draw(pictures()).grids
    assert (iid.sum(0) != round(125 * probability)).any()


@pytest.mark.parametrize(("n_masks", "probability"), [(1, 0.5), (1, 0.9), (4, 0.1), (4, 0.9)])
def test_too_few_masks_to_balance_are_refused(n_masks, probability):
    with pytest.raises(ValueError, match=f"of {n_masks} masks, which hides all cells or none"):
        RISE(n_masks=n_masks, probability=probability, sampling="balanced")
    RISE(n_masks=n_masks, probability=probability)
    RISE(n_masks=10, probability=probability, sampling="balanced")


def test_plain_is_the_published_sum():
    net, images, classes = GapNet(), pictures(3), [2, 0, 4]
    method = RISE(cells=3, n_masks=20, probability=0.4)
    masks = method.draw(images)[0:20]
    expected = torch.zeros(3, 12, 15)
    for i, mask in itertools.product(range(3), masks):
        with torch.no_grad():
            seen = net(images[i][None] * mask).softmax(1)[0, classes[i]]
        expected[i] += seen * mask / (20 * 0.4)
    for batch_size in (1, 2, 7, None):
        maps = xcam.explain(net, images, classes, method, batch_size=batch_size).maps
        torch.testing.assert_close(maps, expected, rtol=1e-5, atol=1e-6)


@pytest.fixture
def linear():
    """A linear net, an image, and every mask of 2 × 2 cells: 16 grids at 16 offsets."""
    net, image = LinearNet((1, 8, 8)), torch.rand(1, 1, 8, 8, generator=torch.Generator())
    grids = torch.tensor([*itertools.product((0.0, 1.0), repeat=4)]).view(16, 2, 2)
    offsets = [((dy + 0.5) / 4, (dx + 0.5) / 4) for dy in range(4) for dx in range(4)]
    masks = GridMasks(
        grids.repeat(16, 1, 1), torch.tensor(offsets).repeat_interleave(16, 0), (8, 8)
    )
    return net, image, masks


def expectation(net, image, target, p):
    """E[f M]/p and Cov(f, M)/(p(1 − p)) of f = w·(x ⊙ M) + b, from E[M] and Cov(M)."""
    basis = np.eye(4, dtype=np.float64).reshape(4, 2, 2)
    covariance = np.zeros((64, 64))
    for offset in itertools.product(range(4), repeat=2):
        columns = np.stack([by_skimage(b, (8, 8), offset).ravel() for b in basis], 1)
        covariance += columns @ columns.T * p * (1 - p) / 16
    slope = (net.fc.weight[target].detach() * image.flatten()).double().numpy()
    covaried = covariance @ slope
    mean = slope.sum() * p + net.fc.bias[target].item()
    return (covaried + mean * p) / p, covaried / (p * (1 - p))


def test_over_all_masks_it_is_the_exact_expectation(linear):
    net, image, masks = linear
    target = Target.of(1, image)
    target.bind(net(image))
    for estimator, expected in zip(
        ("plain", "centered"), expectation(net, image, 1, 0.5), strict=True
    ):
        method = RISE(output="logit", estimator=estimator)
        found = method.estimate(method.scores(net, image, target, masks), masks)
        np.testing.assert_allclose(found.detach().flatten(), expected, atol=1e-5)


@pytest.mark.parametrize("sampling", ["iid", "balanced"])
def test_both_estimators_converge_to_the_expectation(linear, sampling):
    net, image, _ = linear
    settings = {"cells": 2, "n_masks": 30000, "probability": 0.3, "output": "logit"}
    for estimator, expected in zip(
        ("plain", "centered"), expectation(net, image, 1, 0.3), strict=True
    ):
        method = RISE(**settings, sampling=sampling, estimator=estimator)
        maps = xcam.explain(net, image, 1, method).maps.flatten().numpy()
        # Five standard errors of a mean of 30000 terms about as large as the map.
        assert abs(maps - expected).max() < 5 * abs(expected).max() / 0.3 / 30000**0.5


def test_centered_estimator_removes_the_noise_of_coverage():
    """A score that never changes: the plain map is all noise, the centred one nothing."""
    net, images = GapNet(), pictures(1)
    nn.init.zeros_(net.fc.weight)
    plain = xcam.explain(net, images, 0, RISE(n_masks=100)).maps
    centered = xcam.explain(net, images, 0, RISE(n_masks=100, estimator="centered")).maps
    assert plain.std() > 1e-3
    assert centered.abs().max() < 1e-6


def test_map_depends_on_the_seed_and_not_on_the_batch():
    net, images = GapNet(), pictures(3)
    method = RISE(n_masks=50)
    maps = xcam.explain(net, images, method=method, batch_size=4).maps
    alone = [xcam.explain(net, images[i : i + 1], method=method).maps for i in range(3)]
    spread = maps.amax((1, 2)) - maps.amin((1, 2))
    assert ((maps - torch.cat(alone)).abs().amax((1, 2)) < 1e-5 * spread).all()
    assert torch.equal(maps, xcam.explain(net, images, method=method, batch_size=4).maps)
    other = xcam.explain(net, images, method=RISE(n_masks=50, seed=1)).maps
    assert (other - maps).abs().amax() > 1e-3 * spread.max()


def test_callable_target_gives_the_maps_of_its_classes():
    net, images = GapNet(), pictures(2)
    by_class = xcam.explain(net, images, [1, 3], RISE(n_masks=20))

    def probability(output, rows):
        return output.softmax(1)[torch.arange(len(rows)), torch.tensor([1, 3])[rows]]

    by_callable = xcam.explain(net, images, probability, RISE(n_masks=20))
    torch.testing.assert_close(by_callable.maps, by_class.maps)


class Watching(nn.Module):
    """Keeps what it is shown."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        self.seen.append(images.detach().clone())
        return images.flatten(1)[:, :4]


def test_model_gets_the_filled_images_in_batches():
    net, images = Watching().eval(), pictures(2)
    method = RISE(n_masks=9, fill=torch.tensor([0.1, 0.2, 0.3]))
    xcam.explain(net, images, 0, method, batch_size=4)
    assert [len(seen) for seen in net.seen] == [2, 4, 4, 4, 4, 2]
    masks = method.draw(images)[0:9][:, None]
    fill = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)
    expected = [images[i] * mask + fill * (1 - mask) for mask in masks for i in (0, 1)]
    torch.testing.assert_close(torch.cat(net.seen[1:]), torch.stack(expected))


def test_memory_backs_off_without_counting_twice():
    class Small(GapNet):
        def forward(self, images):
            if len(images) > 3:
                raise torch.OutOfMemoryError("more than three")
            return super().forward(images)

    method, images = RISE(n_masks=20), pictures(2)
    expected = xcam.explain(GapNet(), images, 0, method).maps
    torch.testing.assert_close(xcam.explain(Small(), images, 0, method).maps, expected)


@pytest.mark.parametrize(
    ("fill", "expected"),
    [
        ("zero", lambda x: torch.zeros_like(x)),
        ("mean", lambda x: x.mean((2, 3), keepdim=True).expand_as(x)),
        ("blur", lambda x: imaging.blur(x, 15 / 20)),
        (torch.tensor(0.5), lambda x: torch.full_like(x, 0.5)),
        (torch.arange(3.0), lambda x: torch.arange(3.0).view(1, 3, 1, 1).expand_as(x)),
        (torch.ones(1, 3, 1, 1), torch.ones_like),
        (pictures(1, seed=5)[0], lambda x: pictures(1, seed=5).expand_as(x)),
    ],
    ids=["zero", "mean", "blur", "scalar", "color", "colour-4d", "picture"],
)
def test_fills(fill, expected):
    images = pictures(2)
    torch.testing.assert_close(imaging.make_fill(images, fill), expected(images))
    hidden = blend(images, torch.zeros(1, 12, 15), fill)
    torch.testing.assert_close(hidden, expected(images))
    assert torch.equal(blend(images, torch.ones(1, 12, 15), fill), images)


@pytest.mark.parametrize("shape", [(2,), (2, 3, 12, 15), (3, 12), (3, 6, 6), (1, 1, 3, 1, 1)])
def test_fill_tensors_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match=r"fill tensor must be .*\(3, 12, 15\).* got"):
        imaging.make_fill(pictures(2), torch.zeros(shape))


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("cells", 1, ValueError),
        ("probability", 0.0, ValueError),
        ("probability", 1.0, ValueError),
        ("n_masks", 0, ValueError),
        ("estimator", "best", ValueError),
        ("sampling", "sobol", ValueError),
        ("fill", "black", ValueError),
        ("fill", 0, TypeError),
    ],
)
def test_bad_fields_are_refused(field, value, error):
    with pytest.raises(error, match=f"{field} must .*got {value!r}"):
        RISE(**{field: value})


def test_memory_does_not_grow_with_the_masks(monkeypatch):
    """No more masks exist at a time than go through the model."""
    made = []
    make = GridMasks.__getitem__
    monkeypatch.setattr(
        GridMasks, "__getitem__", lambda self, part: made.append(make(self, part)) or made[-1]
    )
    monkeypatch.setattr("xcam.methods.perturbation.rise.default_batch_size", lambda like: 6)
    monkeypatch.setattr("xcam.engine.chunks.choose_batch_size", lambda *_: 6)
    xcam.explain(GapNet(), pictures(2), 0, RISE(n_masks=40))
    assert max(len(masks) for masks in made) <= 6
