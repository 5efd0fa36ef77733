"""Coherency, complexity and their harmonic mean: closed forms, a plain loop, grad-cam's numbers."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from by_hand import explained, seeded
from nets import Staged, mixed, unchanged
from torch import nn
from torch.testing import assert_close

import xcam
from xcam.core import Method, MethodSpec, SavedMethod
from xcam.engine.forward import run_settings
from xcam.errors import XcamWarning
from xcam.imaging import normalize
from xcam.metrics import ADCC, ARCC, ROAD, Coherency, Complexity
from xcam.metrics.masked.adcc import compute_harmonic_mean
from xcam.metrics.masked.coherency import correlate, measure_coherency
from xcam.models import Normalized
from xcam.models.toy import GapNet, LinearNet, SmallCNN


class TestCorrelation:
    def test_against_numpy(self):
        first, second = seeded(4, 6, 7), seeded(4, 6, 7, seed=1)
        pairs = zip(first.flatten(1).numpy(), second.flatten(1).numpy(), strict=True)
        wanted = [np.corrcoef(a, b)[0, 1] for a, b in pairs]
        assert_close(correlate(first, second), torch.tensor(wanted).float())

    @pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
    def test_like_and_unlike(self, scale):
        maps = seeded(2, 6, 7)
        assert_close(correlate(maps, scale * maps), torch.ones(2))
        assert_close(correlate(maps, -scale * maps), -torch.ones(2))

    def test_flat_map_is_like_nothing(self):
        maps, flat = seeded(1, 6, 7), torch.full((1, 6, 7), 0.3)
        assert correlate(maps, flat).item() == -1
        assert correlate(flat, flat).item() == -1


class TestHarmonic:
    def test_mean(self):
        terms = [torch.tensor([x]) for x in (1.0, 0.5, 0.25)]
        assert compute_harmonic_mean(*terms).item() == pytest.approx(3 / 7)

    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_zero_where_a_term_is(self, place):
        terms = [torch.tensor([0.5, 0.5]) for _ in range(3)]
        terms[place][0] = 0
        assert compute_harmonic_mean(*terms).tolist() == [0, pytest.approx(0.5)]


class TestComplexity:
    def test_share_of_the_image(self):
        maps = torch.zeros(2, 4, 4)
        maps[0, 0], maps[1, :2] = 3.0, -1.0
        scores = Complexity().score(LinearNet(), torch.zeros(2, 3, 4, 4), explained(maps, [0, 0]))
        assert scores.tolist() == [0.25, 0.5]

    def test_none_takes_maps_as_they_are(self):
        maps = seeded(2, 4, 4) / 2
        images = torch.zeros(2, 3, 4, 4)
        scores = Complexity(normalize=None).score(LinearNet(), images, explained(maps, [0, 0]))
        assert_close(scores, maps.mean((1, 2)))


class TestCoherency:
    images = seeded(4, 3, 12, 12)

    @pytest.mark.parametrize("space", ["input", "normalized"])
    def test_what_hides_nothing_is_explained_alike(self, space):
        net = Normalized(GapNet(), (0.4, 0.5, 0.6), (0.2, 0.3, 0.2))
        explanation = xcam.explain(net, self.images, [0, 1, 2, 3])
        found = measure_coherency(
            net, self.images, explanation, torch.ones(4, 12, 12), "zero", space
        )
        assert_close(found, torch.ones(4))

    @pytest.mark.parametrize("space", ["input", "normalized"])
    @pytest.mark.parametrize("method", ["gradcam", "input_x_gradient"])
    def test_plain_loop(self, method, space):
        net = Normalized(SmallCNN(seed=2), (0.4, 0.5, 0.6), (0.2, 0.3, 0.2))
        explanation = xcam.explain(net, self.images, [0, 1, 2, 3], method)
        scores = Coherency("after_resize", space=space).score(net, self.images, explanation)
        for index, found in enumerate(scores):
            mask = normalize(explanation.maps[index])
            behind = 0 if space == "input" else net.mean * (1 - mask)
            hidden = (self.images[index] * mask + behind)[None]
            again = xcam.explain(net, hidden, index, explanation.method)
            both = np.corrcoef(explanation.maps[index].flatten(), again.maps.flatten())
            assert found.item() == pytest.approx((both[0, 1] + 1) / 2, abs=1e-5)

    def test_coherency_matches_pytorch_grad_cam(self):
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.metrics.arcc import Coherency as Theirs
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        net = GapNet(seed=1)
        explanation = xcam.explain(net, self.images, 2, "gradcam", layer="features", relu=True)
        maps = explanation.normalized()
        with GradCAM(net, [net.features]) as cam:
            targets = [ClassifierOutputTarget(2)] * len(self.images)
            theirs = Theirs()(self.images, maps.numpy(), targets, net, cam)
        ours = Coherency("after_resize").score(net, self.images, explanation)
        assert_close(ours, torch.from_numpy(theirs), atol=1e-4, rtol=0)

    def test_refuses_a_method_that_is_not_at_hand(self):
        explanation = explained(seeded(2, 8, 8), [0, 0])
        assert isinstance(explanation.method, SavedMethod)
        with pytest.raises(ValueError, match="'by_hand' is not installed here"):
            Coherency().score(LinearNet(), seeded(2, 3, 8, 8), explanation)

    @pytest.mark.parametrize("metric", [Coherency(), ADCC()])
    def test_refuses_maps_from_elsewhere(self, metric):
        images = seeded(2, 3, 8, 8)
        explanation = xcam.Explanation.of(seeded(2, 8, 8), images, 0)
        sentence = (
            "^these maps were made elsewhere, and coherency explains again; "
            "give an explanation by an xcam method$"
        )
        with pytest.raises(ValueError, match=sentence):
            metric.score(LinearNet(), images, explanation)

    @pytest.mark.parametrize("metric", [Coherency(), ADCC()])
    def test_refuses_a_callable_target(self, metric):
        explanation = xcam.explain(GapNet(), self.images, lambda output, rows: output[:, 0])
        with pytest.raises(ValueError, match="a callable target has none"):
            metric.score(GapNet(), self.images, explanation)


class TestADCC:
    net, images = GapNet(seed=1), seeded(5, 3, 12, 12)

    def test_terms(self):
        explanation = xcam.explain(self.net, self.images, method="gradcam", relu=True)
        found = ADCC().score(self.net, self.images, explanation)
        assert found.shape == (5, 4)
        total, coherency, complexity, drop = found.unbind(1)
        assert_close(coherency, Coherency().score(self.net, self.images, explanation))
        assert_close(complexity, Complexity().score(self.net, self.images, explanation))
        fall = xcam.metrics.AverageDrop().score(self.net, self.images, explanation) / 100
        assert_close(drop, fall.float())
        assert drop.any()
        wanted = [
            3 / (1 / a + 1 / (1 - b) + 1 / (1 - c))
            for a, b, c in zip(coherency.tolist(), complexity.tolist(), drop.tolist(), strict=True)
        ]
        assert_close(total, torch.tensor(wanted))

    def test_finish_of_adcc_is_vectorized(self):
        means = seeded(7, 4)
        assert torch.equal(ADCC().finish(means), means[:, 0])

    def test_flat_map_gives_zero(self):
        explanation = xcam.explain(self.net, self.images, method="gradcam", relu=True)
        explanation = explanation[[0]]
        explanation = replace(explanation, raw=torch.ones_like(explanation.raw))
        with pytest.warns(XcamWarning, match="the map is flat"):
            found = ADCC().score(self.net, self.images[:1], explanation)[0]
        assert found[0].item() == 0
        assert math.isfinite(found.sum())

    @pytest.mark.parametrize("metric", [Coherency(), ADCC(), ARCC()])
    @pytest.mark.parametrize("size", [1, 3])
    def test_any_chunk_size(self, metric, size):
        explanation = xcam.explain(self.net, self.images)
        whole = metric.score(self.net, self.images, explanation)
        with run_settings(batch_size=size):
            parts = metric.score(self.net, self.images, explanation)
        assert_close(parts, whole, atol=1e-5, rtol=0)

    @pytest.mark.parametrize("metric", [Coherency(), ADCC(), ARCC(), Complexity()])
    def test_metric_leaves_model_and_inputs_unchanged(self, metric):
        net = mixed(Staged())
        explanation = xcam.explain(net, self.images, 1, layer="layer")
        with unchanged(net, self.images, explanation.maps, explanation.raw):
            metric.score(net, self.images, explanation)

    @pytest.mark.parametrize("cls", [Coherency, ADCC, ARCC, Complexity])
    def test_refuses_bad_fields(self, cls):
        with pytest.raises(ValueError, match=r"normalize must be .*got 'minmax'"):
            cls(normalize="minmax")


class TestConventionsReachTheTerms:
    """Where images are masked, by what, and ROAD's settings: as of the terms on their own."""

    net, images = Normalized(GapNet(seed=1), (0.4, 0.5, 0.6), (0.2, 0.3, 0.2)), seeded(5, 3, 12, 12)
    road: ClassVar = {"fractions": (0.3, 0.6), "noise": 0.2, "seed": 3}

    def terms(self, metric, places):
        explanation = xcam.explain(self.net, self.images, [0, 1, 2, 3, 4], relu=True)
        return metric.score(self.net, self.images, explanation)[:, places], explanation

    def differ(self, cls, settings, places):
        """Each of the settings alone changes each of these terms."""
        default, _ = self.terms(cls(), places)
        for name, value in settings.items():
            changed, _ = self.terms(cls(**{name: value}), places)
            assert ((changed - default).abs().amax(0) > 1e-3).all(), name

    @pytest.mark.parametrize(
        "settings",
        [{"space": "normalized"}, {"fill": "mean"}, {"space": "normalized", "fill": "blur"}],
    )
    def test_adcc(self, settings):
        found, explanation = self.terms(ADCC(**settings), [1, 3])
        alone = [
            cls(**settings).score(self.net, self.images, explanation)
            for cls in (Coherency, xcam.metrics.AverageDrop)
        ]
        assert_close(found, torch.stack([alone[0], alone[1].float() / 100], 1))
        self.differ(ADCC, settings, [1, 3])

    @pytest.mark.parametrize("settings", [{"space": "normalized"}, {"fill": "mean"}])
    def test_coherency_of_arcc(self, settings):
        found, explanation = self.terms(ARCC(**settings), [1])
        assert_close(found[:, 0], Coherency(**settings).score(self.net, self.images, explanation))
        self.differ(ARCC, settings, [1])

    @pytest.mark.parametrize("space", ["input", "normalized"])
    def test_road_of_arcc(self, space):
        found, explanation = self.terms(ARCC(space=space, **self.road), [3])
        road = ROAD(output="prob", space=space, **self.road)
        gaps = road.finish(road.score(self.net, self.images, explanation))
        assert_close(found[:, 0], (2 * gaps).clamp(0, 1))
        other, _ = self.terms(ARCC(**self.road | {"seed": 4}, space=space), [3])
        assert (found - other).abs().max() > 1e-3


@dataclass(frozen=True)
class Brightness(Method):
    """An image is its own map, and so is what is left of it."""

    spec: ClassVar[MethodSpec] = MethodSpec("brightness", "Brightness", "", "control", "none")

    def maps(self, model, images, target):
        return images.mean(1)


class Mean(nn.Module):
    """Class 0 by three times the mean of the pixels, class 1 by zero."""

    def forward(self, images):
        mean = 3 * images.mean((1, 2, 3))
        return torch.stack([mean, torch.zeros_like(mean)], 1)


def test_arcc_of_three_pixels_agrees_with_its_closed_form():
    """The map of the image 1, ½, 0 is 1, ½, 0, and that of 1·1, ½·½, 0·0 is 1, ¼, 0.

    Without its brightest pixel the image is ½, ½, 0, without two 0, 0, 0; without its darkest one
    1, ½, ½, without two 1, 1, 1: of three in a row, what is missing is its neighbour's.
    """
    images = torch.tensor([1, 0.5, 0]).view(1, 1, 1, 3)
    explanation = xcam.explain(Mean(), images, 0, Brightness())
    metric = ARCC(fractions=(1 / 3, 2 / 3), noise=0.0)
    total, *terms = metric.score(Mean(), images, explanation)[0].tolist()
    coherency = (1 + 6 / math.sqrt(39)) / 2  # 0.980385
    sigmoid = [1 / (1 + math.exp(-logit)) for logit in (0, 1, 2, 3)]
    gap = ((sigmoid[2] - sigmoid[1]) + (sigmoid[3] - sigmoid[0])) / 2  # 0.301156
    assert terms == pytest.approx([coherency, 0.5, gap], abs=1e-4)
    assert [coherency, gap] == pytest.approx([0.980385, 0.301156], abs=1e-6)
    assert total == pytest.approx(3 / (1 / 0.980385 + 1 / 0.5 + 1 / 0.301156), abs=1e-4)
    assert total == pytest.approx(0.473145, abs=1e-4)
    # The other way round, the evidence goes last: R is cut off at 0, and with it all.
    upside_down = replace(explanation, raw=-explanation.raw)
    assert metric.score(Mean(), images, upside_down)[0, [0, 3]].tolist() == [0, 0]


class TestARCC:
    net, images = GapNet(seed=1), seeded(5, 3, 12, 12)

    def test_terms(self):
        explanation = xcam.explain(self.net, self.images, [0, 1, 2, 3, 4], relu=True)
        total, *terms = ARCC().score(self.net, self.images, explanation).unbind(1)
        road = ROAD((0.2, 0.4, 0.6, 0.8), "prob")
        gaps = road.finish(road.score(self.net, self.images, explanation))
        assert_close(terms[0], Coherency().score(self.net, self.images, explanation))
        assert_close(terms[1], Complexity().score(self.net, self.images, explanation))
        assert_close(terms[2], (2 * gaps).clamp(0, 1))
        assert bool((gaps < 0).any())
        assert bool((gaps > 0).any())
        for index, (a, b, c) in enumerate(zip(*(t.tolist() for t in terms), strict=True)):
            wanted = 3 / (1 / a + 1 / (1 - b) + 1 / c) if c else 0
            assert total[index].item() == pytest.approx(wanted, rel=1e-5)

    def test_finish_of_arcc_is_vectorized(self):
        means = seeded(7, 4)
        assert torch.equal(ARCC().finish(means), means[:, 0])

    def test_refuses_fractions_beyond_one(self):
        with pytest.raises(ValueError, match="fractions must"):
            ARCC(fractions=(0.5, 1.5))
