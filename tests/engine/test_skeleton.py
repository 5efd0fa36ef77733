"""Shapes on the meta device, found without torch's decompositions."""

import pytest
import torch
import torchvision
from torch import nn

from xcam.engine.skeleton import ShapeInference, skeleton
from xcam.engine.trace import output_tensors, record_pass


class Many(nn.Module):
    """Every operation that is shortened, on images and on sequences, in place and not."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.tracking = nn.BatchNorm2d(8, track_running_stats=False)
        self.acts = nn.Sequential(
            nn.Hardswish(inplace=True), nn.SiLU(), nn.Hardsigmoid(), nn.SiLU(inplace=True),
            nn.Mish(), nn.Hardswish(), nn.Sigmoid(), nn.ReLU6(), nn.ReLU(inplace=True), nn.ReLU(),
        )  # fmt: skip
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.last = nn.Sequential(nn.LayerNorm((9, 8)), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 4))

    def forward(self, images):
        tokens = self.acts(self.tracking(self.norm(self.conv(images)))).flatten(2).mT
        mixed = nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
        return self.last(mixed + self.attend(tokens, tokens, tokens)[0]).mean(1)


def describe(net, images):
    def shape(tensor):
        steps = zip(tensor.shape, tensor.stride(), strict=True)
        return tensor.shape, tensor.dtype, [step for size, step in steps if size > 1]

    calls = record_pass(net, images).calls
    return [(call.name, [*map(shape, output_tensors(call.output))]) for call in calls]


@pytest.mark.parametrize(
    ("make", "side"), [(Many, 5), (lambda: torchvision.models.mobilenet_v3_small(), 64)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_are_those_of_a_real_pass(make, side, dtype):
    net, images = make().eval().to(dtype), torch.rand(1, 3, side, side, dtype=dtype)
    with torch.no_grad():
        real = describe(net, images)
    empty = skeleton(net)
    with ShapeInference():
        probe = images.to("meta").requires_grad_()
        assert describe(empty, probe.clone()) == real
        assert empty(probe.clone()).requires_grad


def test_tensors_elsewhere_are_computed():
    values = torch.linspace(-3, 3, 7)
    with ShapeInference():
        found = nn.functional.silu(values), nn.functional.hardswish(values.clone(), inplace=True)
    expected = values * values.sigmoid(), values * (values + 3).clamp(0, 6) / 6
    torch.testing.assert_close(found, expected)
