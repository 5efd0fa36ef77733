"""SmoothGrad, SmoothGrad-Squared and VarGrad against loops, and what their noise depends on."""

import pytest
import torch
from torch import nn

import xcam
from xcam.methods import SmoothGrad, SmoothGradSquared, VarGrad
from xcam.models.toy import LinearNet, SmallCNN

CLASSES = [3, 0, 1, 4]
KINDS = [SmoothGrad, SmoothGradSquared, VarGrad]


@pytest.fixture
def images():
    """Images of different ranges."""
    pictures = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return pictures * torch.tensor([1.0, 0.5, 2, 0.1]).view(4, 1, 1, 1)


class Recorder(nn.Module):
    """Remembers what a net was shown."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.seen = []

    def forward(self, images):
        self.seen.append(images.detach().clone())
        return self.net(images)


def noisy_copies(images, method, batch_size=None):
    """(n, B, C, H, W): the noisy copies that the net is shown, without the clean pass."""
    net = Recorder(SmallCNN())
    explanation = xcam.explain(net, images, CLASSES[: len(images)], method, batch_size=batch_size)
    seen = torch.cat([shown for shown in net.seen if not clean(shown, images)])
    if batch_size == 1:
        seen = seen.view(len(images), -1, *images.shape[1:]).transpose(0, 1)
    return seen.reshape(-1, *images.shape), explanation.raw


def clean(shown, images):
    return any(torch.equal(shown[0], image) for image in images)


def gradients(net, copies):
    found = []
    for copy in copies:
        leaf = copy.clone().requires_grad_()
        scores = net(leaf)[torch.arange(len(copy)), CLASSES[: len(copy)]]
        found.append(torch.autograd.grad(scores.sum(), leaf)[0])
    return torch.stack(found)


@pytest.mark.parametrize(
    ("kind", "combine"),
    [
        (SmoothGrad, lambda g: g.mean(0)),
        (SmoothGradSquared, lambda g: g.square().mean(0)),
        (VarGrad, lambda g: g.var(0, correction=0)),
    ],
)
def test_against_a_loop(images, kind, combine):
    copies, raw = noisy_copies(images, kind(n_samples=6))
    assert copies.shape == (6, *images.shape)
    expected = combine(gradients(SmallCNN(), copies))
    assert float((raw - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_noise_is_normal_and_scaled_by_the_range_of_the_image(images):
    copies, _ = noisy_copies(images, SmoothGrad(n_samples=40, noise=0.2))
    spread = (copies - images).std((0, 2, 3, 4))
    ranges = images.amax((1, 2, 3)) - images.amin((1, 2, 3))
    torch.testing.assert_close(spread, 0.2 * ranges, rtol=0.03, atol=0)
    standard = ((copies - images) / spread.view(4, 1, 1, 1)).flatten()
    assert abs(float(standard.mean())) < 0.02
    assert abs(float((standard**4).mean()) - 3) < 0.2


def test_every_image_gets_the_same_noise(images):
    copies, _ = noisy_copies(images, SmoothGrad(n_samples=3))
    ranges = (images.amax((1, 2, 3)) - images.amin((1, 2, 3))).view(4, 1, 1, 1)
    noise = (copies - images) / ranges
    torch.testing.assert_close(noise, noise[:, :1].expand_as(noise), rtol=1e-4, atol=1e-6)


def test_noise_depends_only_on_seed_and_sample_number(images):
    three, _ = noisy_copies(images, SmoothGrad(n_samples=3))
    five, _ = noisy_copies(images, SmoothGrad(n_samples=5))
    assert torch.equal(three, five[:3])
    one_by_one, _ = noisy_copies(images, SmoothGrad(n_samples=3), batch_size=1)
    assert torch.equal(three, one_by_one)
    alone, _ = noisy_copies(images[2:3], SmoothGrad(n_samples=3))
    assert torch.equal(three[:, 2:3], alone)


def test_samples_and_seeds_share_no_noise(images):
    first, _ = noisy_copies(images[:1], SmoothGrad(n_samples=3, seed=0))
    other, _ = noisy_copies(images[:1], SmoothGrad(n_samples=3, seed=1))
    draws = torch.cat([first, other]).flatten(1)
    assert len(draws.unique(dim=0)) == 6


@pytest.mark.parametrize("kind", KINDS)
def test_batches_do_not_matter(images, kind):
    method = kind(n_samples=5)
    expected = xcam.explain(SmallCNN(), images, CLASSES, method).raw
    for batch_size in (1, 3):
        raw = xcam.explain(SmallCNN(), images, CLASSES, method, batch_size=batch_size).raw
        assert float((raw - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize("kind", [SmoothGrad, SmoothGradSquared])
def test_one_sample_without_noise_is_the_gradient(images, kind):
    net = SmallCNN()
    gradient = xcam.explain(net, images, CLASSES, "saliency").raw
    raw = xcam.explain(net, images, CLASSES, kind(n_samples=1, noise=0)).raw
    assert torch.equal(raw, gradient if kind is SmoothGrad else gradient.square())


def test_noisy_gradients_of_a_linear_net_are_its_weights(images):
    net = LinearNet()
    weights = net.fc.weight.detach()[CLASSES].view_as(images)
    smooth = xcam.explain(net, images, CLASSES, "smoothgrad").raw
    torch.testing.assert_close(smooth, weights, rtol=1e-6, atol=0)
    squared = xcam.explain(net, images, CLASSES, "smoothgrad_squared").raw
    torch.testing.assert_close(squared, weights.square(), rtol=1e-6, atol=0)
    flat = xcam.explain(net, images, CLASSES, "vargrad")
    assert not flat.raw.any()
    assert "flat" in flat.warnings[0]


def test_channels_are_reduced_after_averaging_the_samples(images):
    explanation = xcam.explain(SmallCNN(), images, CLASSES, "smoothgrad")
    assert float(explanation.raw.min()) < 0
    assert torch.equal(explanation.maps, explanation.raw.abs().sum(1))


@pytest.mark.parametrize("kind", KINDS)
def test_passes(images, kind):
    net = Recorder(SmallCNN())
    xcam.explain(net, images, None, kind(n_samples=7), batch_size=3)
    assert sum(map(len, net.seen)) == 4 * (1 + 7)
    assert max(map(len, net.seen)) <= 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"n_samples": 0}, "n_samples must be an int of at least [12], such as 25, got 0"),
        ({"noise": -0.1}, "noise must be a finite number of at least 0, such as 0.15, got -0.1"),
        ({"noise": float("nan")}, "noise must be a finite number .*got nan"),
        ({"seed": -1}, "seed must be an int of at least 0, such as 0, got -1"),
    ],
)
def test_values_that_cannot_be_run(kind, parameters, sentence):
    with pytest.raises(ValueError, match=sentence):
        kind(**parameters)


def test_vargrad_refuses_a_single_sample():
    with pytest.raises(
        ValueError, match=r"^vargrad: n_samples must be an int of at least 2, such as 25, got 1"
    ):
        VarGrad(n_samples=1)
