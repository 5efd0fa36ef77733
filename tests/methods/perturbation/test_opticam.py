"""Opti-CAM against a plain optimisation by hand, and against the map it starts from."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import xcam
from xcam.errors import ModelOutputError
from xcam.methods import OptiCAM
from xcam.models.toy import GapNet, SmallCNN


def pictures(count=2, size=16, seed=0):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def normalized(m, how):
    if how == "minmax":
        return (m - m.min()) / (m.max() - m.min())
    return m / m.max() if how == "max" else m.sigmoid()


def by_hand(net, image, target, iterations, loss, normalize, rate=0.1, rectify=False):
    """Adam, written out, on one (1, C, H, W) image: the best of the maps that are tried."""
    activation, clean = net.features(image).detach(), net(image)[0, target].detach()
    activation = activation.relu() if rectify else activation
    u = torch.full((activation.shape[1],), 0.5, requires_grad=True)
    first, second = torch.zeros_like(u), torch.zeros_like(u)
    tried = []
    for step in range(1, iterations + 1):
        m = (u.softmax(0)[:, None, None] * activation[0]).sum(0)
        large = F.interpolate(m[None, None], image.shape[2:], mode="bilinear")[0, 0]
        mask = normalized(large, normalize)
        score = net(image * mask)[0, target]
        cost = (clean - score) if loss == "plain" else (clean - score).abs()
        tried.append((cost.item(), mask.detach()))
        (gradient,) = torch.autograd.grad(cost, u)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        move = (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        u = (u - rate * move).detach().requires_grad_()
    return min(tried, key=lambda pair: pair[0])


@pytest.mark.parametrize("loss", ["plain", "norm"])
@pytest.mark.parametrize("normalize", ["minmax", "max", "sigmoid"])
def test_maps_match_a_hand_written_optimization(loss, normalize):
    net, images, classes = SmallCNN(), pictures(3), [0, 4, 2]
    method = OptiCAM(layer="features", iterations=8, loss=loss, normalize=normalize)
    maps = xcam.explain(net, images, classes, method).raw
    for i, target in enumerate(classes):
        _, expected = by_hand(net, images[i : i + 1], target, 8, loss, normalize)
        torch.testing.assert_close(maps[i], expected, rtol=0, atol=2e-5)


def test_channels_are_rectified_as_in_the_published_code():
    net, images = SmallCNN(), pictures(1)
    net.features[6] = nn.Identity()  # no ReLU behind them: channels are signed
    assert net.features(images).min() < 0
    maps = {}
    for rectify in (False, True):
        method = OptiCAM(layer="features", iterations=8, rectify=rectify)
        maps[rectify] = xcam.explain(net, images, 1, method).raw[0]
        _, expected = by_hand(net, images, 1, 8, "plain", "minmax", rectify=rectify)
        torch.testing.assert_close(maps[rectify], expected, rtol=0, atol=2e-5)
    assert (maps[True] - maps[False]).abs().max() > 0.05


def score(net, images, maps, target):
    with torch.no_grad():
        return net(images * maps[:, None])[:, target]


def test_optimized_map_scores_higher_than_the_uniform_mixture():
    net, images = SmallCNN(), pictures(4)
    uniform = xcam.explain(net, images, 1, OptiCAM("features", iterations=1)).maps
    activation = net.features(images).detach()
    mean = F.interpolate(activation.mean(1, keepdim=True), (16, 16), mode="bilinear")[:, 0]
    torch.testing.assert_close(uniform, xcam.imaging.normalize(mean))
    best = xcam.explain(net, images, 1, OptiCAM("features", iterations=30)).maps
    assert (score(net, images, best, 1) > score(net, images, uniform, 1) + 1e-3).all()
    assert ((best - uniform).abs().amax((1, 2)) > 0.01).all()


def test_optimized_map_scores_higher_on_photographs_of_a_trained_net(lite0, photographs):
    images = F.interpolate(photographs[:2], 96, mode="bilinear")
    target = int(lite0(images)[0].argmax())
    uniform, best = (
        xcam.explain(lite0, images, target, OptiCAM(iterations=n)).maps for n in (1, 12)
    )
    assert (score(lite0, images, best, target) > score(lite0, images, uniform, target) + 0.1).all()


def test_more_iterations_never_score_lower():
    """Each image keeps its best: a rate at which Adam overshoots shows it."""
    net, images = SmallCNN(), pictures(4)
    scores = [
        score(net, images, xcam.explain(net, images, 1, OptiCAM(iterations=n, rate=3)).maps, 1)
        for n in (1, 3, 9, 27)
    ]
    for fewer, more in pairwise(scores):
        assert (more >= fewer - 1e-5).all()


def test_map_is_independent_of_the_other_images():
    net, images, method = SmallCNN(), pictures(3), OptiCAM(iterations=10)
    together = xcam.explain(net, images, [0, 1, 2], method).maps
    alone = [xcam.explain(net, images[i : i + 1], i, method).maps for i in range(3)]
    assert torch.equal(together, torch.cat(alone))
    other = torch.cat([images[:1], 40 * pictures(2, seed=1)])
    assert torch.equal(together[0], xcam.explain(net, other, [0, 1, 2], method).maps[0])


def test_optimization_is_bitwise_the_same_in_any_batch():
    """Adam would make a visible difference of the rounding in which batch sizes differ."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = torchvision.models.resnet18().eval()
        images = torch.rand(3, 3, 64, 64)
    method = OptiCAM(layer="layer4", iterations=8)
    together = xcam.explain(net, images, method=method)
    for i, one in enumerate(together):
        alone = xcam.explain(net, images[i : i + 1], method=method)
        assert torch.equal(one.maps, alone.maps)
        assert torch.equal(one.logits, alone.logits)


def test_callable_target_may_read_a_structured_output():
    class Wrapped(SmallCNN):
        def forward(self, images):
            return {"a": super().forward(images), "b": images.mean((2, 3))}

    images, rows_seen = pictures(3), []

    def second_class(output, rows):
        rows_seen.extend(rows.tolist())
        return output["a"][:, 1]

    method = OptiCAM(layer="features", iterations=3)
    by_callable = xcam.explain(Wrapped(), images, second_class, method)
    expected = xcam.explain(SmallCNN(), images, 1, method)
    assert torch.equal(by_callable.maps, expected.maps)
    assert by_callable.logits is None
    assert set(rows_seen) == {0, 1, 2}


def flat_net():
    net = GapNet()
    net.features[2].weight.data.zero_()
    return net


@pytest.mark.parametrize("normalize", ["minmax", "max"])
def test_flat_map_becomes_zeros_and_not_nan(normalize):
    net = flat_net()
    net.features[2].bias.data.fill_(0.3 if normalize == "minmax" else -1)
    e = xcam.explain(net, pictures(), 0, OptiCAM(normalize=normalize, iterations=3))
    assert torch.equal(e.maps, torch.zeros(2, 16, 16))
    assert "flat" in e.warnings[0]


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_it_works_where_the_caller_wants_no_gradients(guard):
    net, images = SmallCNN(), pictures()
    expected = xcam.explain(net, images, 1, OptiCAM(iterations=4)).maps
    with guard():
        maps = xcam.explain(net, images + 0, 1, OptiCAM(iterations=4)).maps
    assert torch.equal(maps, expected)


def test_passes_and_parameters():
    net, images, seen = SmallCNN(), pictures(), []
    net.register_forward_pre_hook(
        lambda module, inputs: seen.append(any(p.requires_grad for p in module.parameters()))
    )
    xcam.explain(net, images, 1, OptiCAM(iterations=6))
    assert seen == [False] * 7 * len(images)


class Cut(GapNet):
    def forward(self, images):
        return super().forward(images.detach())


def test_model_without_gradient_is_refused():
    with pytest.raises(ModelOutputError, match=r"no gradient.*'rise'"):
        xcam.explain(Cut(), pictures(), 1, "opticam")


def test_fill_is_blended_in_where_the_map_is_low():
    class Watching(SmallCNN):
        def forward(self, images):
            self.last = images.detach().clone()
            return super().forward(images)

    net, images = Watching(), pictures(1)
    method = OptiCAM(layer="features", iterations=1, fill=torch.tensor(0.4))
    maps = xcam.explain(net, images, 1, method).maps[:, None]
    torch.testing.assert_close(net.last, images * maps + 0.4 * (1 - maps))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("iterations", 0),
        ("rate", 0.0),
        ("rate", -1.0),
        ("loss", "cross_entropy"),
        ("normalize", "softmax"),
        ("fill", "black"),
    ],
)
def test_bad_fields_are_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} must be .*got {value!r}"):
        OptiCAM(**{field: value})


def test_layer_may_be_given_as_a_module():
    net, images = SmallCNN(), pictures()
    by_module = xcam.explain(net, images, 1, OptiCAM(layer=net.features, iterations=2))
    assert isinstance(net.features, nn.Sequential)
    assert by_module.method.layer == "features"
