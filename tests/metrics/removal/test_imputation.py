"""Linear imputation: single pixels by hand, any hole against SciPy's direct solution."""

import numpy as np
import pytest
import torch
from by_hand import seeded
from scipy import sparse
from scipy.sparse.linalg import spsolve
from torch.testing import assert_close

from xcam.imaging import resize
from xcam.metrics.removal.imputation import impute

NEIGHBOURS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]


def removed_at(size, *places):
    mask = torch.zeros(1, *size, dtype=torch.bool)
    for row, column in places:
        mask[0, row, column] = True
    return mask


def solved(image, removed):
    """The image (C, H, W) with its removed pixels solved for at once, in double precision."""
    image, removed = image.double().numpy().copy(), removed.numpy()
    number = np.full(removed.shape, -1)
    number[removed] = np.arange(removed.sum())
    count = int(removed.sum())
    rows, columns = np.nonzero(removed)
    right, diagonal = np.zeros((count, len(image))), np.zeros(count)
    system = sparse.csc_matrix((count, count))
    for dy, dx in NEIGHBOURS:
        weight = 1 / 12 if dy and dx else 1 / 6
        y, x = rows + dy, columns + dx
        own = np.nonzero((y >= 0) & (y < removed.shape[0]) & (x >= 0) & (x < removed.shape[1]))[0]
        other, values = number[y[own], x[own]], image[:, y[own], x[own]].T
        diagonal[own] += weight
        right[own] += weight * np.where(other[:, None] < 0, values, 0)
        pair = own[other >= 0], other[other >= 0]
        system -= sparse.csc_matrix((np.full(len(pair[0]), weight), pair), (count, count))
    solution = spsolve((system + sparse.diags(diagonal)).tocsc(), right)
    image[:, removed] = solution.reshape(-1, len(image)).T
    return torch.from_numpy(image)


def blobs(size, share, seed=0):
    """A mask that removes a share of the pixels in a few large holes."""
    low = resize(seeded(1, 5, 5, seed=seed), size)
    return low < low.flatten().quantile(share)


def test_inner_pixel_becomes_the_weighted_mean_of_its_neighbors():
    images = seeded(1, 3, 5, 6)
    found = impute(images, removed_at((5, 6), (2, 3)))
    around = images[0, :, 1:4, 2:5]
    edges = around[:, [0, 1, 1, 2], [1, 0, 2, 1]].sum(1) / 6
    corners = around[:, [0, 0, 2, 2], [0, 2, 0, 2]].sum(1) / 12
    assert_close(found[0, :, 2, 3], edges + corners, atol=1e-5, rtol=0)
    found[0, :, 2, 3] = images[0, :, 2, 3]
    assert found.equal(images)


def test_corner_pixel_has_three_neighbors_and_border_pixel_five():
    images = seeded(1, 2, 5, 6)
    x = images[0]
    corner = impute(images, removed_at((5, 6), (0, 5)))[0, :, 0, 5]
    expected = ((x[:, 0, 4] + x[:, 1, 5]) / 6 + x[:, 1, 4] / 12) / (5 / 12)
    assert_close(corner, expected, atol=1e-5, rtol=0)
    border = impute(images, removed_at((5, 6), (4, 2)))[0, :, 4, 2]
    edges = (x[:, 4, 1] + x[:, 4, 3] + x[:, 3, 2]) / 6
    expected = (edges + (x[:, 3, 1] + x[:, 3, 3]) / 12) / (2 / 3)
    assert_close(border, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(1, 2), (3, 3), (8, 8), (37, 20), (16, 90)])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.97])
def test_holes_of_any_kind_as_a_direct_solver(size, share):
    images = seeded(2, 3, *size)
    scattered = seeded(1, *size, seed=1) < share
    holes = torch.cat([scattered, blobs(size, share)])
    holes[:, 0, 0] = False
    found = impute(images, holes)
    for row in range(2):
        assert_close(found[row].double(), solved(images[row], holes[row]), atol=5e-5, rtol=0)


def test_nine_tenths_of_a_photograph_removed(photographs):
    holes = torch.cat([blobs((224, 224), 0.9), seeded(1, 224, 224) < 0.9])
    found = impute(photographs[:2], holes)
    for row in range(2):
        expected = solved(photographs[row], holes[row])
        assert_close(found[row].double(), expected, atol=5e-5, rtol=0)


def test_small_tolerance_is_reached_in_double_precision():
    images, hole = seeded(1, 3, 30, 30, dtype=torch.float64), blobs((30, 30), 0.9)
    found = impute(images, hole, tolerance=1e-12)
    assert found.dtype == torch.float64
    assert_close(found[0], solved(images[0], hole[0]), atol=1e-10, rtol=0)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e20])
def test_units_and_offset_of_the_images_do_not_matter(scale):
    images, hole = seeded(1, 3, 30, 30), blobs((30, 30), 0.9)
    expected = impute(images, hole)
    assert_close(impute(scale * images, hole) / scale, expected, atol=1e-5, rtol=0)
    assert_close(impute(images + 100, hole) - 100, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_images_of_half_precision_are_solved_in_single(dtype):
    images, hole = seeded(1, 3, 30, 30).to(dtype), blobs((30, 30), 0.9)
    found = impute(images, hole)
    assert found.dtype == dtype
    assert found.equal(torch.where(hole[:, None], impute(images.float(), hole).to(dtype), images))


def test_fully_removed_image_becomes_its_mean_color():
    images = seeded(2, 3, 9, 7)
    removed = torch.stack([torch.ones(9, 7), torch.zeros(9, 7)]).bool()
    found = impute(images, removed)
    assert_close(found[0], images[0].mean((1, 2), keepdim=True).expand(3, 9, 7))
    assert found[1].equal(images[1])
    one = torch.ones(1, 1, 1, 1)
    assert impute(one, torch.ones(1, 1, 1, dtype=torch.bool)).equal(one)


def test_single_kept_pixel_gives_its_color_to_the_whole_image():
    images = seeded(1, 3, 64, 64)
    removed = torch.ones(1, 64, 64, dtype=torch.bool)
    removed[0, 10, 50] = False
    expected = images[:, :, 10:11, 50:51].expand(1, 3, 64, 64)
    assert_close(impute(images, removed), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("tolerance", [1e-5, 1e-3])
def test_image_is_independent_of_the_convergence_of_others(tolerance):
    """At a coarse tolerance going on with a row that has converged would move it visibly."""
    images = seeded(3, 3, 40, 40)
    easy, hard = seeded(1, 40, 40) < 0.05, blobs((40, 40), 0.98)
    all_gone = torch.ones(1, 40, 40, dtype=torch.bool)
    masks = torch.cat([easy, hard, all_gone])
    together = impute(images, masks, tolerance)
    for row in range(3):
        alone = impute(images[row : row + 1], masks[row : row + 1], tolerance)
        assert_close(together[row : row + 1], alone, atol=1e-6, rtol=0)


def test_no_convergence_is_an_error():
    with pytest.raises(RuntimeError, match="larger tolerance"):
        impute(seeded(1, 3, 30, 30), blobs((30, 30), 0.9), tolerance=0.0)
    images = seeded(1, 3, 30, 30)
    images[0, 0, 0, 0] = torch.nan
    with pytest.raises(RuntimeError, match="did not converge"):
        impute(images, removed_at((30, 30), (0, 1)))
