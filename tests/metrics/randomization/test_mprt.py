"""MPRT, smooth and efficient: closed forms, plain loops, shared passes, the known failures."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from by_hand import seeded
from nets import mixed, unchanged
from scipy.stats import entropy, spearmanr
from torch import nn
from torch.testing import assert_close
from trained import Pointwise, fitted

import xcam
from xcam.engine.forward import run_settings
from xcam.engine.shared import share_passes
from xcam.imaging import make_generator
from xcam.metrics import MPRT, EfficientMPRT, SmoothMPRT
from xcam.metrics.randomization.layers import RandomizedModel, list_layers
from xcam.metrics.randomization.mprt import measure_histogram_entropy
from xcam.metrics.similarity import correlate_ranks
from xcam.models.toy import GapNet

IMAGES = seeded(3, 3, 8, 8)
TARGETS = [0, 3, 1]
LAYERS = ("features.0", "features.2", "fc")
STEPS = {
    "top_down": [LAYERS[2:], LAYERS[1:], LAYERS],
    "bottom_up": [LAYERS[:1], LAYERS[:2], LAYERS],
    "independent": [LAYERS[2:], LAYERS[1:2], LAYERS[:1]],
}


def randomize(net, names, seed=0):
    return RandomizedModel(net, IMAGES, xcam.get_method("saliency")(), seed).prepare(names).model


@pytest.mark.parametrize("order", STEPS)
@pytest.mark.parametrize("absolute", [True, False])
def test_plain_loop(order, absolute):
    """Spearman's ρ with the maps of the net whose layers are made anew, step after step."""
    net = mixed(GapNet())
    explanation = xcam.explain(net, IMAGES, TARGETS, "gradcam")
    with unchanged(net, IMAGES):
        rows = MPRT(order, absolute=absolute).score(net, IMAGES, explanation)
    assert rows.shape == (3, 3)
    for step, names in enumerate(STEPS[order]):
        again = xcam.explain(randomize(net, names), IMAGES, TARGETS, "gradcam")
        for image in range(3):
            pair = [each.maps[image].flatten() for each in (explanation, again)]
            pair = [each.abs() if absolute else each for each in pair]
            wanted = spearmanr(*pair)[0] if min(float(p.std()) for p in pair) > 0 else 0
            assert rows[image, step].item() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(
    "metric", [MPRT(), MPRT("independent", None, "ssim"), SmoothMPRT(n_samples=2)]
)
def test_method_that_ignores_the_model_fails(metric):
    explanation = xcam.explain(GapNet(), IMAGES, TARGETS, "center_gaussian")
    assert_close(metric(GapNet(), IMAGES, explanation), torch.ones((), dtype=torch.float64))
    assert EfficientMPRT()(GapNet(), IMAGES, explanation) == 0


@pytest.mark.parametrize(
    ("n_steps", "sizes"), [(1, [3]), (2, [1, 3]), (3, [1, 2, 3]), (None, [1, 2, 3])]
)
def test_steps_are_groups_of_layers(n_steps, sizes):
    steps = [*MPRT(n_steps=n_steps)._list_steps(LAYERS)]
    assert [len(step) for step in steps] == sizes
    assert [step[-1] for step in steps] == ["fc"] * len(sizes)
    alone = [*MPRT("independent", n_steps)._list_steps(LAYERS)]
    assert sorted(name for step in alone for name in step) == sorted(LAYERS)


def test_curve_is_the_similarity_after_each_step():
    mean = torch.tensor([[0.5, 0.25, 0.0]])
    x, y = MPRT().curve(mean)
    assert_close(x, torch.tensor([1, 2, 3]) / 3)
    assert y is mean
    assert MPRT().finish(mean).tolist() == [0.25]
    assert MPRT("independent").curve_axes[0] == "layer randomized, independent"


def test_trained_head_is_randomized_too():
    net = fitted(Pointwise(), GapNet())
    explanation = xcam.explain(net, IMAGES, TARGETS)
    layers = list_layers(net, IMAGES)
    rows = MPRT("independent", None).score(net, IMAGES, explanation)
    # The map is the head's, which sees the image: no other layer changes it.
    changed = [name for name, row in zip(layers[::-1], rows.T, strict=True) if row.max() < 0.99]
    assert changed == ["head"]


def test_maps_with_a_contrast():
    net = GapNet()
    explanation = xcam.explain(net, IMAGES, TARGETS, contrast=4)
    rows = MPRT("bottom_up", absolute=False).score(net, IMAGES, explanation)
    again = xcam.explain(randomize(net, LAYERS), IMAGES, TARGETS, contrast=4)
    assert_close(rows[:, -1], correlate_ranks(explanation.maps, again.maps))


def test_smooth_mprt_by_a_loop():
    net, noises = GapNet(), [torch.randn(3, 8, 8, generator=make_generator(4, k)) for k in range(3)]
    explanation = xcam.explain(net, IMAGES, TARGETS, "saliency")
    metric = SmoothMPRT("independent", absolute=False, n_samples=3, noise=0.3, seed=4)
    with run_settings(batch_size=2):
        rows = metric.score(net, IMAGES, explanation)

    def smooth(model, image):
        one = IMAGES[image]
        span = one.max() - one.min()
        copies = torch.stack([one + 0.3 * span * noise for noise in noises])
        return xcam.explain(model, copies, TARGETS[image], "saliency").maps.mean(0).flatten()

    for image in range(3):
        for step, names in enumerate(STEPS["independent"]):
            pair = smooth(net, image), smooth(randomize(net, names, 4), image)
            assert rows[image, step].item() == pytest.approx(spearmanr(*pair)[0], abs=1e-4)


def test_efficient_mprt_by_numpy():
    net = GapNet()
    explanation = xcam.explain(net, IMAGES, TARGETS, "saliency")
    again = xcam.explain(randomize(net, LAYERS), IMAGES, TARGETS, "saliency")

    def measure(maps):
        return entropy(np.histogram(maps.numpy().astype(float), bins=20)[0])

    rows = EfficientMPRT(n_bins=20).score(net, IMAGES, explanation)
    pairs = zip(explanation.maps, again.maps, strict=True)
    wanted = [measure(after) / measure(before) - 1 for before, after in pairs]
    assert_close(rows, torch.tensor(wanted).float())


def test_entropy_of_a_histogram():
    maps = torch.stack([torch.full((4, 4), 0.7), torch.arange(16.0).view(4, 4)])
    found = measure_histogram_entropy(maps, 4)
    assert_close(found, torch.tensor([0, np.log(4)], dtype=torch.float64))


def test_metrics_share_what_is_random_alike():
    """Both cascades and the efficient test end with the same model; two similarities share all."""
    net = GapNet()
    explanation = xcam.explain(net, IMAGES, TARGETS, "saliency")
    metrics = [
        MPRT(),
        MPRT(similarity="ssim"),
        MPRT("bottom_up"),
        EfficientMPRT(),
        EfficientMPRT(seed=1),
    ]
    with share_passes(IMAGES), run_settings() as runtime:
        for metric in metrics:
            metric.score(net, IMAGES, explanation)
    passes = [3, 3, 3, 1, 1]
    assert runtime.passes == 3 * sum(passes)
    assert runtime.passes - runtime.shared_passes == 3 * (3 + 0 + 2 + 0 + 1)


def draw_stripes(count):
    """Noise with a square of stripes, whose direction is the class, and a plain square."""
    generator = torch.Generator().manual_seed(0)
    images = 0.2 * torch.rand(count, 3, 16, 16, generator=generator)
    labels = torch.randint(0, 2, (count,), generator=generator)
    places = torch.randint(0, 9, (count, 4), generator=generator).tolist()
    stripes = (torch.arange(7) % 2).float().expand(7, 7)
    for image, label, (top, left, y, x) in zip(images, labels, places, strict=True):
        image[:, y : y + 7, x : x + 7] = 0.6
        image[:, top : top + 7, left : left + 7] = stripes if label else stripes.T
    return images, labels


@pytest.fixture(scope="module")
def trained():
    images, labels = draw_stripes(64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        convolutions = [nn.Conv2d(planes, 12, 3, 1, 1) for planes in (3, 12, 12)]
        layers = [layer for convolution in convolutions for layer in (convolution, nn.ReLU())]
        net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 2))
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(50):
        optimizer.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        optimizer.step()
    with torch.no_grad():
        assert (net(images).argmax(1) == labels).float().mean() > 0.9
    return net.eval(), images[:24], labels[:24]


def test_guided_backprop_fails_where_saliency_passes(trained):
    """On a trained net, as Adebayo et al. found: what it shows stays when the weights are gone."""
    net, images, labels = trained
    found = {}
    for name in ("saliency", "guided_backprop", "sobel"):
        explanation = xcam.explain(net, images, labels, name)
        found[name] = float(MPRT()(net, images, explanation))
    assert found["sobel"] == pytest.approx(1)
    assert found["saliency"] < 0.4
    assert found["guided_backprop"] > 0.6


def test_rounding_is_no_content():
    flat = torch.full((2, 8, 8), 0.3)
    noise = flat * (1 + 1e-7 * torch.sign(seeded(2, 8, 8) - 0.5))
    assert not noise.equal(flat)
    assert measure_histogram_entropy(noise, 100).tolist() == [0, 0]
