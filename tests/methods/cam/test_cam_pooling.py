"""CAM: the linear layer behind global average pooling, found and checked."""

import pytest
import torch
from torch import nn

import xcam
from xcam.errors import LayerError, UnknownNameError
from xcam.methods import CAM
from xcam.models.toy import GapNet, SmallCNN

TARGETS = [0, 3, 1, 4]


@pytest.fixture(scope="module")
def images():
    return torch.randn(4, 3, 16, 24, generator=torch.Generator().manual_seed(5))


def raw(net, images, method, target=TARGETS):
    return xcam.explain(net, images, target, method).raw


def test_cam_averages_to_the_logit_without_its_bias(images):
    net = GapNet()
    e = xcam.explain(net, images, TARGETS, "cam")
    logit = e.logits[range(4), TARGETS] - net.fc.bias[TARGETS]
    torch.testing.assert_close(e.raw.mean((1, 2)), logit.detach(), rtol=1e-5, atol=1e-5)


def test_cam_of_a_callable_weighs_by_its_slope(images):
    net = GapNet()
    contrast = xcam.explain(net, images, lambda output, rows: output[:, 2] - output[:, 0], "cam")
    classes = [raw(net, images, CAM(), target=c) for c in (2, 0)]
    torch.testing.assert_close(contrast.raw, classes[0] - classes[1], rtol=1e-4, atol=1e-5)


def test_cam_finds_the_classifier_beside_other_linear_layers(images):
    class Crowded(GapNet):
        """An auxiliary head before the classifier, a gate behind it, and a softmax inside."""

        def __init__(self):
            super().__init__()
            self.head = nn.Sequential(nn.Flatten(), nn.Dropout(), self.fc, nn.Softmax(1))
            self.auxiliary, self.gate = nn.Linear(12, 5), nn.Linear(12, 12)

        def forward(self, images):
            means = self.features(images).mean((2, 3), keepdim=True)
            unused = self.auxiliary(means.flatten(1)).sum()
            return self.head(means) + 0 * (unused + self.gate(means.flatten(1)).sum())

    net = Crowded().eval()
    torch.testing.assert_close(raw(net, images, CAM()), raw(GapNet(), images, CAM()))
    torch.testing.assert_close(raw(net, images, CAM(classifier="fc")), raw(net, images, CAM()))


class Gated(GapNet):
    """Nearly global average pooling: one channel's mean is halved."""

    def forward(self, images):
        means = self.features(images).mean((2, 3))
        return self.fc(means * torch.tensor([1.0] * 11 + [0.5]))


@pytest.mark.parametrize(
    ("net", "method", "error", "sentence"),
    [
        (SmallCNN(), CAM(), LayerError, "use gradcam"),
        (Gated(), CAM(), LayerError, "12 channels' means; use gradcam"),
        (GapNet(), CAM(layer="features.0"), LayerError, "8 channels' means; use gradcam"),
        (GapNet(), CAM(layer="features.2"), LayerError, "no linear layer with 5 outputs"),
        (GapNet(), CAM(classifier="features.0"), LayerError, "must be an nn.Linear, got Conv2d"),
        (GapNet(), CAM(classifier="fd"), UnknownNameError, "no layer 'fd'"),
    ],
)
def test_cam_refuses_other_nets(images, net, method, error, sentence):
    with pytest.raises(error, match=sentence):
        xcam.explain(net, images, 0, method)
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_cam_refuses_other_nets_of_any_output(images):
    class Maps(GapNet):
        def forward(self, images):
            return self.features(images)

    sentence = "and no linear layer reads its 8 channels' means"
    with pytest.raises(LayerError, match=sentence):
        xcam.explain(Maps(), images, lambda output, rows: output.mean((1, 2, 3)), CAM("features.0"))
