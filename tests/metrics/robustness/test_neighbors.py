"""Max-Sensitivity and the Lipschitz estimate: closed forms, captum on the same draws, sharing."""

import captum.attr
import captum.metrics
import pytest
import torch
from by_hand import seeded
from nets import unchanged
from similar_maps import Multiple
from torch.testing import assert_close

import xcam
from xcam.engine.forward import run_settings
from xcam.engine.shared import share_passes
from xcam.metrics import LocalLipschitz, MaxSensitivity
from xcam.metrics.robustness.neighbors import draw_neighbors
from xcam.models.toy import GapNet

IMAGES = seeded(3, 1, 8, 8) + 0.1
CLASSES = [2, 0, 3]
SALIENCY = xcam.get_method("saliency")(reduce="sum")


@pytest.fixture(scope="module")
def net():
    return GapNet(1)


def explain(net, method, images=IMAGES):
    return xcam.explain(net, images, CLASSES[: len(images)], method)


def neighbors(n_samples, radius=0.2, noise="uniform", seed=0, images=IMAGES):
    """The copies (n, B, C, H, W)."""
    part = slice(0, n_samples * len(images))
    rows, copies = draw_neighbors(images, part, radius, noise, seed)
    assert rows.tolist() == [*range(len(images))] * n_samples
    return copies.unflatten(0, (n_samples, len(images)))


def norms(tensor):
    return tensor.double().flatten(2).norm(dim=2)


class TestDraws:
    def test_uniform_noise_fills_its_ball(self):
        noise = neighbors(40, 0.3) - IMAGES
        assert noise.abs().max() <= 0.3 + 1e-6
        assert_close(noise.abs().mean(), torch.tensor(0.15), atol=0.005, rtol=0)
        assert abs(noise.mean()) < 0.01

    def test_gaussian_noise_has_its_deviation(self):
        noise = neighbors(40, 0.3, "gaussian") - IMAGES
        assert_close(noise.std(), torch.tensor(0.3), atol=0.01, rtol=0)

    def test_copies_differ_and_depend_on_their_number_alone(self):
        copies = neighbors(4)
        assert len({copy.sum().item() for copy in copies}) == 4
        rows, some = draw_neighbors(IMAGES, slice(4, 8), 0.2, "uniform", 0)
        assert torch.equal(some, copies.flatten(0, 1)[4:8])
        assert rows.tolist() == [1, 2, 0, 1]
        assert not torch.equal(copies, neighbors(4, seed=1))


class TestClosedForms:
    @pytest.mark.parametrize("factor", [1.0, -3.0])
    def test_a_linear_map_moves_as_far_as_the_image(self, net, factor):
        explanation = explain(net, Multiple(factor))
        distances = norms(neighbors(5, 0.1, seed=2) - IMAGES)
        settings = {"radius": 0.1, "n_samples": 5, "seed": 2}
        found = MaxSensitivity(**settings).score(net, IMAGES, explanation)
        assert_close(found, (distances / norms(IMAGES[None])).amax(0), rtol=1e-5, atol=0)
        absolute = MaxSensitivity(**settings, relative=False).score(net, IMAGES, explanation)
        assert_close(absolute, abs(factor) * distances.amax(0), rtol=1e-5, atol=0)
        rates = LocalLipschitz(**settings).score(net, IMAGES, explanation)
        assert_close(rates, torch.full((3,), abs(factor)).double(), rtol=1e-5, atol=0)

    def test_normalized_rates_have_no_unit(self, net):
        metric = LocalLipschitz(n_samples=4, normalize=True)
        one, other = (metric.score(net, IMAGES, explain(net, Multiple(f))) for f in (1.0, 50.0))
        copies = neighbors(4)
        scaled = [images / images.abs().amax((-1, -2), keepdim=True) for images in (copies, IMAGES)]
        expected = (norms(scaled[0] - scaled[1]) / norms(copies - IMAGES)).amax(0)
        assert_close(one, expected, rtol=1e-5, atol=0)
        assert_close(other, expected, rtol=1e-5, atol=0)

    @pytest.mark.parametrize("metric", [MaxSensitivity(n_samples=3), LocalLipschitz(n_samples=3)])
    def test_a_map_that_ignores_the_image_does_not_move(self, net, metric):
        assert metric.score(net, IMAGES, explain(net, Multiple(0.0, 1.0))).tolist() == [0, 0, 0]

    def test_a_map_of_zeros_is_divided_by_one(self, net):
        explanation = explain(net, Multiple())
        flat = xcam.Explanation.of(0 * IMAGES[:, 0], IMAGES, CLASSES, method=explanation.method)
        found = MaxSensitivity(n_samples=3).score(net, IMAGES, flat)
        assert_close(found, norms(neighbors(3)).amax(0), rtol=1e-5, atol=0)

    def test_the_worst_of_more_copies_is_no_better(self, net):
        explanation = explain(net, SALIENCY)
        few, many = (MaxSensitivity(n_samples=n).score(net, IMAGES, explanation) for n in (2, 9))
        assert bool((many >= few).all())

    def test_contrasts_are_explained_again_as_contrasts(self, net):
        explanation = xcam.explain(net, IMAGES, CLASSES, SALIENCY, contrast=[1, 1, 1])
        found = MaxSensitivity(n_samples=2).score(net, IMAGES, explanation)
        again = [
            xcam.explain(net, copy, CLASSES, SALIENCY, contrast=[1, 1, 1]).maps
            for copy in neighbors(2)
        ]
        moved = norms(torch.stack(again) - explanation.maps) / norms(explanation.maps[None])
        assert_close(found, moved.amax(0), rtol=1e-5, atol=0)


def test_captum_finds_the_same(net):
    """Their maximum over our draws; of their own gradients."""

    def perturb(images, radius):
        noise = neighbors(6, radius, images=IMAGES[:1])[:, 0] - IMAGES[0]
        return (images + noise.repeat(len(images) // 6, 1, 1, 1)).requires_grad_()

    gradients = captum.attr.Saliency(net)
    theirs = captum.metrics.sensitivity_max(
        lambda images, target: gradients.attribute(images, target, abs=False),
        IMAGES.clone().requires_grad_(),
        perturb,
        perturb_radius=0.05,
        n_perturb_samples=6,
        target=torch.tensor(CLASSES),
    )
    ours = MaxSensitivity(radius=0.05, n_samples=6).score(net, IMAGES, explain(net, SALIENCY))
    assert_close(ours.float(), theirs, rtol=1e-4, atol=0)


def test_metrics_of_the_same_neighbors_explain_them_once(net):
    metrics = [MaxSensitivity(n_samples=5), LocalLipschitz(n_samples=5, normalize=True)]
    rows, explanation = [], explain(net, SALIENCY)
    alone = [metric.score(net, IMAGES, explanation) for metric in metrics]
    handle = net.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    with share_passes(IMAGES):
        together = [metric.score(net, IMAGES, explanation) for metric in metrics]
        assert sum(rows) == 5 * 3
        MaxSensitivity(n_samples=5, seed=1).score(net, IMAGES, explanation)
    handle.remove()
    assert sum(rows) == 2 * 5 * 3
    assert all(map(torch.equal, together, alone))


@pytest.mark.parametrize("batch_size", [1, 4, None])
def test_copies_pass_in_chunks_and_the_model_stays_as_it_was(net, batch_size):
    explanation, rows = explain(net, SALIENCY), []
    handle = net.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    with unchanged(net, IMAGES), run_settings(batch_size=batch_size):
        found = MaxSensitivity(n_samples=3).score(net, IMAGES, explanation)
    handle.remove()
    assert max(rows) == (batch_size or 9)
    assert_close(found, MaxSensitivity(n_samples=3).score(net, IMAGES, explanation))


def test_maps_from_elsewhere_are_refused(net):
    foreign = xcam.Explanation.of(IMAGES[:, 0], IMAGES, CLASSES)
    with pytest.raises(ValueError, match="max_sensitivity explains again; give an explanation by"):
        MaxSensitivity().score(net, IMAGES, foreign)
