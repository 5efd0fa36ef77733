"""Non-sensitivity: where the model reads is known."""

import pytest
import torch
from by_hand import explained, seeded
from nets import unchanged

from xcam.engine.forward import run_settings
from xcam.engine.shared import share_passes
from xcam.metrics import NonSensitivity
from xcam.models.toy import LinearNet

IMAGES = seeded(2, 3, 8, 8)
NET = LinearNet((3, 8, 8))
NET.fc.weight.data.view(5, 3, 8, 8)[:, :, :, :3] = 0  # reads columns 3 to 7 alone
PIXELS = NonSensitivity(n_segments=64, n_samples=2)


def maps_without(*columns):
    maps = seeded(2, 8, 8, seed=1) + 0.1
    maps[:, :, list(columns)] = 0
    return maps


def scores(metric, maps, net=NET):
    with unchanged(net, IMAGES, maps):
        return metric.score(net, IMAGES, explained(maps, [3, 1])).tolist()


def test_share_of_pixels_that_map_and_model_see_otherwise():
    for columns, share in [((0, 1, 2), 0), ((0, 1), 1 / 8), ((), 3 / 8), ((2, 3), 3 / 8)]:
        assert scores(PIXELS, maps_without(*columns)) == pytest.approx([share] * 2)
    assert scores(PIXELS, -maps_without(0, 1, 2)) == [0, 0]
    assert scores(PIXELS, torch.zeros(2, 8, 8)) == pytest.approx([5 / 8] * 2)


def test_cell_is_relevant_if_any_of_its_pixels_is():
    four = NonSensitivity(n_segments=4, n_samples=2)  # columns 0 to 3, and 4 to 7
    assert scores(four, maps_without(0, 1, 2)) == [0, 0]
    assert scores(four, maps_without(0, 1, 2, 3)) == pytest.approx([0.5] * 2)


def test_model_that_reads_nothing():
    blind = LinearNet((3, 8, 8))
    torch.nn.init.zeros_(blind.fc.weight)
    assert scores(PIXELS, torch.zeros(2, 8, 8), blind) == [0, 0]
    assert scores(PIXELS, maps_without(0), blind) == pytest.approx([7 / 8] * 2)


def test_several_maps_share_their_passes():
    seen = []
    with (
        NET.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0]))),
        share_passes(IMAGES),
    ):
        for columns in [(0,), (1,)]:
            PIXELS.score(NET, IMAGES, explained(maps_without(*columns), [3, 1]))
    assert sum(seen) == 2 * (2 * 64 + 1)


def test_image_of_one_value_is_noted():
    images = IMAGES.clone()
    images[1] = torch.tensor([0.2, 0.5, 0.7])[:, None, None]
    with run_settings() as runtime:
        found = PIXELS.score(NET, images, explained(maps_without(0, 1, 2), [3, 1]))
    assert found.tolist() == pytest.approx([0, 5 / 8])
    assert runtime.notes == ["image 1: its values are all the same, none was drawn that differs"]
