"""Infidelity: zero for linear models, a loop over the perturbations, captum on the same draws."""

import captum.metrics
import pytest
import torch
from by_hand import seeded
from nets import unchanged
from similar_maps import Linear
from torch.testing import assert_close

import xcam
from xcam.engine.forward import run_settings
from xcam.engine.shared import share_passes
from xcam.metrics import Infidelity
from xcam.metrics.robustness.perturbations import Perturbation
from xcam.models.toy import GapNet

IMAGES = seeded(3, 3, 9, 8) + 0.1
CLASSES = [2, 0, 3]
KINDS = ["square", "noisy_baseline", "noise"]
GRADIENT = xcam.get_method("saliency")(reduce="sum")


@pytest.fixture(scope="module")
def net():
    return GapNet(3)


def perturbed(metric, images=IMAGES):
    """The copies and removed shares, each (B, n, …)."""
    perturbation = Perturbation(
        metric.perturbation, metric.size, metric.sigma, metric.fill, metric.n_samples, metric.seed
    )
    n, count = metric.n_samples, len(images)
    rows, *found = perturbation.prepare(images)(slice(0, n * count))
    assert rows.tolist() == [*range(count)] * n
    return [one.unflatten(0, (n, count)).transpose(0, 1) for one in found]


class TestPerturbations:
    @pytest.mark.parametrize(("size", "side"), [(0.25, 2), (0.01, 1), (1.0, 8)])
    def test_squares_lie_anywhere_inside(self, size, side):
        metric = Infidelity(size=size, n_samples=400, fill=torch.tensor(-1.0))
        changed, masks = perturbed(metric)
        assert bool((masks.sum((2, 3, 4)) == side * side).all())
        assert torch.equal((changed == -1).any(2, keepdim=True).float(), masks)
        rows, columns = masks.amax(4).sum(3), masks.amax(3).sum(3)  # how many are touched
        assert bool((rows == side).all() and (columns == side).all())
        assert bool((masks.amax((0, 1)) == 1).all())  # each pixel is in a square

    def test_each_image_has_squares_of_its_own_wherever_it_stands(self):
        _, masks = perturbed(Infidelity(n_samples=5))
        assert not torch.equal(masks[0], masks[1])
        _, alone = perturbed(Infidelity(n_samples=5), IMAGES[1:2])
        assert torch.equal(alone[0], masks[1])

    def test_noise_is_around_the_image_or_the_fill(self):
        for kind, middle in (("noise", IMAGES[:, None]), ("noisy_baseline", 0.5)):
            metric = Infidelity(perturbation=kind, sigma=0.3, n_samples=50, fill=torch.tensor(0.5))
            changed, shares = perturbed(metric)
            noise = changed - middle
            assert_close(noise.std(), torch.tensor(0.3), atol=0.01, rtol=0)
            assert abs(noise.mean()) < 0.01
            removed = shares * (IMAGES - 0.5)[:, None]
            assert_close(removed, IMAGES[:, None] - changed, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scaled", [True, False])
class TestLinearModels:
    def test_the_gradient_predicts_everything(self, kind, scaled):
        model = Linear(IMAGES[0])
        explanation = xcam.explain(model, IMAGES, [1, 0, 1], GRADIENT)
        metric = Infidelity(perturbation=kind, scaled=scaled, n_samples=6)
        assert_close(
            metric.score(model, IMAGES, explanation), torch.zeros(3).double(), atol=1e-9, rtol=0
        )

    def test_contributions_predict_everything(self, kind, scaled):
        model, method = Linear(IMAGES[0]), xcam.get_method("integrated_gradients")(n_steps=2)
        explanation = xcam.explain(model, IMAGES, [1, 0, 1], method)
        metric = Infidelity(perturbation=kind, scaled=scaled, n_samples=6, values="contribution")
        assert_close(
            metric.score(model, IMAGES, explanation), torch.zeros(3).double(), atol=1e-9, rtol=0
        )


def test_contributions_of_whole_pixels_count_once():
    model = Linear(IMAGES[0])
    maps = (IMAGES * model.weight[1]).sum(1)
    explanation = xcam.Explanation.of(maps, IMAGES, [1, 1, 1])
    metric = Infidelity(values="contribution", scaled=False, n_samples=6)
    assert_close(
        metric.score(model, IMAGES, explanation), torch.zeros(3).double(), atol=1e-9, rtol=0
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("output", ["logit", "prob"])
def test_a_loop_finds_the_same(kind, scaled, output, net):
    maps = seeded(3, 9, 8, seed=4) - 0.5
    metric = Infidelity(perturbation=kind, scaled=scaled, output=output, n_samples=5, seed=2)
    explanation = xcam.Explanation.of(maps, IMAGES, CLASSES)
    found = metric.score(net, IMAGES, explanation)

    def f(image, label):
        with torch.no_grad():
            logits = net(image[None])[0].double()
        return (logits.softmax(0) if output == "prob" else logits)[label]

    changed, _ = perturbed(metric)
    for image, copies, each, label, value in zip(
        IMAGES, changed, maps, CLASSES, found, strict=True
    ):
        dots = torch.stack([((image - copy) * each).double().sum() for copy in copies])
        drops = torch.stack([f(image, label) - f(copy, label) for copy in copies])
        beta = (dots * drops).mean() / (dots**2).mean() if scaled else 1
        assert_close(value, ((beta * dots - drops) ** 2).mean(), atol=1e-9, rtol=1e-4)


@pytest.mark.parametrize("factor", [7.0, -0.2])
def test_the_best_scale_makes_units_irrelevant(factor, net):
    maps, metric = seeded(3, 9, 8, seed=4), Infidelity(n_samples=5)
    one, other, none = (
        metric.score(net, IMAGES, xcam.Explanation.of(k * maps, IMAGES, CLASSES))
        for k in (1, factor, 0)
    )
    assert_close(one, other, rtol=1e-5, atol=0)
    assert bool((one < none).all())  # a map of zeros predicts that nothing changes
    plain = Infidelity(n_samples=5, scaled=False)
    assert bool((plain.score(net, IMAGES, xcam.Explanation.of(maps, IMAGES, CLASSES)) > one).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scaled", [True, False])
def test_captum_finds_the_same(kind, scaled, net):
    metric = Infidelity(perturbation=kind, scaled=scaled, n_samples=6)
    explanation = xcam.explain(net, IMAGES, CLASSES, GRADIENT)
    changed, _ = perturbed(metric)

    def perturb(images):
        copies = changed.flatten(0, 1)
        return images - copies, copies

    theirs = captum.metrics.infidelity(
        net,
        perturb,
        IMAGES,
        explanation.raw,
        target=torch.tensor(CLASSES),
        n_perturb_samples=6,
        normalize=scaled,
    )
    ours = metric.score(net, IMAGES, explanation)
    assert_close(ours.float(), theirs, rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("batch_size", [1, 4, None])
def test_maps_share_the_passes(batch_size, net):
    metric, rows = Infidelity(n_samples=4), []
    explanations = [xcam.explain(net, IMAGES, CLASSES, m) for m in (GRADIENT, "gradcam")]
    alone = [metric.score(net, IMAGES, one) for one in explanations]
    handle = net.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    with unchanged(net, IMAGES), run_settings(batch_size=batch_size), share_passes(IMAGES):
        together = [metric.score(net, IMAGES, one) for one in explanations]
    handle.remove()
    assert sum(rows) == 3 * (4 + 1)
    assert max(rows) == (batch_size or 12)
    for one, other in zip(together, alone, strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-9)
