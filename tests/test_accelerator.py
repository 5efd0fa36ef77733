"""Everything in the registry on an accelerator: the same numbers, and few waits of the host.

Without a GPU these run on a pretend one, which also counts what the host reads: the tables below
are bounds of that. A GPU has finished all its work at each read, and has nothing to do until the
host has thought about it.
"""

import itertools
from dataclasses import replace

import pytest
import torch
from coarse import make_coarse
from evaluations import Pictures, loader, rows
from nets import pictures, unchanged
from trainings import Net, Noisy, plain, train, weights

import xcam
from xcam.core import TrainableMethod
from xcam.explanations.loading import load_explanation
from xcam.methods.bridges import BRIDGES
from xcam.models.toy import GapNet
from xcam.testing import quick
from xcam.testing.method_subject import prepare_net
from xcam.testing.metric_subject import MetricSubject
from xcam.testing.probe import ProbeNet

IMAGES = pictures(3, size=16)
TARGETS = [0, 3, 1]
METHODS, METRICS = xcam.list_methods(), xcam.list_metrics()
TRAINABLE = [name for name in METHODS if issubclass(xcam.get_method(name), TrainableMethod)]
ANY_CNN = [name for name in METHODS if name not in TRAINABLE and not xcam.get_method(name).spec.net]

# Reads of one call: whether images, logits and maps are finite.
EXPLAIN = 3
EXPLAIN_MORE = {
    "ablationcam": 1,  # the channels that are not dead
    "attention_gradient": 1,  # the tokens that the scores read
    "attention_rollout": 1,
    "aug_smooth": 6,  # the logits of each of the six images
    "cam": 2,  # whether the head is affine, and the pooling that of CAM
    "eigencam": 1,  # whether the eigenvectors have converged
    "eigen_smooth": 1,
    "eigengradcam": 1,
    "legrad": 1,
    "opticam": 3,  # the logits of each of the three images
    "random": 1,  # the seeds
    "scorecam": 1,  # the channels that are not flat
    **{cls.spec.name: torch.inf for cls in BRIDGES},  # whatever the other library reads
}
# Reads of one `score` of a batch: the highest class; whether maps, masks, and scores of changed
# images are finite and in their range.
SCORE = {
    "accuracy": 4, "masked_accuracy": 5, "entropy": 1, "sparseness": 1, "complexity": 2,
    "average_drop": 4, "average_gain": 4, "increase_in_confidence": 4,
    "insertion": 3, "deletion": 3, "pixel_flipping": 3, "selectivity": 3, "irof": 4,
    "perturbation_accuracy_negative": 3, "perturbation_accuracy_positive": 3,
    "remove_and_classify": 4,
    "road": 10, "road_lerf": 6, "road_morf": 6,  # two orders; the solver looks
    "coherency": 6, "adcc": 8, "arcc": 16,  # explain again
    "mprt": 2 + 2 * 4, "smooth_mprt": 2 + 2 * 5,  # and again: two looks at each explanation
    "pointing_game": 5, "energy_pointing_game": 4, "relevance_rank": 3, "pxap": 4,
    "faithfulness_correlation": 5, "sensitivity_n": 5, "faithfulness_estimate": 3,
    "monotonicity": 3, "completeness": 3, "non_sensitivity": 5, "sufficiency": 2,
    "aic": 9, "sic": 9,  # the solver looks; Pillow compresses on the host
    "attribution_localization": 4, "focus": 4, "top_k_intersection": 3,
    "max_box_acc": 4, "max_box_acc_v2": 4,  # OpenCV finds boxes on the host
}  # fmt: skip
STEPS = 2
LOOK_EVERY = 16  # steps of a training between two looks at the loss
FIT = 5  # the sums at the end of an epoch, whether weights are finite, the validation's
EVALUATE = 9  # of the net's weights and the first image, once
EVALUATE_BATCH = 12  # of one method and one metric, beside the clock's waits


def make_net(name):
    return prepare_net(quick(xcam.get_method(name)()), ProbeNet())


def explain(name, net, images):
    return xcam.explain(net, images, TARGETS, quick(xcam.get_method(name)()))


@pytest.mark.parametrize("name", METHODS)
def test_maps_are_the_same(name, accelerator):
    expected = explain(name, make_net(name), IMAGES)
    net, images = make_net(name).to(accelerator.device), IMAGES.to(accelerator.device)
    with unchanged(net, images):
        accelerator.assert_few_reads(torch.inf)
        got = explain(name, net, images)
        accelerator.assert_few_reads(EXPLAIN + EXPLAIN_MORE.get(name, 0))
    for tensor in (got.maps, got.raw, got.target, got.logits):
        assert tensor.device == accelerator.device
    accelerator.assert_close(got.maps, expected.maps)
    assert got.notes == expected.notes
    assert repr(got.method) == repr(expected.method)


@pytest.mark.parametrize("name", METRICS)
def test_scores_are_the_same(name, accelerator):
    metric = quick(xcam.get_metric(name)())
    subject = MetricSubject(metric)
    case, device = subject.build_case(), accelerator.device
    expected = metric.finish(subject.run(case))
    moved = case.explanation.to(device)
    truth = None if case.truth is None else case.truth.to(device)
    net, images = ProbeNet().to(device), case.images.to(device)
    accelerator.assert_few_reads(torch.inf)
    found = metric.score(net, images, moved, truth)
    accelerator.assert_few_reads(SCORE.get(name, 8))
    assert found.device == device or name.startswith("max_box_acc")
    accelerator.assert_close(metric.finish(found), expected, equal_nan=True)


@pytest.mark.parametrize("name", METRICS)
def test_scores_need_no_copy_on_the_host(name, accelerator, monkeypatch):
    subject = MetricSubject(make_coarse(name))
    case, device = subject.build_case(), accelerator.device
    arguments = [case.images.to(device), case.explanation.to(device)]
    arguments.append(None if case.truth is None else case.truth.to(device))
    net = ProbeNet().to(device)

    def refuse(*args, **kwargs):
        raise AssertionError("a tensor was copied to the host")

    for function in ("cpu", "numpy", "__array__"):
        monkeypatch.setattr(torch.Tensor, function, refuse)
    if name in ("max_box_acc", "max_box_acc_v2", "aic", "sic"):  # OpenCV and Pillow are there
        with pytest.raises(AssertionError, match="copied to the host"):
            subject.settings.score(net, *arguments)
    else:
        assert subject.settings.score(net, *arguments).device == device


def test_every_method_is_evaluated(accelerator, tmp_path):
    bridged = {cls.spec.name for cls in BRIDGES} - {"occlusion", "deeplift"}  # slow, and all alike
    methods = {name: quick(xcam.get_method(name)()) for name in ANY_CNN if name not in bridged}
    metrics = ["average_drop", "sparseness"]
    found = evaluate_both(accelerator, tmp_path, methods, metrics)
    assert_every_pair_has_values(found, methods, metrics)


def test_every_metric_is_evaluated(accelerator, tmp_path):
    metrics = {name: make_coarse(name) for name in METRICS}
    found = evaluate_both(accelerator, tmp_path, ["gradcam"], metrics)
    assert_every_pair_has_values(found, ["gradcam"], metrics)


def assert_every_pair_has_values(found, methods, metrics):
    assert [row for row in found if row["error"] is not None or not row["values"]] == []
    pairs = [(row["index"], row["method"], row["metric"]) for row in found]
    assert sorted(pairs) == sorted(itertools.product(range(4), methods, metrics))


def evaluate_both(accelerator, folder, methods, metrics):
    """Return the rows, which are the same on both devices."""
    for device, out in (("cpu", folder / "host"), (accelerator.device, folder / "there")):
        data = loader(Pictures(4, truth=True))
        xcam.evaluate(GapNet().to(device), data, methods, metrics, out=out, controls=False)
    there = rows(folder / "there")
    for found, expected in zip(there, rows(folder / "host"), strict=True):
        values = [torch.tensor(row["values"]) for row in (found, expected)]
        for row in (found, expected):  # tensors without memory of their own share no passes
            del row["passes_spent"], row["explain_passes_spent"]
        # It correlates differences of nearly equal scores, of which few digits are left.
        few_digits = found["metric"] == "faithfulness_correlation"
        tolerance = accelerator.tolerance * (10 if few_digits else 1)
        replace(accelerator, tolerance=tolerance).assert_close(*values, equal_nan=True)
        assert found | {"values": None} == expected | {"values": None}
    return there


def test_evaluate_reads_little_a_batch(accelerator, tmp_path):
    net = GapNet().to(accelerator.device)

    def evaluate(count):
        some = loader(Pictures(4 * count))
        folder = tmp_path / str(count)
        xcam.evaluate(net, some, "gradcam", "average_drop", out=folder, controls=False)

    evaluate(1)
    accelerator.assert_few_reads(torch.inf)
    evaluate(2)
    accelerator.assert_few_reads(EVALUATE + 2 * EVALUATE_BATCH, but="synchronize")


@pytest.mark.parametrize("method", [None, *TRAINABLE])
def test_fit_gives_the_same_net(method, accelerator, tmp_path):
    def fit(device, **arguments):
        data, held_out = (Noisy(count, size=16, noise=0.0) for count in (4 * STEPS, 4))
        return plain(
            data, ProbeNet(), method=method, batch_size=4, device=device, validation=held_out,
            **arguments,
        )  # fmt: skip

    expected, got = fit("cpu"), fit(accelerator.device)
    accelerator.assert_few_reads(FIT, but="_to_copy")
    assert {value.device for value in got.state_dict().values()} == {accelerator.device}
    stored = fit(accelerator.device, out=tmp_path / "run")
    loaded = xcam.load(tmp_path / "run" / "best.safetensors", model=ProbeNet())
    for net in (got, stored, loaded):
        for name, value in expected.state_dict().items():
            accelerator.assert_close(net.state_dict()[name], value)


def test_fit_reads_nothing_at_most_steps(accelerator):
    def count_reads(steps):
        data = Noisy(4 * steps, size=16, noise=0.0)
        plain(data, ProbeNet(), batch_size=4, device=accelerator.device)
        reads = accelerator.reads or {}
        found = sum(reads.values())
        reads.clear()
        return found

    assert count_reads(STEPS + LOOK_EVERY) <= count_reads(STEPS) + 1


def test_fit_with_everything_goes_on_there(accelerator, tmp_path):
    """With mixing, averaged weights, clipping and a schedule; interrupted after an epoch."""
    ema = {"decay": 0.8, "every": 2, "warmup": True}
    train(tmp_path / "host", epochs=2, ema=ema)
    train(tmp_path / "there", epochs=1, ema=ema, device=accelerator.device)
    there = train(tmp_path / "there", epochs=2, ema=ema, device=accelerator.device)
    host = xcam.load(tmp_path / "host" / "best.safetensors", model=Net())
    for name, value in weights(host).items():
        accelerator.assert_close(weights(there)[name], value)


def test_explanations_are_saved_and_loaded(accelerator, tmp_path):
    net, images = GapNet().to(accelerator.device), IMAGES.to(accelerator.device)
    got = explain("gradcam", net, images)
    got.save(tmp_path / "maps.safetensors")
    loaded = load_explanation(tmp_path / "maps.safetensors")
    for part in ("maps", "raw", "target", "logits"):
        assert torch.equal(getattr(loaded, part), getattr(got, part).cpu())
    assert loaded.to(accelerator.device).maps.device == accelerator.device
