"""Superpixels: a plain loop, flat pictures, borders of colour, exact sums."""

import numpy as np
import pytest
import torch
from by_hand import seeded
from torch.testing import assert_close

from xcam.imaging.superpixels import (
    compute_segment_means,
    divide_into_grid,
    segment_by_slic,
)


def by_loop(image, count, compactness):
    """SLIC of one picture (C, H, W), pixel by pixel, in double precision."""
    image = image.double().numpy()
    image = (image - image.min()) / (image.max() - image.min())
    _, height, width = image.shape
    start, (rows, columns) = divide_into_grid((height, width), count)
    start, side = start.numpy(), (height * width / count) ** 0.5
    y, x = np.mgrid[:height, :width]
    features = np.concatenate([image, compactness / side * np.stack([y, x])])
    labels = start.copy()
    for _ in range(10):
        centres = {k: features[:, labels == k].mean(1) for k in np.unique(labels)}
        for i in range(height):
            for j in range(width):
                row, column = divmod(start[i, j], columns)
                near = [
                    (row + dy) * columns + column + dx
                    for dy in (-1, 0, 1)
                    for dx in (-1, 0, 1)
                    if 0 <= row + dy < rows and 0 <= column + dx < columns
                ]
                distances = {
                    k: ((features[:, i, j] - centres[k]) ** 2).sum() for k in near if k in centres
                }
                labels[i, j] = min(distances, key=distances.get)
    return torch.from_numpy(labels)


@pytest.mark.parametrize(("count", "compactness"), [(4, 0.3), (12, 0.3), (9, 2.0), (40, 0.01)])
def test_slic_matches_a_plain_loop(count, compactness):
    images = seeded(2, 3, 16, 21)
    found = segment_by_slic(images, count, compactness)
    for image, labels in zip(images, found, strict=True):
        assert labels.equal(by_loop(image, count, compactness))
    assert count != 40 or len(found[0].unique()) == 40  # of the grid's 42, two run empty


def test_flat_image_keeps_the_grid():
    cells, _ = divide_into_grid((20, 30), 6)
    assert segment_by_slic(torch.full((1, 3, 20, 30), 0.4), 6, 0.1)[0].equal(cells)


def test_segments_follow_color_borders():
    images = torch.zeros(1, 3, 32, 32)
    images[0, 0, 11:, :] = 1
    images[0, 1, :, 21:] = 1
    color = images[0, 0] + 2 * images[0, 1]
    labels = segment_by_slic(images, 16, 0.1)[0]
    for label in labels.unique():
        assert len(color[labels == label].unique()) == 1
    assert len(color[divide_into_grid((32, 32), 16)[0] == 5].unique()) > 1


def test_segments_are_independent_of_the_other_images():
    images = seeded(3, 3, 24, 24)
    together = segment_by_slic(images, 9, 0.1)
    assert together[1:2].equal(segment_by_slic(images[1:2], 9, 0.1))
    assert together.min() >= 0
    assert together.max() < 9
    assert segment_by_slic(5 * images - 2, 9, 0.1).eq(together).float().mean() > 0.99


@pytest.mark.parametrize(
    ("size", "count", "shape"),
    [((8, 8), 4, (2, 2)), ((30, 20), 6, (3, 2)), ((4, 4), 100, (4, 4)), ((1, 9), 3, (1, 5))],
)
def test_grid_has_about_the_requested_number_of_cells(size, count, shape):
    labels, found = divide_into_grid(size, count)
    assert found == shape
    assert labels.unique().tolist() == list(range(shape[0] * shape[1]))
    sizes = labels.flatten().bincount()
    assert sizes.max() <= 4 * sizes.min()


def test_means_are_those_of_a_loop_and_the_same_in_any_order():
    values, labels = seeded(2, 3, 9, 8, seed=1) - 0.4, (seeded(2, 9, 8) * 5).long()
    labels[1][labels[1] == 2] = 3
    means, sizes = compute_segment_means(values, labels, 5)
    for row in range(2):
        for k in range(5):
            inside = labels[row] == k
            assert sizes[row, k] == inside.sum()
            expected = values[row][:, inside].mean(1) if inside.any() else torch.zeros(3)
            assert_close(means[row, :, k], expected, atol=1e-6, rtol=0)
    backwards = compute_segment_means(values.flip(2, 3), labels.flip(1, 2), 5)[0]
    assert backwards.equal(means)
