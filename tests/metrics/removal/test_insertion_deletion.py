"""Insertion and deletion: closed forms, the papers' settings, and a loop that edits in place."""

import dataclasses

import numpy as np
import pytest
import torch
from by_hand import curve_of, edited, explained, seeded
from nets import unchanged
from scipy.ndimage import gaussian_filter
from torch import nn
from torch.testing import assert_close

from xcam.engine.forward import run_settings
from xcam.errors import ModelOutputError, XcamWarning
from xcam.metrics import Deletion, Insertion, Selectivity
from xcam.metrics.removal.insertion_deletion import blur_images, make_kernel_line
from xcam.models import Normalized
from xcam.models.toy import GapNet, LinearNet, SmallCNN

IMAGES = seeded(3, 3, 12, 10)
MAPS = seeded(3, 12, 10, seed=1) - 0.3
CLASSES = [4, 0, 2]
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)


def curves(metric, model, images=IMAGES, maps=MAPS, classes=CLASSES):
    return metric.score(model, images, explained(maps, classes))


def normalized(images):
    return (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


class TestClosedForm:
    """On a linear net each pixel adds its own share, whenever it goes or comes."""

    def shares(self, net):
        weights = net.fc.weight.view(5, 3, 12, 10)[CLASSES]
        return (weights * IMAGES).sum(1).flatten(1), net.fc.bias[CLASSES][:, None]

    @pytest.mark.parametrize("step", [1, 7, 1 / 28])
    def test_logits_of_a_linear_net(self, step):
        net = LinearNet((3, 12, 10))
        shares, bias = self.shares(net)
        order = MAPS.flatten(1).argsort(1, descending=True)
        steps = (
            [*range(0, 120, step), 120] if step != 1 / 28 else [n * 120 // 28 for n in range(29)]
        )
        sums = nn.functional.pad(shares.gather(1, order).cumsum(1), (1, 0))[:, steps]
        inserted = curves(Insertion(step=step, output="logit", fill="zero"), net)
        deleted = curves(Deletion(step=step, output="logit"), net)
        assert_close(inserted, bias + sums, atol=1e-5, rtol=1e-5)
        assert_close(deleted, bias + sums[:, -1:] - sums, atol=1e-5, rtol=1e-5)

    def test_map_of_true_contributions_scores_best(self):
        net = LinearNet((3, 12, 10))
        best = self.shares(net)[0].view(3, 12, 10)
        for metric, sign in (
            (Insertion(output="logit", fill="zero"), 1),
            (Deletion(output="logit"), -1),
        ):
            found = [metric.finish(curves(metric, net, maps=maps)) for maps in (best, MAPS, -best)]
            assert (sign * (found[0] - found[1]) > 0).all()
            assert (sign * (found[1] - found[2]) > 0).all()


class TestEnds:
    @pytest.mark.parametrize("space", ["input", "normalized"])
    def test_first_and_last_score(self, space):
        inner = GapNet()
        net = Normalized(inner, MEAN, STD)
        hidden = torch.zeros(3, 3, 12, 10)
        empty, start = (
            (net(hidden), net(blur_images(IMAGES, "rise", 11, 5.0)))
            if space == "input"
            else (inner(hidden), inner(blur_images(normalized(IMAGES), "rise", 11, 5.0)))
        )
        clean, empty, start = (z.softmax(1)[range(3), CLASSES] for z in (net(IMAGES), empty, start))
        deleted = curves(Deletion(space=space), net)
        inserted = curves(Insertion(space=space), net)
        assert_close(deleted[:, 0], clean)
        assert_close(deleted[:, -1], empty)
        assert_close(inserted[:, 0], start)
        assert_close(inserted[:, -1], clean)

    @pytest.mark.parametrize("kernel", ["rise", "gaussian"])
    def test_inserts_into_the_blur_of_its_kernel(self, kernel):
        found = curves(Insertion(kernel=kernel, size=7, sigma=1.5), SmallCNN())
        line = make_kernel_line(kernel, 7, 1.5).float()
        weights = torch.outer(line, line).expand(3, 1, 7, 7)
        soft = nn.functional.conv2d(IMAGES, weights, padding=3, groups=3)
        start = SmallCNN()(soft).softmax(1)[range(3), CLASSES].detach()
        assert_close(found[:, 0], start, atol=1e-6, rtol=0)

    def test_kernels_are_seen_by_the_model(self):
        rise, gaussian = (
            curves(Insertion(kernel=kernel, size=7, sigma=1.5), SmallCNN())[:, 0]
            for kernel in ("rise", "gaussian")
        )
        assert (rise - gaussian).abs().min() > 1e-5

    def test_fill(self):
        net, fill = GapNet(), torch.tensor([0.2, 0.9, 0.4])
        filled = net(fill.view(3, 1, 1).expand_as(IMAGES)).softmax(1)[range(3), CLASSES]
        assert_close(curves(Deletion(fill=fill), net)[:, -1], filled)
        assert_close(curves(Insertion(fill=fill), net)[:, 0], filled)


class TestSameNumbers:
    @pytest.mark.parametrize("step", [7, 40])
    def test_curves_match_an_inplace_loop(self, step):
        net = Normalized(SmallCNN(), MEAN, STD).double()
        images, inner = IMAGES.double(), net.model
        maps = MAPS.clone()
        maps[1] = (maps[1] * 3).round()  # with ties
        seen = normalized(images)
        kernel = np.zeros((11, 11))
        kernel[5, 5] = 1
        kernel = torch.from_numpy(gaussian_filter(kernel, 5)).expand(3, 1, 11, 11)
        soft = nn.functional.conv2d(seen, kernel, padding=5, groups=3)
        deleted, inserted = (
            curves(metric(step=step), net, images, maps) for metric in (Deletion, Insertion)
        )
        for i, target in enumerate(CLASSES):
            without = edited(seen[i], torch.zeros_like(seen[i]), maps[i], step)
            back = edited(soft[i], seen[i], maps[i], step)
            assert_close(deleted[i], curve_of(inner, without, target), atol=1e-6, rtol=0)
            assert_close(inserted[i], curve_of(inner, back, target), atol=1e-6, rtol=0)

    @pytest.mark.parametrize("metric", [Deletion(step=5), Insertion(step=5)])
    @pytest.mark.parametrize("size", [1, 2, 7, 1000])
    def test_curves_are_the_same_for_any_batch_size(self, metric, size):
        net = SmallCNN()
        whole = curves(metric, net)
        with run_settings(batch_size=size):
            assert_close(curves(metric, net), whole, atol=1e-6, rtol=0)

    @pytest.mark.parametrize("metric", [Deletion(), Insertion()])
    def test_curves_are_independent_of_the_other_images(self, metric):
        net, whole = SmallCNN(), curves(metric, SmallCNN())
        for i in range(3):
            alone = curves(metric, net, IMAGES[i : i + 1], MAPS[i : i + 1], CLASSES[i : i + 1])
            assert_close(alone, whole[i : i + 1], atol=1e-6, rtol=0)


class TestPresets:
    @pytest.mark.parametrize(("preset", "points"), [("rise", 225), ("castream", 29)])
    @pytest.mark.parametrize("metric", [Deletion, Insertion])
    def test_scores_at_224(self, metric, preset, points):
        images, maps = seeded(1, 1, 224, 224), seeded(1, 224, 224, seed=1)
        net = LinearNet((1, 224, 224))
        found = curves(metric(preset=preset), net, images, maps, [1])
        step = {"rise": 224, "castream": 1792}[preset]
        chosen = metric(preset=preset).parameters() | {"step": step}
        assert found.shape == (1, points)
        assert_close(found, curves(metric(**chosen), net, images, maps, [1]))

    def test_fields(self):
        rise, castream = Insertion(preset="rise"), Insertion(preset="castream")
        assert (rise.step, rise.kernel, rise.size, rise.sigma) == (1 / 224, "rise", 11, 5.0)
        assert (castream.step, castream.kernel, castream.size) == (1 / 28, "rise", 5)
        assert Insertion(preset="castream", output="logit").output == "logit"
        assert "preset" not in repr(rise)
        assert repr(dataclasses.replace(castream, output="logit")) == repr(
            Insertion(size=5, output="logit")
        )

    def test_default_is_the_castream_preset(self):
        assert repr(Deletion()) == repr(Deletion(preset="castream"))
        assert repr(Insertion(step=1 / 224)) == repr(Insertion(preset="rise"))

    def test_what_is_refused(self):
        with pytest.raises(
            ValueError, match="insertion has the presets 'rise', 'castream', got 'x'"
        ):
            Insertion(preset="x")
        with pytest.raises(ValueError, match=r"'castream' sets size=5, got size=7 beside it"):
            Insertion(preset="castream", size=7)

    @pytest.mark.parametrize(
        ("metric", "preset", "settings"),
        [
            (Insertion, "castream", {"size": 11}),
            (Insertion, "rise", {"step": 1 / 28}),
            (Deletion, "rise", {"step": 1 / 28}),
            (Selectivity, "whitebox", {"unit": "patch"}),
        ],
    )
    def test_default_value_given_beside_a_preset_is_refused(self, metric, preset, settings):
        ((name, value),) = settings.items()
        sentence = rf"preset '{preset}' sets {name}=.* got {name}={value!r} beside it"
        with pytest.raises(ValueError, match=sentence):
            metric(preset=preset, **settings)
        with pytest.raises(ValueError, match="beside it"):
            dataclasses.replace(metric(**settings), preset=preset)

    def test_what_the_preset_says_itself_may_be_said(self):
        assert repr(Insertion(preset="castream", size=5)) == repr(Insertion(preset="castream"))
        assert repr(Deletion(1 / 28, preset="castream")) == repr(Deletion())


class TestKernel:
    def test_published_vector(self):
        half = [0.08796, 0.08890, 0.09047, 0.09219, 0.09349, 0.09398]
        line = make_kernel_line("rise", 11, 5.0)
        assert_close(
            line, torch.tensor(half + half[-2::-1], dtype=torch.float64), atol=6e-6, rtol=0
        )
        weights = torch.outer(line, line)
        assert weights.aminmax() == pytest.approx((0.00774, 0.00883), abs=5e-6)

    @pytest.mark.parametrize(
        ("size", "sigma"), [(11, 5.0), (5, 5.0), (7, 0.8), (3, 20.0), (1, 1.0)]
    )
    def test_scipy_filter_of_a_single_one(self, size, sigma):
        one = np.zeros((size, size))
        one[size // 2, size // 2] = 1
        line = make_kernel_line("rise", size, sigma)
        expected = torch.from_numpy(gaussian_filter(one, sigma))
        assert_close(torch.outer(line, line), expected, atol=1e-12, rtol=0)

    def test_castream_is_nearly_a_box(self):
        line = make_kernel_line("rise", 5, 5.0)
        weights = torch.outer(line, line)
        assert (weights - 0.04).abs().max() < 1e-5

    def test_gaussian(self):
        line = make_kernel_line("gaussian", 5, 1.5)
        assert line.sum() == pytest.approx(1)
        assert line[0] / line[2] == pytest.approx(np.exp(-0.5 * (2 / 1.5) ** 2))
        assert line.equal(line.flip(0))

    def test_padded_with_zeros(self):
        soft = blur_images(torch.ones(1, 2, 12, 9), "rise", 3, 100.0)
        assert_close(soft[0, 0, 5, 4], torch.tensor(1.0))
        assert_close(soft[0, 1, 0, 4], torch.tensor(2 / 3), atol=1e-4, rtol=0)
        assert_close(soft[0, 0, 0, 0], torch.tensor(4 / 9), atol=1e-4, rtol=0)

    @pytest.mark.parametrize(
        ("field", "value"), [("kernel", "box"), ("size", 4), ("size", 0), ("sigma", 0.0)]
    )
    def test_what_is_refused(self, field, value):
        with pytest.raises(ValueError, match=f"{field} must be"):
            Insertion(**{field: value})


class TestResult:
    @pytest.mark.parametrize("metric", [Deletion(), Insertion()])
    def test_area_by_the_authors_formula(self, metric):
        found = curves(metric, SmallCNN())
        by_hand = (found.sum(1) - found[:, 0] / 2 - found[:, -1] / 2) / (found.shape[1] - 1)
        assert_close(metric.finish(found), by_hand)
        assert_close(metric.finish(found.mean(0)), by_hand.mean())
        shares, ordinates = metric.curve(found.mean(0))
        assert_close(torch.trapezoid(ordinates, shares), by_hand.mean())

    @pytest.mark.parametrize("metric", [Deletion(), Insertion()])
    def test_leaves_no_trace(self, metric):
        net, images, maps = SmallCNN(inplace=True).train(), IMAGES.clone(), MAPS.clone()
        with unchanged(net, images, maps):
            found = curves(metric, net, images, maps)
        assert not found.requires_grad
        assert_close(found, curves(metric, SmallCNN()))
        broken = IMAGES.clone()
        broken[0, 0, 0, 0] = torch.nan
        with unchanged(net, broken), pytest.raises(ModelOutputError, match="not finite"):
            curves(metric, net, broken)

    @pytest.mark.parametrize("metric", [Deletion(), Insertion()])
    def test_bad_maps(self, metric):
        with pytest.raises(ValueError, match="maps must be"):
            curves(metric, SmallCNN(), maps=MAPS[:2])
        with pytest.raises(ValueError, match="not finite"):
            curves(metric, SmallCNN(), maps=MAPS / 0)
        with pytest.warns(XcamWarning, match="flat"):
            curves(metric, SmallCNN(), IMAGES[:1], torch.zeros(1, 12, 10), [0])
