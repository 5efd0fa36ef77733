"""CAM: the linear layer behind global average pooling, found and checked."""

import pytest
import torch
import torch.nn.functional as F
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


class Head(GapNet):
    """Any head behind global average pooling."""

    def __init__(self, head):
        super().__init__()
        self.head = head.eval()

    def forward(self, images):
        return self.head(self.features(images).mean((2, 3)))


class LoRA(nn.Module):
    def __init__(self):
        super().__init__()
        self.base_layer, self.down, self.up = nn.Linear(12, 5), nn.Linear(12, 2), nn.Linear(2, 5)

    def forward(self, means):
        return self.base_layer(means) + 0.7 * self.up(self.down(means))


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(12, 5) for _ in range(3))

    def forward(self, means):
        return torch.stack([head(means) for head in self.heads]).mean(0)


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.logit_scale = nn.Linear(12, 5), nn.Parameter(torch.tensor(1.3))

    def forward(self, means):
        return self.fc(means) * self.logit_scale.exp()


class Gate(nn.Module):
    """Fixed shares of the means: one channel's is halved."""

    def forward(self, means):
        return means * torch.tensor([1.0] * 11 + [0.5])


class Cosine(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(12, 5, bias=False)

    def forward(self, means):
        return 10 * F.normalize(means) @ F.normalize(self.fc.weight).T


class Excited(nn.Module):
    """A gate that depends on the means, as of squeeze and excitation."""

    def __init__(self):
        super().__init__()
        self.gate, self.fc = nn.Linear(12, 12), nn.Linear(12, 5)

    def forward(self, means):
        return self.fc(means * self.gate(means).sigmoid())


class Lateral(nn.Module):
    """A linear layer whose output is only a part of the logits."""

    def __init__(self):
        super().__init__()
        self.fc, self.hidden, self.out = nn.Linear(12, 5), nn.Linear(12, 6), nn.Linear(6, 5)

    def forward(self, means):
        return self.fc(means) + self.out(self.hidden(means).relu())


class Squared(nn.Module):
    def forward(self, scores):
        return scores.square()


def norm(width):
    layer = nn.BatchNorm1d(width)
    layer.running_mean.uniform_(-0.5, 0.5)
    layer.running_var.uniform_(0.5, 2)
    nn.init.uniform_(layer.weight, 0.5, 2)
    return layer


def mlp(activation, bias=True):
    return nn.Sequential(nn.Linear(12, 5, bias=bias), activation, nn.Linear(5, 5, bias=bias))


EXACT = {
    "linear": lambda: nn.Linear(12, 5),
    "lora": LoRA,
    "several heads": Several,
    "scaled": Scaled,
    "gate": lambda: nn.Sequential(Gate(), nn.Linear(12, 5)),
    "norm before": lambda: nn.Sequential(norm(12), nn.Dropout(), nn.Linear(12, 5)),
    "norm behind": lambda: nn.Sequential(nn.Dropout(), nn.Linear(12, 5), norm(5)),
    "bottleneck": lambda: nn.Sequential(nn.Linear(12, 3), nn.Linear(3, 5, bias=False)),
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (12, 1, 1)), nn.Conv2d(12, 5, 1)
    ),  # (B, K, 1, 1)
}
NOT_AFFINE = {
    "mlp": lambda: mlp(nn.ReLU()),
    "mlp without bias": lambda: mlp(nn.ReLU(), bias=False),
    "odd mlp without bias": lambda: mlp(nn.Tanh(), bias=False),
    "gelu": lambda: mlp(nn.GELU()),
    "leaky": lambda: mlp(nn.LeakyReLU(), bias=False),
    "norm of each image": lambda: nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 5)),
    "cosine": Cosine,
    "excitation": Excited,
    "lateral": Lateral,
    "squares": lambda: nn.Sequential(nn.Linear(12, 5), Squared()),
}


def build(kinds, name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Head(kinds[name]()).eval()


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("name", EXACT)
def test_cam_of_any_affine_head_averages_to_the_logit_without_its_bias(images, name, count):
    net, images = build(EXACT, name), images[:count]
    e = xcam.explain(net, images, TARGETS[:count], "cam", layer="features")
    with torch.no_grad():
        bias = net.head(torch.zeros(1, 12)).flatten()[TARGETS[:count]]
        logit = net(images).flatten(1)[range(count), TARGETS[:count]] - bias
    torch.testing.assert_close(e.raw.mean((1, 2)), logit, rtol=1e-4, atol=1e-5)
    gradcam = xcam.explain(net, images, TARGETS[:count], layer="features").raw
    torch.testing.assert_close(e.raw, gradcam * gradcam[0].numel(), rtol=1e-3, atol=1e-4)
    assert not e.warnings


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("name", NOT_AFFINE)
def test_cam_refuses_heads_that_are_not_affine_and_its_remedy_applies(images, name, count):
    net = build(NOT_AFFINE, name)
    with pytest.raises(LayerError, match="behind layer 'features' are not; use gradcam"):
        xcam.explain(net, images[:count], 1, "cam", layer="features")
    assert xcam.explain(net, images[:count], 1, "gradcam", layer="features").raw.abs().max() > 0


def test_cam_reads_a_convolution_before_the_pooling(images):
    """W mean(A) + b = mean(W A + b)."""

    class Convolutional(GapNet):
        def forward(self, images):
            weight = self.fc.weight[:, :, None, None]
            return F.conv2d(self.features(images), weight, self.fc.bias).mean((2, 3))

    got = raw(Convolutional(), images, CAM("features"))
    torch.testing.assert_close(got, raw(GapNet(), images, CAM("features")), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pool", ["amax", "std", "quarter", "square"])
def test_cam_refuses_other_pooling(images, pool):
    class Pooling(GapNet):
        def forward(self, images):
            features = self.features(images)
            pooled = {
                "amax": features.amax((2, 3)),
                "std": features.std((2, 3)),
                "quarter": features[:, :, :4, :4].mean((2, 3)),  # affine, but not in the means
                "square": features.square().mean((2, 3)),
            }
            return self.fc(pooled[pool])

    with pytest.raises(LayerError, match="use gradcam"):
        raw(Pooling(), images, CAM("features"))


class TwoHeads(GapNet):
    """Two heads in a dict, of which no one is the logits."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            self.other = nn.Linear(12, 3)
            self.last = nn.Linear(12, 4)

    def forward(self, images):
        means = self.features(images).mean((2, 3))
        return {"fc": self.fc(means), "other": self.other(means), "last": self.last(means)}


@pytest.mark.parametrize("classifier", [None, "fc"])
def test_callable_reads_one_of_several_heads(images, classifier):
    method = CAM("features", classifier=classifier)
    got = raw(TwoHeads(), images, method, lambda output, rows: output["fc"][:, 2])
    torch.testing.assert_close(got, raw(GapNet(), images, CAM("features"), 2), rtol=1e-4, atol=1e-5)


def test_callable_of_a_head_that_is_not_affine_is_refused(images):
    def target(output, rows):
        return output[:, 0]

    with pytest.raises(LayerError, match="use gradcam"):
        raw(build(NOT_AFFINE, "mlp"), images, CAM("features"), target)
    expected = raw(build(EXACT, "lora"), images, CAM("features"), 0)
    got = raw(build(EXACT, "lora"), images, CAM("features"), target)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("squash", [nn.Softmax(1), nn.LogSoftmax(1), nn.Sigmoid()])
@pytest.mark.parametrize("scale", [1, 60])  # where a softmax or sigmoid saturates, too
def test_map_is_of_what_the_softmax_is_taken_of(images, squash, scale):
    class Squashed(Head):
        def __init__(self):
            super().__init__(squash)
            self.fc.weight.data *= scale

        def forward(self, images):
            return self.head(GapNet.forward(self, images))

    got = raw(Squashed(), images, CAM("features"))
    torch.testing.assert_close(got, raw(GapNet(), images, CAM("features")) * scale)

    class Adapted(Squashed):
        """The logits are not those of the linear layer that reads the means."""

        def forward(self, images):
            return self.head(2 * GapNet.forward(self, images))

    with pytest.raises(LayerError, match="use gradcam"):
        raw(Adapted(), images, CAM("features"))


@pytest.mark.parametrize(("make", "passes"), [(GapNet, 1), (lambda: build(EXACT, "lora"), 5)])
def test_cam_takes_one_pass_where_one_linear_layer_gives_the_logits(images, make, passes):
    net = make()
    rows = []
    hook = net.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    raw(net, images[:1], CAM("features"), target=0)
    hook.remove()
    assert sum(rows) == passes


def test_model_without_gradients_is_explained_by_its_weights_alone(images):
    class Detached(GapNet):
        def forward(self, images):
            with torch.no_grad():
                return super().forward(images)

    expected = raw(GapNet(), images, CAM("features"))
    assert torch.equal(raw(Detached(), images, CAM("features")), expected)


@pytest.mark.parametrize(
    ("net", "method", "error", "sentence"),
    [
        (SmallCNN(), CAM(), LayerError, "use gradcam"),
        (GapNet(), CAM(layer="features.0"), LayerError, "behind layer 'features.0' are not"),
        (GapNet(), CAM(layer="features.2"), LayerError, "behind layer 'features.2' are not"),
        (GapNet(), CAM(classifier="features.0"), LayerError, "must be an nn.Linear, got Conv2d"),
        (GapNet(), CAM(classifier="fd"), UnknownNameError, "no layer 'fd'"),
        (
            Head(LoRA()),
            CAM("features", "head.base_layer"),
            LayerError,
            "'head.base_layer' does not give the logits .* leave classifier out, or use gradcam",
        ),
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

    with pytest.raises(LayerError, match=r"behind layer 'features\.0' are not"):
        raw(Maps(), images, CAM("features.0"), lambda output, rows: output.mean((1, 2, 3)))


def test_class_token_is_no_part_of_the_map():
    """The classifier reads the mean of all tokens, of which the first lies in no cell."""

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                self.patches = nn.Conv2d(3, 12, 4, 4)
                self.tokens, self.fc = nn.Linear(12, 12), nn.Linear(12, 5)

        def forward(self, images):
            patches = self.patches(images).flatten(2).transpose(1, 2)
            first = patches.square().mean(1, keepdim=True)
            return self.fc(self.tokens(torch.cat([first, patches], 1)).mean(1))

    net, images = Tokens(), torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    e = xcam.explain(net, images, 1, "cam", layer="tokens")
    with torch.no_grad():
        patches = net.tokens(net.patches(images).flatten(2).transpose(1, 2))
        expected = (patches @ net.fc.weight[1]).view(2, 4, 4) * 16 / 17
    torch.testing.assert_close(e.raw, expected)
