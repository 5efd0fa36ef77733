"""Average drop, gain and increase: by hand on a linear net, in a plain loop, beside other codes."""

from functools import partial

import pytest
import torch
from by_hand import explained, seeded
from nets import Counting, Staged, Wrapped, mixed, unchanged
from torch import nn
from torch.testing import assert_close

import xcam
from xcam import get_metric
from xcam.engine import untouched
from xcam.engine.clean import clean_logits
from xcam.engine.forward import run_settings
from xcam.engine.shared import share_passes
from xcam.errors import ModelOutputError
from xcam.imaging import normalize, resize
from xcam.metrics import AverageDrop, AverageGain, IncreaseInConfidence
from xcam.metrics.masked.confidence import compute_relative_drop, measure_confidences
from xcam.metrics.masked.muting import mute
from xcam.models import Normalized
from xcam.models.toy import GapNet, LinearNet, SmallCNN

METRICS = [AverageDrop, AverageGain, IncreaseInConfidence]


class Reading(nn.Module):
    """Two logits from the mean of an image: `gain` · mean for class 0, zero for class 1."""

    def __init__(self, gain=1.0):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(float(gain)))

    def forward(self, images):
        mean = self.gain * images.mean((1, 2, 3))
        return torch.stack([mean, torch.zeros_like(mean)], 1)


class Flickering(nn.Module):
    """Answers each image of a later pass a little higher."""

    def __init__(self, by):
        super().__init__()
        self.by = by
        self.passes = 0

    def forward(self, images):
        self.passes += 1
        higher = torch.full((len(images),), self.by / self.passes)
        return torch.stack([higher, torch.zeros(len(images))], 1)


class Placed(nn.Module):
    """Answers by the place in the chunk and the size of the chunk, as kernels may round."""

    def forward(self, images):
        place = torch.arange(len(images)) + 1e-3 * len(images)
        return torch.stack([place, torch.zeros(len(images))], 1)


class Greedy(Placed):
    """Runs out of memory from a number of images on; `sizes` lists the chunks that it was given."""

    room = 9

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, images):
        self.sizes.append(len(images))
        if len(images) > self.room:
            raise torch.OutOfMemoryError
        return super().forward(images)


def of(metric, model, images, explanation):
    return metric.finish(metric.score(model, images, explanation).mean(0)).item()


class TestClosedForm:
    """With all pixels 1, the mean of a masked image is the mean of the mask."""

    def numbers(self, gain, target):
        images = torch.ones(1, 3, 8, 8)
        maps = torch.zeros(1, 8, 8)
        maps[:, :2] = 1  # a quarter
        explanation = explained(maps, [target])
        return [of(cls(), Reading(gain), images, explanation) for cls in METRICS]

    def test_drop(self):
        p, o = (torch.tensor(x).sigmoid() for x in (2.0, 0.5))
        drop, gain, increase = self.numbers(2.0, 0)
        assert drop == pytest.approx(100 * float((p - o) / p), rel=1e-6)
        assert (gain, increase) == (0, 0)

    def test_gain(self):
        p, o = (torch.tensor(x).sigmoid() for x in (-2.0, -0.5))
        drop, gain, increase = self.numbers(2.0, 1)
        assert gain == pytest.approx(100 * float((o - p) / (1 - p)), rel=1e-6)
        assert (drop, increase) == (0, 100)

    def test_certain_of_the_class(self):
        drop, gain, increase = self.numbers(40.0, 0)  # p is 1 in float32
        assert drop == pytest.approx(100 * 4.54e-5, rel=1e-3)
        assert (gain, increase) == (0, 0)

    def test_gain_of_the_nearly_certain(self):
        drop, gain, increase = self.numbers(-32.0, 1)  # 1 − p is 1e-14, 1 − o is 3e-4
        assert drop == pytest.approx(100 * 3.354e-4, rel=1e-3)
        assert gain == 0
        drop, gain, increase = self.numbers(-60.0, 0)  # p is 9e-27
        assert drop == 0
        assert gain == pytest.approx(100 * 3.06e-7, rel=1e-2)
        assert increase == 0  # by 3e-7, which two passes differ by

    def test_no_probability_to_lose_and_none_to_win(self):
        assert self.numbers(1e6, 0) == [0, 0, 0]  # p = o = 1
        assert self.numbers(-1e6, 0) == [0, 0, 0]  # p = o = 0

    def test_relative_drop(self):
        p, o = torch.tensor([0.5, 0.5, 0.0, 1.0]), torch.tensor([0.1, 0.9, 0.5, 0.0])
        assert_close(compute_relative_drop(p, o), torch.tensor([0.8, 0.0, 0.0, 1.0]))


class TestMapOfOnes:
    @pytest.mark.parametrize("fill", ["zero", "mean", "blur", torch.tensor(0.3)])
    @pytest.mark.parametrize("space", ["input", "normalized"])
    @pytest.mark.parametrize("size", [1, 2, 3, 5, None])
    def test_map_of_ones_scores_zero(self, fill, space, size):
        net = Normalized(SmallCNN(), (0.4, 0.5, 0.6), (0.2, 0.3, 0.2))
        explanation = explained(torch.ones(5, 9, 9), [0, 1, 2, 3, 4])
        with run_settings(batch_size=size):
            for cls in METRICS:
                metric = cls(normalize=None, fill=fill, space=space)
                scores = metric.score(net, seeded(5, 3, 9, 9), explanation)
                assert torch.equal(scores, torch.zeros_like(scores))


class TestRounding:
    @pytest.mark.parametrize(("by", "default", "strict"), [(2e-6, 0, 100), (2e-5, 100, 100)])
    def test_increase_within_rounding_counts_only_if_strict(self, by, default, strict):
        images, explanation = seeded(2, 3, 4, 4), explained(seeded(2, 4, 4), [0, 0])
        model = Flickering(by)
        assert of(IncreaseInConfidence(), model, images, explanation) == default
        assert of(IncreaseInConfidence(strict=True), model, images, explanation) == strict

    @pytest.mark.parametrize("cls", METRICS)
    @pytest.mark.parametrize(
        ("size", "chunks"), [(1, [1] * 5), (3, [3, 2]), (4, [4, 1]), (7, [5]), (None, [5])]
    )
    def test_both_passes_of_an_image_have_the_same_place_in_a_chunk_of_the_same_size(
        self, cls, size, chunks
    ):
        net, images = Counting(GapNet()), seeded(5, 3, 8, 8)
        explanation = explained(seeded(5, 8, 8), [0] * 5)
        with run_settings(batch_size=size):
            cls().score(net, images, explanation)
            assert net.sizes == chunks * 2
            assert not IncreaseInConfidence(strict=True).score(Placed(), images, explanation).any()

    def test_same_place_and_size_where_memory_runs_out(self):
        """Clean passes of an earlier step were larger than those that the masked images get."""
        images, explanation = seeded(4, 3, 8, 8), explained(seeded(4, 8, 8), [0] * 4)
        net = Greedy()
        with share_passes(images), run_settings():
            with untouched(net):
                clean_logits(net, images)
            net.room = 2
            scores = IncreaseInConfidence(strict=True).score(net, images, explanation)
        assert net.sizes == [4, 4, 2, 2, 2, 2]
        assert not scores.any()

    @pytest.mark.parametrize("size", [1, 2, 3, None])
    @pytest.mark.parametrize("space", ["input", "normalized"])
    def test_mask_of_what_is_zero_anyway_changes_no_bit(self, size, space):
        """The masked image is the image, which the mask does not tell."""
        net = Normalized(SmallCNN(seed=2), (0.0,) * 3, (0.3, 0.2, 0.4))
        images, maps = seeded(5, 3, 20, 20), torch.ones(5, 20, 20)
        images[..., :9], maps[..., :9] = 0, 0.3
        explanation = explained(maps, [0, 1, 2, 3, 4])
        with run_settings(batch_size=size):
            p, o = measure_confidences(net, images, explanation, maps, space=space)
        assert torch.equal(p, o)


def by_hand(model, images, explanation, muted=0, space="input", after=False, binary=False):
    """p and o, an image at a time, with the mask applied where it is said."""
    pairs = []
    for image, raw, target in zip(images, explanation.raw, explanation.target, strict=True):
        size = images.shape[2:]
        mask = resize(raw[None] if after else normalize(raw[None]), tuple(size))
        mask = mute(normalize(mask) if after else mask, muted)
        mask = (mask > 0).float() if binary else mask
        if space == "normalized":
            hidden = (image - model.mean) / model.std * mask * model.std + model.mean
        else:
            hidden = image * mask
        with torch.no_grad():
            pairs.append([model(x[None]).softmax(1)[0, target] for x in (image, hidden)])
    return torch.tensor(pairs, dtype=torch.float64).unbind(1)


SETTINGS = [
    {},
    {"muted": 0.5, "space": "normalized"},
    {"muted": 0.85, "after": True},
    {"muted": 0.7, "binary": True},
]


class TestPlainLoop:
    net = Normalized(SmallCNN(seed=3).double(), (0.4, 0.5, 0.6), (0.2, 0.3, 0.2))
    images = seeded(6, 3, 16, 12, dtype=torch.float64)

    @pytest.mark.parametrize("settings", SETTINGS)
    @pytest.mark.parametrize("method", ["gradcam", "input_x_gradient"])
    def test_same_numbers(self, settings, method):
        explanation = xcam.explain(self.net, self.images, None, method)
        reduced = explanation.raw if method == "gradcam" else explanation.raw.sum(1)
        p, o = by_hand(self.net, self.images, explained_as(explanation, reduced), **settings)
        fields = {name: value for name, value in settings.items() if name != "after"}
        fields["normalize"] = "after_resize" if settings.get("after") else "before_resize"
        drop, gain, increase = (
            cls(**fields).score(self.net, self.images, explanation) / 100 for cls in METRICS
        )
        assert_close(drop, (p - o).clamp(min=0) / p, atol=1e-6, rtol=0)
        assert_close(gain, (o - p).clamp(min=0) / (1 - p), atol=1e-6, rtol=0)
        assert_close(increase, (o > p).double())
        assert drop.any() or gain.any()

    @pytest.mark.parametrize("cls", METRICS)
    @pytest.mark.parametrize("size", [1, 3, 100])
    def test_any_chunk_size(self, cls, size):
        explanation = xcam.explain(self.net, self.images)
        whole = cls().score(self.net, self.images, explanation)
        with run_settings(batch_size=size):
            parts = cls().score(self.net, self.images, explanation)
        assert_close(parts, whole, atol=1e-4, rtol=0)

    def test_class_is_the_one_explained(self):
        explanation = xcam.explain(self.net, self.images, [0, 1, 2, 3, 4, 0])
        p, o = measure_confidences(self.net, self.images, explanation, explanation.normalized())
        clean = self.net(self.images).softmax(1)[range(6), [0, 1, 2, 3, 4, 0]]
        assert_close(p, clean.detach())
        assert (p != o).all()


def explained_as(explanation, raw):
    return explained(raw, explanation.target)


class TestModels:
    def test_confidence_of_a_single_logit_is_its_sigmoid(self):
        net = Wrapped(LinearNet(num_classes=5), lambda logits: logits[:, :1])
        images, explanation = seeded(3, 3, 8, 8), explained(seeded(3, 8, 8), [0, 0, 0])
        p, _ = measure_confidences(net, images, explanation, explanation.maps)
        assert_close(p.float(), net(images).sigmoid()[:, 0].detach())

    @pytest.mark.parametrize("cls", METRICS)
    def test_metric_leaves_model_and_inputs_unchanged(self, cls):
        net, images = mixed(Staged()), seeded(3, 3, 8, 8)
        explanation = explained(seeded(3, 8, 8), [0, 1, 2])
        with unchanged(net, images, explanation.maps):
            cls().score(net, images, explanation)

    def test_refuses_scores_that_are_not_finite(self):
        net = Wrapped(LinearNet(), lambda logits: logits / 0)
        with pytest.raises(ModelOutputError, match="image 0 is not finite"):
            AverageDrop().score(net, seeded(2, 3, 8, 8), explained(seeded(2, 8, 8), [0, 0]))

    def test_refuses_a_class_that_there_is_not(self):
        with pytest.raises(ValueError, match="class 5 is out of range: the model has 5 classes"):
            AverageDrop().score(LinearNet(), seeded(2, 3, 8, 8), explained(seeded(2, 8, 8), [0, 5]))

    def test_refuses_maps_of_other_images(self):
        with pytest.raises(ValueError, match=r"maps must be \(2, 8, 8\)"):
            AverageDrop().score(LinearNet(), seeded(2, 3, 8, 8), explained(seeded(2, 4, 4), [0, 0]))


@pytest.mark.parametrize("name", ["average_drop", "average_gain", "increase_in_confidence"])
class TestFields:
    def test_metric_made_by_name_takes_its_fields(self, name):
        metric = get_metric(name)(muted=0.85, space="normalized")
        assert "muted=0.85" in repr(metric)
        assert metric.finish(torch.tensor([[3.0], [4.0]])[:, 0]).tolist() == [3.0, 4.0]

    def test_refuses_bad_values(self, name):
        with pytest.raises(
            ValueError, match=rf"{name}: muted must be a finite number in \[0, 1\), .*got 1"
        ):
            get_metric(name)(muted=1)


class TestOtherCodes:
    """On what they share: maps in [0, 1], zero fill where the model takes its images."""

    net, images = GapNet(seed=1), seeded(4, 3, 16, 16)

    def test_torchcam(self):
        from torchcam.methods import GradCAM
        from torchcam.metrics import ClassificationMetric

        # Its extractor is handed the softmax, so that what it scores is the probability's CAM.
        with GradCAM(self.net, "features") as extractor:
            theirs = ClassificationMetric(extractor, partial(torch.softmax, dim=-1))
            theirs.update(self.images)
            summary = theirs.summary()
        explanation = xcam.explain(
            self.net, self.images, method="gradcam", layer="features", output="prob", relu=True
        )
        drop = of(AverageDrop(), self.net, self.images, explanation) / 100
        increase = of(IncreaseInConfidence(strict=True), self.net, self.images, explanation) / 100
        assert drop == pytest.approx(summary["avg_drop"], abs=1e-5)
        assert drop > 0.01
        assert increase == summary["conf_increase"]

    def test_grad_cam_drops_without_dividing(self):
        from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

        explanation = xcam.explain(self.net, self.images, method="gradcam")
        maps = explanation.normalized()
        targets = [ClassifierOutputSoftmaxTarget(c) for c in explanation.target.tolist()]
        theirs = torch.from_numpy(DropInConfidence()(self.images, maps.numpy(), targets, self.net))
        p, _ = measure_confidences(self.net, self.images, explanation, maps)
        ours = AverageDrop(normalize=None).score(
            self.net, self.images, explained(maps, explanation.target)
        )
        assert_close(ours * p / 100, theirs.double(), atol=1e-6, rtol=0)
        assert theirs.any()
