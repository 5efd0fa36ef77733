"""Mosaics: which tiles they take, where the mask lies, and that Focus finds it."""

import pytest
import torch
from torch.utils.data import TensorDataset

import xcam
from xcam.data import mosaics, relabel

LABELS = torch.tensor([0, 0, 0, 1, 1, 2, 2, 3])
IMAGES = torch.arange(8.0)[:, None, None, None].expand(-1, 3, 4, 5) / 8  # each of one gray


class Pictures(TensorDataset):
    def __init__(self):
        super().__init__(IMAGES, LABELS)


def tiles(picture):
    """The four tiles of (…, 8, 10), one value each."""
    corners = picture[..., ::4, ::5]
    assert picture.equal(corners.repeat_interleave(4, -2).repeat_interleave(5, -1))
    return corners


def test_two_tiles_are_of_the_class_and_the_mask_is_on_them():
    found = mosaics(Pictures(), 30)
    assert len(found) == 30
    for image, label, mask in found:
        numbers = (tiles(image)[0] * 8).long()
        assert len(numbers.unique()) == 4
        assert (LABELS[numbers] == label).equal(tiles(mask))
        assert tiles(mask).sum() == 2
    assert [label for _, label, _ in found][:4] == [0, 1, 2, 0]  # class 3 has one image
    assert len({tuple(tiles(mask).flatten().tolist()) for _, _, mask in found}) == 6


def test_items_depend_on_settings_and_index_alone():
    first, again, other = (
        mosaics(Pictures(), 9),
        mosaics(Pictures(), 5),
        mosaics(Pictures(), 9, seed=1),
    )
    assert first[4][0].equal(again[4][0])
    assert first[-1][0].equal(first[8][0])
    assert not all(first[i][0].equal(other[i][0]) for i in range(9))


def test_labels_are_given_or_those_of_the_data():
    swapped = LABELS + 4
    by_hand = mosaics(Pictures(), 6, labels=swapped)
    relabeled = mosaics(relabel(Pictures(), swapped), 6)
    assert [item[1] for item in by_hand] == [item[1] for item in relabeled] == [4, 5, 6] * 2


def test_map_on_the_tiles_has_focus_one():
    image, label, mask = mosaics(Pictures(), 3)[1]
    explanation = xcam.Explanation.of(mask[None].float(), image[None], label)
    score = xcam.get_metric("focus")().score(None, image[None], explanation, mask[None])
    assert score.item() == 1


def test_bad_input():
    with pytest.raises(ValueError, match="labels must be one int for each of 8 images, got"):
        mosaics(Pictures(), 3, labels=[1, 2])
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        mosaics(Pictures(), 0)
    with pytest.raises(ValueError, match="takes two images of one class and two of others, got 8"):
        mosaics(Pictures(), 3, labels=[1] * 8)
    with pytest.raises(IndexError, match="index 3 is out of range for 3 mosaics"):
        mosaics(Pictures(), 3)[3]
    mixed = [(torch.zeros(1, 4, 4 + i), i // 2) for i in range(4)]
    with pytest.raises(ValueError, match="tiles must be images of one size, got"):
        mosaics(mixed, 1)[0]
