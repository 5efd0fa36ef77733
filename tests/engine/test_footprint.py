"""The largest layer of a net, found without running it."""

import pytest
import torch
from torch import nn

import xcam
from xcam.engine.chunks import choose_batch_size
from xcam.engine.footprint import measure_footprint
from xcam.engine.forward import current_runtime
from xcam.models.toy import SmallCNN


def test_largest_output_of_a_layer_is_counted():
    net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 3, stride=2))
    assert measure_footprint(net, torch.zeros(9, 3, 20, 10)) == 16 * 20 * 10 * 4
    assert measure_footprint(net.double(), torch.zeros(1, 3, 20, 10).double()) == 16 * 20 * 10 * 8
    net.float()
    assert measure_footprint(nn.DataParallel(net), torch.zeros(1, 3, 4, 4)) == 16 * 4 * 4 * 4


def test_net_that_needs_values_has_no_footprint():
    class Reading(SmallCNN):
        def forward(self, images):
            return super().forward(images * float(images.mean()))

    images = torch.rand(2, 3, 16, 16)
    assert measure_footprint(Reading(), images) is None
    assert xcam.explain(Reading(), images, 1, "rise", n_masks=8).raw.shape == (2, 16, 16)


@pytest.mark.parametrize("side", [16, 64])
def test_chunks_of_a_call_follow_the_largest_layer(side):
    net, images = SmallCNN(), torch.rand(1, 3, side, side)
    sizes = []
    net.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    xcam.explain(net, images, 1, "rise", n_masks=300)
    real = [size for size in sizes if size > 1]
    assert max(real) == min(64, 20_000_000 // measure_footprint(net, images))


def test_chunks_of_a_metric_follow_the_largest_layer():
    net, images = SmallCNN(), torch.rand(3, 3, 64, 64)
    explanation = xcam.Explanation.of(torch.rand(3, 64, 64), images, 1)
    sizes = []
    net.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    xcam.get_metric("deletion")()(net, images, explanation)
    expected = min(64, 20_000_000 // measure_footprint(net, images))
    assert max(sizes) == expected > choose_batch_size(99, images, current_runtime())
