"""Cue localization: the pixel-wise average precision of the difference of two classes' maps."""

import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from commands import refused, run
from data_files import CUB_CLASSES, write_cub

import xcam
from xcam.metrics import PxAP
from xcam.models.toy import GapNet

EVEN = [k / 1000 for k in range(1001)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_cub(tmp_path_factory.mktemp("cub"))


@pytest.fixture(scope="module")
def pairs(root):
    return xcam.data.cub_cues(root, size=16)


@pytest.fixture(scope="module")
def net():
    return GapNet(seed=2)


def precision(scores, truth, thresholds):
    """Pixel-wise average precision of pooled pixels, threshold by threshold."""
    value, recall = 0.0, 0.0
    for threshold in sorted(thresholds, reverse=True):
        over = scores >= threshold
        hits, chosen = int((over & truth).sum()), int(over.sum())
        if chosen:
            value += hits / chosen * (hits / int(truth.sum()) - recall)
        recall = hits / int(truth.sum())
    return 100 * value


def scores_of(net, pair, scale):
    images, truth = (torch.stack([item[part] for item in pair]) for part in (0, 2))
    maps = [xcam.explain(net, images, k, "gradcam").maps for k in pair.classes]
    return scale((maps[0] - maps[1]).abs()).double(), truth.bool()


def minmax(maps):
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low)


class TestValues:
    @pytest.mark.parametrize(
        ("metric", "scale", "thresholds"),
        [
            (None, minmax, EVEN),
            (
                PxAP(scaling="clip", thresholds="log", step=0.01),
                lambda maps: maps.clamp(0, 1),
                [0, *(10 ** (-7 * k / 100) for k in range(100))],
            ),
        ],
    )
    def test_are_those_of_each_pair(self, net, pairs, metric, scale, thresholds):
        found = xcam.cue_localization(net, pairs, "gradcam", metric, batch_size=2)
        assert found[["first", "second"]].to_numpy().tolist() == [[0, 1], [0, 2], [1, 2]]
        assert found["parts"].tolist() == [1, 1, 2]
        assert found["differ"].tolist() == ["head", "wing", "head wing"]
        assert found["images"].tolist() == [4, 3, 3]
        for pair, value in zip(pairs, found["pxap"], strict=True):
            assert value == pytest.approx(
                precision(*scores_of(net, pair, scale), thresholds), abs=1e-3
            )

    def test_cumulative_pools_each_pair_with_those_before(self, net, pairs):
        found = xcam.cue_localization(net, pairs, "gradcam", cumulative=True)["pxap"]
        parts = [scores_of(net, pair, minmax) for pair in pairs]
        for end, value in enumerate(found, start=1):
            scores, truth = (torch.cat([part[k] for part in parts[:end]]) for k in (0, 1))
            assert value == pytest.approx(precision(scores, truth, EVEN), abs=1e-3)
        apart = xcam.cue_localization(net, pairs, "gradcam")["pxap"]
        assert found[0] == apart[0]
        assert found[1] != apart[1]

    def test_perfect_maps_give_100_and_flat_ones_the_share_of_the_cue(self):
        class Pair(list):
            classes, parts = (0, 1), ("wing",)

        @dataclass(frozen=True)
        class Splitting(xcam.Method):
            spec: ClassVar[xcam.MethodSpec] = xcam.MethodSpec("splitting", "", "", "cam", "none")

            def maps(self, model, images, target):
                return images[:, 0] * (target.classes == 0).to(images)[:, None, None]

        images = torch.zeros(2, 3, 8, 8)
        images[:, 0, :4] = 1
        truth = (images[:, 0] > 0).to(torch.uint8)
        pair = Pair(zip(images, (0, 1), truth, strict=True))
        net = GapNet()
        (perfect,) = xcam.cue_localization(net, [pair], Splitting())["pxap"]
        assert perfect == pytest.approx(100)
        truth[:] = 0
        truth[:, 6:] = 1
        flat = Pair(zip(torch.zeros(2, 3, 8, 8), (0, 1), truth, strict=True))
        (share,) = xcam.cue_localization(net, [flat], Splitting())["pxap"]
        assert share == pytest.approx(25)
        none = Pair(zip(images, (0, 1), torch.zeros_like(truth), strict=True))
        (nothing,) = xcam.cue_localization(net, [none], Splitting())["pxap"]
        assert math.isnan(nothing)

    def test_gradients_are_measured_as_well(self, net, pairs):
        found = xcam.cue_localization(net, pairs[:1], "saliency")
        images, truth = (torch.stack([item[part] for item in pairs[0]]) for part in (0, 2))
        maps = [xcam.explain(net, images, k, "saliency").maps for k in (0, 1)]
        scores = minmax((maps[0] - maps[1]).abs()).double()
        expected = precision(scores, truth.bool(), EVEN)
        assert found["pxap"][0] == pytest.approx(expected, abs=1e-3)


def test_refuses_methods_without_classes_and_other_sizes(net, pairs):
    with pytest.raises(ValueError, match="eigencam, as it is set, gives the same map for every"):
        xcam.cue_localization(net, pairs, "eigencam")

    class Pair(list):
        classes, parts = (0, 1), ("wing",)

    odd = Pair([(torch.zeros(3, 8, 8), 0, torch.zeros(4, 4, dtype=torch.uint8))])
    with pytest.raises(ValueError, match=r"must have the images' size \(8, 8\), got \(4, 4\)"):
        xcam.cue_localization(net, [odd])


def test_command_prints_the_means_of_the_groups(root, tmp_path):
    net = xcam.models.load("xcam:small_cnn", num_classes=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    net.categories = CUB_CLASSES[::-1]
    file = tmp_path / "net.safetensors"
    xcam.save(net, file)
    table = tmp_path / "pairs.csv"
    asked = ("cues", "--data", root, "--model", file, "--size", "16")
    done = run(*asked, "--method", "gradcam(relu=True)", "--csv", table)
    assert done.exit_code == 0, done.output
    pairs = xcam.data.cub_cues(root, size=16, categories=net.categories)
    found = xcam.cue_localization(net, pairs, "gradcam", relu=True)["pxap"]
    assert done.stdout.splitlines()[:3] == [
        f"1 part: {found[:2].mean():.2f}, 2 pairs",
        f"2 parts: {found[2]:.2f}, 1 pair",
        f"all: {found.mean():.2f}, 3 pairs",
    ]
    assert len(table.read_text().splitlines()) == 4
    assert "batch_size must be a positive int, got 0" in refused(*asked, "--batch-size", "0")
    assert "takes one method, got" in refused(*asked, "--method", "gradcam,saliency")


def test_resizes_the_difference_as_the_metric_does(net, pairs):
    found = xcam.cue_localization(net, pairs[:1], "gradcam", PxAP(resize="bicubic"))
    images, truth = (torch.stack([item[part] for item in pairs[0]]) for part in (0, 2))
    first, second = (xcam.explain(net, images, k, "gradcam").raw for k in pairs[0].classes)
    whole = torch.nn.functional.interpolate(
        (first - second).double()[:, None], (16, 16), mode="bicubic"
    )
    scores = minmax(whole[:, 0].abs())
    expected = precision(scores, truth.bool(), EVEN)
    assert found["pxap"][0] == pytest.approx(expected, abs=1e-3)
    bilinear = xcam.cue_localization(net, pairs[:1], "gradcam")["pxap"][0]
    assert abs(bilinear - expected) > 0.01


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"metric": "pxap"}, TypeError, "metric must be a PxAP, such as .*, got 'pxap'"),
        ({"metric": xcam.metrics.Insertion()}, TypeError, "metric must be a PxAP"),
        ({"method": ["gradcam"]}, TypeError, r"must be one method, such as .*\['gradcam'\]"),
        ({"pairs": "cub"}, TypeError, "pairs must be a list of pairs, such as .*, got 'cub'"),
        ({"pairs": 1}, TypeError, "pairs must be a list of pairs"),
        ({"pairs": [1]}, TypeError, "a pair must be such as xcam.data.cub_cues returns, got 1"),
        ({"batch_size": 0}, ValueError, "batch_size must be a positive int, got 0"),
    ],
)
def test_refuses_other_arguments(net, pairs, change, error, sentence):
    with pytest.raises(error, match=sentence):
        xcam.cue_localization(net, **{"pairs": pairs, **change})


def test_refuses_a_single_pair_and_a_net_of_fewer_classes(net, pairs):
    with pytest.raises(TypeError, match="pairs must be a list of pairs"):
        xcam.cue_localization(net, pairs[0])
    with pytest.raises(ValueError, match="a pair has class 2, and the model has 2 classes; take"):
        xcam.cue_localization(GapNet(num_classes=2), pairs[1:], "gradcam")
