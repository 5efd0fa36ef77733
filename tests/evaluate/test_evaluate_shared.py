"""Passes that methods and metrics of an evaluation share: how many, and that no number changes."""

import gc
import itertools
import time
import weakref
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from evaluations import Pictures, loader
from torch import nn
from torch.testing import assert_close

import xcam
from xcam.core import Metric, MetricSpec
from xcam.engine import forward, untouched
from xcam.engine.clean import clean_logits
from xcam.models import Normalized
from xcam.models.toy import GapNet, SmallCNN

CAMS = ["gradcam", "gradcam_plusplus", "xgradcam", "layercam", "hirescam", "eigengradcam"]
MIXED = ["eigencam", "gradcam", "conv_output", "layercam", "cam", "xgradcam"]
CONFIDENCE = ["average_drop", "average_gain", "increase_in_confidence"]
ROAD = ["road", "road_morf", "road_lerf"]
ADCC = ["adcc", "average_drop", "coherency", "complexity"]


@pytest.fixture
def net():
    return Normalized(GapNet(seed=1), (0.4, 0.5, 0.6), (0.2, 0.3, 0.2))


def count_passes(net, methods, metrics, count=6, batch_size=3, **arguments):
    """Images through the model for each one of the data, without the look at the first image."""
    data = loader(Pictures(count), batch_size)
    rows = []
    # Before: the layer is searched, and the first image looked at.
    xcam.evaluate(net, loader(Pictures(1)), methods, ["sparseness"], controls=False, **arguments)
    handle = net.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    try:
        results = xcam.evaluate(net, data, methods, metrics, controls=False, **arguments)
    finally:
        handle.remove()
    assert not results.errors().shape[0]
    return sum(rows) / count, results.to_pandas()


class TestCounts:
    @pytest.mark.parametrize("target", ["predicted", "label"])
    @pytest.mark.parametrize(
        ("methods", "metrics", "most"),
        [
            (CAMS, CONFIDENCE, 8),
            (MIXED, CONFIDENCE, 10),
            (MIXED[::-1], CONFIDENCE[::-1], 10),
            (["gradcam"], ROAD, 20),
            (["gradcam"], ROAD[::-1], 20),
            (["gradcam"], ADCC, 4),
            (["gradcam"], ADCC[::-1], 4),
            (["gradcam"], [*CONFIDENCE, "masked_accuracy"], 3),
            (["gradcam"], ["masked_accuracy", *CONFIDENCE, "accuracy"], 3),
            (["saliency", "input_x_gradient"], ["accuracy"], 2),
            (["gradcam", "layercam"], ["remove_and_classify"], 2 + 3 * 5),
        ],
    )
    def test_each_distinct_pass_is_made_once(self, net, methods, metrics, most, target):
        made, _ = count_passes(net, methods, metrics, target=target)
        assert made <= most

    def test_controls_share_the_clean_pass(self, net):
        rows = []
        net.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
        data = loader(Pictures(4))
        xcam.evaluate(net, data, xcam.get_method("gradcam")(layer="model.features"), ["entropy"])
        assert sum(rows) / 4 == 2

    @pytest.mark.parametrize("batch_size", [1, 2, 3])
    def test_chunks_of_a_batch_are_shared_too(self, net, batch_size):
        data, rows = loader(Pictures(5), 5), []
        net.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
        methods = [xcam.get_method(name)(layer="model.features") for name in CAMS]
        xcam.evaluate(net, data, methods, CONFIDENCE, controls=False, batch_size=batch_size)
        assert sum(rows) == 5 * 8
        assert max(rows) == batch_size

    def test_images_beside_one_that_fails_are_shared(self, net):
        """A picture that is not finite has error rows, and the others go on together."""
        data, rows = Pictures(4), []
        data.images[2] = torch.nan
        net.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
        methods = [xcam.get_method(name)(layer="model.features") for name in CAMS]
        results = xcam.evaluate(net, loader(data), methods, CONFIDENCE, controls=False)
        assert set(results.errors()["index"]) == {2}
        # The clean pass was made of each image alone when the batch failed, and again together.
        assert sum(rows) == 3 * 9


class TestCosts:
    """Rows say what a result takes by itself, whatever was there already."""

    orders: ClassVar = [1, -1]

    @pytest.mark.parametrize("target", ["predicted", "label"])
    def test_passes_do_not_depend_on_the_order(self, net, target):
        methods, metrics = CAMS[:2], [*ADCC, *ROAD, "accuracy", "masked_accuracy"]
        found = []
        for one, other in itertools.product(self.orders, self.orders):
            made, rows = count_passes(net, methods[::one], metrics[::other], target=target)
            mean = rows.groupby(["method", "metric"])[
                ["passes", "explain_passes", "passes_spent", "explain_passes_spent"]
            ].mean()
            found.append(mean[["passes", "explain_passes"]])
            assert (mean["passes_spent"] <= mean["passes"]).all()
            assert (mean["explain_passes_spent"] <= mean["explain_passes"]).all()
            explained = mean["explain_passes_spent"].groupby("method").first().sum()
            clean = 1 if target == "predicted" else 0
            assert mean["passes_spent"].sum() + explained + clean == pytest.approx(made)
        for other in found[1:]:
            assert other.equals(found[0])
        passes = found[0]["passes"].xs("gradcam")
        assert passes.to_dict() == {
            "accuracy": 1,
            "adcc": 3,
            "average_drop": 2,
            "coherency": 1,
            "complexity": 0,
            "masked_accuracy": 1,
            "road": 18,
            "road_lerf": 9,
            "road_morf": 9,
        }

    def test_seconds_are_those_of_the_pass_that_was_made_for_another(self):
        class Slow(SmallCNN):
            def forward(self, images):
                time.sleep(0.02)
                return super().forward(images)

        methods = [xcam.get_method(name)(layer="features") for name in CAMS[:2]]
        rows = xcam.evaluate(
            Slow(), loader(Pictures(2)), methods, CONFIDENCE, controls=False
        ).to_pandas()
        assert (rows["seconds"] > 0.02).all()  # two passes of a batch of two
        assert (rows["explain_seconds"] > 0.01).all()
        shared = rows[rows["passes_spent"] == 0]
        assert len(shared) == 8
        assert sorted(rows["explain_passes_spent"]) == [0] * 6 + [1] * 6
        assert (shared["seconds"] - shared["seconds_spent"] > 0.02).all()
        saved = rows["explain_seconds"] - rows["explain_seconds_spent"]
        assert saved[rows["explain_passes_spent"] == 1].eq(0).all()
        assert saved[rows["explain_passes_spent"] == 0].gt(0.01).all()


def list_metrics():
    return [
        name
        for name in xcam.list_metrics()
        if xcam.get_metric(name).spec.truth in ("none", "labels")
    ]


class TestSameNumbers:
    def test_every_metric_scores_as_alone(self, net):
        """All of them on one map, after each other and in the other order."""
        data, names = Pictures(3), list_metrics()
        quick = {"n_samples": 2, "n_segments": 9, "n_steps": 2, "step": 1 / 4, "steps": 4}
        metrics = {}
        for name in names:
            metric = xcam.get_metric(name)
            known = metric().parameters()
            metrics[name] = metric(
                **{k: v for k, v in quick.items() if known.get(k) is not None and k in known}
            )
        labels = torch.tensor(data.labels)
        explanation = xcam.explain(net, data.images, method="gradcam")
        for chosen in (metrics, dict(reversed(metrics.items()))):
            results = xcam.evaluate(net, loader(data), "gradcam", chosen, controls=False)
            for name, metric in chosen.items():
                truth = labels if metric.spec.truth == "labels" else None
                alone = metric.score(net, data.images, explanation, truth)
                found = results.to_pandas(name).sort_values("index")["values"]
                values = np.stack(found.to_list())
                assert_close(torch.from_numpy(values), alone.float().view(3, -1), **NEAR)

    def test_settings_that_differ_are_not_mixed_up(self, net):
        data = Pictures(3)
        cls = xcam.get_metric("average_drop")
        metrics = {
            "plain": cls(),
            "muted": cls(muted=0.5),
            "binary": cls(muted=0.5, binary=True),
            "mean": cls(fill="mean"),
            "gray": cls(fill=torch.tensor(0.5)),
            "white": cls(fill=torch.tensor(1.0)),
            "normalized": cls(space="normalized"),
            "after": cls(normalize="after_resize"),
        }
        explanation = xcam.explain(net, data.images, method="gradcam")
        table = xcam.evaluate(net, loader(data), "gradcam", metrics, controls=False).table()
        found = dict(zip(table["metric"], table["value"], strict=True))
        for name, metric in metrics.items():
            assert found[name] == pytest.approx(float(metric(net, data.images, explanation)))
        assert len({round(value, 6) for value in found.values()}) == len(metrics)


NEAR = {"atol": 1e-5, "rtol": 1e-5}


@dataclass(frozen=True)
class Retrained(Metric):
    """The mean probability of the explained class after the weights were changed, and put back."""

    through_data: bool = False
    spec: ClassVar[MetricSpec] = MetricSpec(
        name="retrained", title="", paper="", formula="", higher_is_better=True, bounds=(0, 1)
    )

    def score(self, model, images, explanation, truth=None):
        scores = [self.read(model, images, explanation)]
        saved = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with torch.no_grad():
            for parameter in model.parameters():
                (parameter.data if self.through_data else parameter).mul_(-1)
        scores.append(self.read(model, images, explanation))
        model.load_state_dict(saved)
        scores.append(self.read(model, images, explanation))
        return torch.stack(scores, 1)

    def read(self, model, images, explanation):
        again = xcam.explain(model, images, explanation.target, explanation.method)
        with untouched(model):
            logits = clean_logits(model, images)
        assert_close(again.logits, logits)
        return again.raw.flatten(1).mean(1)

    def finish(self, mean):
        return mean[..., 0]


class TestNested:
    @pytest.mark.parametrize("through_data", [False, True])
    def test_metric_that_changes_weights_and_explains_again(self, net, through_data):
        data, metric = Pictures(3), Retrained(through_data)
        explanation = xcam.explain(net, data.images)
        alone = metric.score(net, data.images, explanation)
        results = xcam.evaluate(
            net, loader(data), ["gradcam", "layercam"], [metric, "average_drop"], controls=False
        )
        rows = results.to_pandas("retrained").query("method == 'gradcam'").sort_values("index")
        found = torch.from_numpy(np.stack(rows["values"].to_list()))
        assert_close(found, alone, **NEAR)
        assert (found[:, 0] - found[:, 1]).abs().min() > 1e-6
        assert_close(found[:, 0], found[:, 2])
        drop = results.table().query("metric == 'average_drop' and method == 'gradcam'")["value"]
        wanted = xcam.get_metric("average_drop")()(net, data.images, explanation)
        assert float(drop.iloc[0]) == pytest.approx(float(wanted))

    def test_metric_may_write_to_what_it_is_given(self, net):
        data = Pictures(3)
        clean = xcam.evaluate(net, loader(data), CAMS[:2], ["average_drop"], controls=False)
        soiled = xcam.evaluate(
            net, loader(data), CAMS[:2], [Scribbler(), "average_drop"], controls=False
        )
        drops = soiled.table().query("metric == 'average_drop'")["value"]
        assert list(drops) == pytest.approx(list(clean.table()["value"]))


@dataclass(frozen=True)
class Scribbler(Metric):
    spec: ClassVar[MetricSpec] = MetricSpec(
        name="scribbler", title="", paper="", formula="", higher_is_better=True, bounds=(0, 1)
    )

    def score(self, model, images, explanation, truth=None):
        with untouched(model):
            logits = clean_logits(model, images)
        found = logits.mean(1)
        logits.zero_()
        return found

    def finish(self, mean):
        return mean


def test_nothing_outlives_its_batch():
    kept, alive = [], []

    class Watching(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = SmallCNN()

        def forward(self, images):
            logits = self.inner(images)
            kept.append(weakref.ref(logits))
            return logits

    @dataclass(frozen=True)
    class Last(Metric):
        spec: ClassVar[MetricSpec] = MetricSpec(
            name="last", title="", paper="", formula="", higher_is_better=True, bounds=(0, 1)
        )

        def score(self, model, images, explanation, truth=None):
            alive.append(sum(one() is not None for one in kept))
            return images.flatten(1).mean(1)

        def finish(self, mean):
            return mean

    methods = [xcam.get_method(name)(layer="inner.features") for name in CAMS]
    metrics = [*CONFIDENCE, Last()]
    xcam.evaluate(Watching(), loader(Pictures(6), 2), methods, metrics, controls=False)
    gc.collect()
    assert not any(one() is not None for one in kept)
    # The clean pass is kept for the batch, whichever method it is.
    assert len(alive) == 3 * len(CAMS)
    assert set(alive) == {1}


@pytest.mark.parametrize("precision", ["full", "bf16"])
def test_rows_with_shared_passes_equal_those_without(net, precision, monkeypatch):
    """Also by an autocast model: what is shared was computed in the same precision."""
    from contextlib import nullcontext

    metrics = [*CONFIDENCE, "masked_accuracy", "coherency", "road_morf"]
    settings = {"controls": False, "precision": precision}
    shared = xcam.evaluate(net, loader(Pictures(4)), CAMS, metrics, **settings).to_pandas()
    monkeypatch.setattr("xcam._evaluate.scoring.share_passes", lambda *_: nullcontext())
    alone = xcam.evaluate(net, loader(Pictures(4)), CAMS, metrics, **settings).to_pandas()
    assert (alone["passes"] == alone["passes_spent"]).all()
    keys = ["index", "method", "metric"]
    one, other = (rows.sort_values(keys, ignore_index=True) for rows in (shared, alone))
    assert one["passes"].equals(other["passes"])
    for left, right in zip(one["values"], other["values"], strict=True):
        np.testing.assert_allclose(left, right, atol=1e-6, rtol=1e-6)
    assert forward.current_runtime().passes == 0
