"""CALM's probabilities, losses and maps against their formulas, written down once more."""

import math

import pytest
import torch
import torch.nn.functional as F
from nets import pictures
from torch import nn

import xcam
from xcam.core import find_headed
from xcam.methods import CALM
from xcam.methods.trainable.calm_head import CueHead, compute_log_joint, compute_log_marginal
from xcam.models.toy import SmallCNN

IMAGES, LABELS = pictures(4, size=16), torch.tensor([0, 1, 2, 1])
SUPERCLASSES = {"even": [0, 2, 4], "odd": [1, 3]}


def make_net(dtype=torch.float32, **settings):
    """A net that counts as trained, with an attention that differs from place to place."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = CALM(**settings).attach(SmallCNN(num_classes=5).to(dtype))
        nn.init.normal_(net.head.attention.weight)
        nn.init.normal_(net.head.conv_last.weight, std=2.0)
        nn.init.normal_(net.head.conv_last.bias)
    net.fitted = True
    return net.eval()


def read_parts(net, images=IMAGES):
    """f (B, C, n), a (B, 1, n), p(y|x, z), p(z|x) and p(y, z|x), from the classifier's layer."""
    given = []
    layer = net.classifier.get_submodule(net.method.layer)
    handle = layer.register_forward_hook(lambda *call: given.append(call[2]))
    net(images)
    handle.remove()
    found = given[-1]
    f = (found.movedim(1, -1) @ net.head.conv_last.weight[:, :, 0, 0].T).movedim(-1, 1)
    f = (f + net.head.conv_last.bias[:, None, None]).flatten(2)
    g = (found.movedim(1, -1) @ net.head.attention.weight[:, :, 0, 0].T).movedim(-1, 1)
    g = (g + net.head.attention.bias[:, None, None]).flatten(2)
    a = g.clamp(min=0) if net.method.prior == "relu" else (1 + g.exp()).log()
    likelihood = f.exp() / f.exp().sum(1, keepdim=True)
    prior = a / a.sum(2, keepdim=True)
    return f, a, likelihood, prior, likelihood * prior


@pytest.mark.parametrize("prior", ["softplus", "relu"])
class TestProbabilities:
    def test_they_sum_to_one(self, prior):
        net = make_net(prior=prior)
        _, _, _, _, joint = read_parts(net)
        torch.testing.assert_close(joint.sum((1, 2)), torch.ones(4))
        torch.testing.assert_close(net(IMAGES).exp().sum(1), torch.ones(4))
        every = [xcam.explain(net, IMAGES, k, map="jointll").raw for k in range(5)]
        torch.testing.assert_close(torch.stack(every).sum((0, 2, 3)), torch.ones(4))
        posterior = xcam.explain(net, IMAGES, 1, map="gtcond").raw
        torch.testing.assert_close(posterior.sum((1, 2)), torch.ones(4))

    def test_logits_are_the_logarithm_of_the_marginal(self, prior):
        net = make_net(prior=prior)
        _, _, _, _, joint = read_parts(net)
        torch.testing.assert_close(net(IMAGES), joint.sum(2).log())

    def test_saliency_is_the_sum_of_the_joint_over_the_classes(self, prior):
        net = make_net(prior=prior)
        every = [xcam.explain(net, IMAGES, k).raw for k in range(5)]
        saliency = xcam.explain(net, IMAGES, map="saliency").raw
        torch.testing.assert_close(sum(every), saliency)

    def test_posterior_times_probability_is_the_joint(self, prior):
        net = make_net(prior=prior)
        chosen = torch.tensor([4, 0, 2, 2])
        probability = net(IMAGES).exp()[torch.arange(4), chosen]
        posterior = xcam.explain(net, IMAGES, chosen, map="gtcond").raw
        joint = xcam.explain(net, IMAGES, chosen).raw
        torch.testing.assert_close(posterior * probability[:, None, None], joint)


@pytest.mark.parametrize("prior", ["softplus", "relu"])
class TestLosses:
    def test_values(self, prior):
        for loss in ("em", "ml", "cam"):
            net = make_net(prior=prior, loss=loss)
            f, _, _, _, joint = read_parts(net)
            own = joint[torch.arange(4), LABELS]
            q = own / own.sum(1, keepdim=True)
            logarithm = own.where(own > 0, 1).log()
            expected = {
                "em": -(q * logarithm).sum(1).mean(),
                "ml": -own.sum(1).log().mean(),
                "cam": F.cross_entropy(f.mean(2), LABELS),
            }[loss]
            found, logits = net.method.loss(net, IMAGES, LABELS)
            torch.testing.assert_close(found, expected)
            torch.testing.assert_close(logits, net(IMAGES))

    def test_em_is_ml_and_the_entropy_of_the_posterior(self, prior):
        em, ml = (make_net(prior=prior, loss=loss) for loss in ("em", "ml"))
        _, _, _, _, joint = read_parts(em)
        own = joint[torch.arange(4), LABELS]
        entropy = torch.distributions.Categorical(own).entropy().mean()
        difference = em.method.loss(em, IMAGES, LABELS)[0] - ml.method.loss(ml, IMAGES, LABELS)[0]
        torch.testing.assert_close(difference, entropy, atol=1e-6, rtol=1e-6)

    @pytest.mark.parametrize("normalizer_gradient", ["full", "detached"])
    def test_em_and_ml_have_the_same_gradients(self, prior, normalizer_gradient):
        found = []
        for loss in ("em", "ml"):
            net = make_net(prior=prior, loss=loss, normalizer_gradient=normalizer_gradient)
            value, _ = net.method.loss(net, IMAGES, LABELS)
            found.append(torch.autograd.grad(value, list(net.parameters())))
        for em, ml in zip(*found, strict=True):
            torch.testing.assert_close(em, ml, atol=1e-5, rtol=1e-5)

    def test_mixed_labels_weigh_the_losses_of_the_classes(self, prior):
        shares = torch.tensor([0.3, 0.7])
        labels = 0.3 * F.one_hot(LABELS, 5) + 0.7 * F.one_hot(torch.tensor([3, 3, 0, 4]), 5)
        for loss in ("em", "ml", "cam"):
            net = make_net(prior=prior, loss=loss)
            parts = [
                net.method.loss(net, IMAGES, one)[0] for one in (LABELS, torch.tensor([3, 3, 0, 4]))
            ]
            mixed, _ = net.method.loss(net, IMAGES, labels)
            torch.testing.assert_close(mixed, (shares * torch.stack(parts)).sum())


def test_gradient_of_the_activations_with_either_normalizer():
    """−q/a where it is detached, −q/a + 1/S where it is not."""
    for kind, extra in (("detached", 0.0), ("full", 1.0)):
        net = make_net(loss="em", normalizer_gradient=kind, dtype=torch.float64)
        _, a, _, _, joint = read_parts(net, IMAGES.double())
        own = joint[torch.arange(4), LABELS]
        q = own / own.sum(1, keepdim=True)
        by_activation = (-q / a[:, 0] + extra / a.sum((1, 2))[:, None]) / 4
        slope = 1 - (-a[:, 0]).exp()  # of softplus
        value, _ = net.method.loss(net, IMAGES.double(), LABELS)
        (found,) = torch.autograd.grad(value, net.head.attention.bias)
        torch.testing.assert_close(found, (by_activation * slope).sum()[None])


class TestReleasedEpsilons:
    def test_posterior_of_an_improbable_class_is_damped(self):
        net = make_net(loss="em", prior="relu")
        with torch.no_grad():
            net.head.conv_last.bias[2] = -38.0
        chosen = torch.full((4,), 2)
        p = net(IMAGES).detach().exp()[:, 2]
        assert 0 < p.max() < 1e-8
        released = xcam.explain(net, IMAGES, chosen, map="gtcond", epsilons="released").raw
        torch.testing.assert_close(released.sum((1, 2)), p / (p + 1e-10))
        exact = net.method.loss(net, IMAGES, chosen)[0]
        damped = CALM(epsilons="released").loss(net, IMAGES, chosen)[0]
        assert damped < exact

    def test_values_of_probable_classes_are_the_same(self):
        for prior in ("softplus", "relu"):
            net = make_net(loss="em", prior=prior)
            found = [
                CALM(epsilons=kind).loss(net, IMAGES, LABELS)[0] for kind in ("none", "released")
            ]
            torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)

    def test_prior_below_the_floor_is_raised(self):
        prior = torch.tensor([0.5, 1e-9, 0.0, 0.5]).view(1, 1, 2, 2)
        raised = compute_log_joint(torch.zeros(1, 1, 2, 2), prior, 1e-8).flatten()
        expected = torch.tensor([0.5, 1.1e-8, 1e-8, 0.5]).log()
        torch.testing.assert_close(raised, expected)


class TestNoActivePosition:
    def make(self, bias=-50.0, **settings):
        net = make_net(prior="relu", **settings)
        with torch.no_grad():
            net.head.attention.weight.zero_()
            net.head.attention.bias.fill_(bias)
        return net

    def test_prior_is_uniform(self):
        net = self.make()
        saliency = xcam.explain(net, IMAGES, map="saliency").raw
        torch.testing.assert_close(saliency, torch.full_like(saliency, 1 / saliency[0].numel()))

    @pytest.mark.parametrize("normalizer_gradient", ["full", "detached"])
    @pytest.mark.parametrize("epsilons", ["none", "released"])
    @pytest.mark.parametrize("loss", ["em", "ml"])
    def test_loss_and_gradients_are_finite(self, loss, epsilons, normalizer_gradient):
        for bias in (-50.0, 0.0, 1e-42, 1e-30):
            net = self.make(
                bias, loss=loss, epsilons=epsilons, normalizer_gradient=normalizer_gradient
            )
            value, logits = net.method.loss(net.train(), IMAGES, LABELS)
            found = torch.autograd.grad(value, list(net.parameters()))
            assert value.isfinite()
            assert logits.isfinite().all()
            assert all(gradient.isfinite().all() for gradient in found)

    def test_one_active_position_among_dead_ones_is_the_whole_prior(self):
        head = CueHead(2, 3, "relu")
        features = torch.zeros(1, 2, 2, 2)
        features[0, 0, 1, 0] = 1
        with torch.no_grad():
            head.attention.weight.copy_(torch.tensor([[[[1.0]], [[0.0]]]]))
        log_likelihood, prior = head(features)
        assert prior.flatten().tolist() == [0, 0, 1, 0]
        log_marginal = compute_log_marginal(compute_log_joint(log_likelihood, prior))
        torch.testing.assert_close(log_marginal, log_likelihood[:, :, 1, 0])


class TestMaps:
    def expected(self, net, name, y):
        f, _, _, prior, joint = read_parts(net)
        q = joint / joint.sum(2, keepdim=True)
        low, high = f.amin(2, keepdim=True), f.amax(2, keepdim=True)
        scaled = (f - low) / (high - low)
        group = SUPERCLASSES["odd" if y % 2 else "even"]
        return {
            "vanilla": f[:, y],
            "vanilla_saliency": scaled.sum(1),
            "vanilla_superclass": scaled[:, group].sum(1),
            "saliency": prior[:, 0],
            "gtcond": q[:, y],
            "gtcond_superclass": q[:, group].sum(1),
            "gtcond_superclass_mean": q[:, group].mean(1),
            "jointll": joint[:, y],
            "jointll_superclass": joint[:, group].sum(1),
            "jointll_superclass_mean": joint[:, group].mean(1),
        }[name]

    @pytest.mark.parametrize("prior", ["softplus", "relu"])
    @pytest.mark.parametrize("loss", ["em", "cam"])
    @pytest.mark.parametrize(
        "name",
        [
            "vanilla", "vanilla_saliency", "vanilla_superclass", "saliency", "gtcond",
            "gtcond_superclass", "gtcond_superclass_mean", "jointll", "jointll_superclass",
            "jointll_superclass_mean",
        ],
    )  # fmt: skip
    def test_each_by_its_formula(self, name, loss, prior):
        net = make_net(loss=loss, prior=prior)
        for y in (1, 2):
            found = xcam.explain(net, IMAGES, y, map=name, superclasses=SUPERCLASSES).raw
            torch.testing.assert_close(found.flatten(1), self.expected(net, name, y))

    def test_default_is_the_joint_or_the_class_activation(self):
        for loss, name in ((None, "jointll"), ("ml", "jointll"), ("cam", "vanilla")):
            net = make_net(loss=loss)
            found = xcam.explain(net, IMAGES, 1).raw
            assert torch.equal(found, xcam.explain(net, IMAGES, 1, map=name).raw)
            assert net.method.map == name

    def test_callable_target_weights_the_maps_by_its_slopes(self):
        net = make_net()
        joint = torch.stack([xcam.explain(net, IMAGES, k).raw for k in range(5)], 1)
        contrast = xcam.explain(net, IMAGES, lambda out, rows: out[:, 1] - 2 * out[:, 3]).raw
        torch.testing.assert_close(contrast, joint[:, 1] - 2 * joint[:, 3])

    def test_cam_net_is_global_average_pooling(self):
        net = make_net(loss="cam")
        vanilla = torch.stack([xcam.explain(net, IMAGES, k).raw for k in range(5)], 1)
        torch.testing.assert_close(net(IMAGES), vanilla.mean((2, 3)))


def test_head_computes_in_full_precision_under_autocast():
    net = make_net()
    features = torch.rand(2, net.head.conv_last.in_channels, 4, 4).bfloat16()
    exact = net.head(features.float())
    with torch.autocast("cpu", torch.bfloat16):
        found = net.head(features)
        logits = net(IMAGES)
    assert all(torch.equal(*pair) for pair in zip(found, exact, strict=True))
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.exp().sum(1), torch.ones(4))


def test_improbable_classes_keep_finite_logarithms():
    """Where a product of probabilities would be 0 in float32, and its logarithm infinite."""
    net = make_net(loss="ml")
    with torch.no_grad():
        net.head.conv_last.bias[0] = -300.0
    value, logits = net.method.loss(net, IMAGES, torch.zeros(4, dtype=torch.int64))
    gradients = torch.autograd.grad(value, list(net.parameters()))
    assert float(logits.detach()[:, 0].max()) < math.log(torch.finfo(torch.float32).tiny)
    assert logits.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_other_methods_explain_the_net():
    net = make_net()
    assert find_headed(net) is net
    maps = xcam.explain(net, IMAGES, 1, method="gradcam")
    assert maps.method.layer == f"classifier.{net.method.layer}"
    assert maps.raw.abs().sum() > 0
    saliency = xcam.explain(net, IMAGES, 1, method="saliency").raw
    images = IMAGES.clone().requires_grad_()
    (expected,) = torch.autograd.grad(net(images)[:, 1].sum(), images)
    torch.testing.assert_close(saliency, expected)
