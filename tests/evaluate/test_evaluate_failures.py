"""Failures on single images are recorded in rows; fatal errors abort."""

import inspect
import multiprocessing
import warnings
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import pytest
import torch
from evaluations import (
    CONTROLS,
    Brightness,
    Picky,
    Pictures,
    assert_same_rows,
    evaluate,
    loader,
    parts,
    plain,
    rows,
)
from nets import SharedReLU
from torch.utils.data import DataLoader
from torchvision.utils import save_image

import xcam
from xcam.core import Metric, MetricSpec
from xcam.errors import XcamWarning
from xcam.models.toy import GapNet, SmallCNN


@dataclass(frozen=True)
class Dark(Metric):
    """The mean of the map; fails on one image."""

    fails: float

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="dark", title="", paper="", formula="", higher_is_better=True, bounds=(0, 1)
    )

    def score(self, model, images, explanation, truth=None):
        means = images.flatten(1).mean(1)
        if bool(torch.isclose(means, torch.tensor(self.fails)).any()):
            raise ValueError("not this one")
        with torch.no_grad():
            if not torch.allclose(explanation.logits, model(images), atol=1e-4):
                raise RuntimeError("the logits are of other images")
        return explanation.maps.flatten(1).mean(1)

    def finish(self, mean):
        return mean


class TestFailures:
    def test_failed_metric_is_recorded_as_a_row(self, tmp_path):
        data = Pictures()
        data.images[5] += 3
        with pytest.warns(XcamWarning, match="something to say"):
            results = evaluate(loader(data), metrics=[Brightness(), "entropy"], out=tmp_path)
        found = [row for row in rows(tmp_path) if row["metric"] == "brightness"]
        failed = [row for row in found if row["error"]]
        assert {row["index"] for row in failed} == {5}
        assert len(failed) == 4
        for row in failed:
            assert row["error"] == "ValueError: too bright"
            assert row["values"] is row["shape"] is row["passes"] is None
            assert row["explain_passes"] == 1
        for row in found:
            if row["index"] != 5:
                assert row["values"] == [pytest.approx(float(data.images[row["index"]].mean()))]
                assert row["passes"] == 1
        table = results.table().query("metric == 'brightness'")
        assert set(table["errors"]) == {1}
        assert set(table["n"]) == {10}

    def test_infinite_statistic_is_recorded_as_an_error(self, tmp_path):
        data = Pictures()
        data.images[5] += 3
        with pytest.warns(XcamWarning):
            evaluate(loader(data), metrics=Brightness(kind="nan"), out=tmp_path)
        failed = [row for row in rows(tmp_path) if row["error"]]
        assert {row["index"] for row in failed} == {5}
        assert "brightness gave values that are not finite" in failed[0]["error"]

    def test_failed_method_is_recorded_as_a_row_of_each_metric(self, tmp_path):
        data = Pictures()
        data.images[5] += 3
        Picky.seen.clear()
        evaluate(loader(data), Picky(), ["sparseness", "entropy"], out=tmp_path)
        assert Picky.seen == [4, 4, 1, 1, 1, 1, 3]  # the batch of the failure image by image
        found = [row for row in rows(tmp_path) if row["method"] == "picky"]
        failed = [row for row in found if row["error"]]
        assert plain(failed, "index", "metric") == [(5, "entropy"), (5, "sparseness")]
        assert failed[0]["error"] == "ValueError: not this one"
        assert failed[0]["explain_passes"] is None
        assert failed[0]["target"] is not None
        evaluate(loader(Pictures()), Picky(), ["sparseness", "entropy"], out=tmp_path / "fine")
        fine = [row for row in rows(tmp_path / "fine") if row["method"] == "picky"]
        others = [row for row in found if row["index"] != 5]
        assert_same_rows(others, [row for row in fine if row["index"] != 5])

    @pytest.mark.parametrize("layer", [None, "relu"])
    def test_layer_called_twice_is_warned_only_if_the_user_chose_it(self, layer):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            evaluate(loader(), xcam.get_method("gradcam")(layer=layer), model=SharedReLU())
        told = [str(one.message) for one in caught if "is called 2 times" in str(one.message)]
        assert len(told) == (layer is not None)

    def test_failures_leave_all_other_images_their_own_map(self, tmp_path):
        """In one batch the model fails, the method fails and the metric fails, on an image each."""
        data, ids = Pictures(4), Pictures(4).ids
        data.images[1, 0, 0, 0] = torch.nan
        data.images[0] += 3  # on which Picky fails, and the maps are missing

        def mine(images, names, target):
            if ids[0] in names:
                raise ValueError("none of this one")
            return images.mean(1)

        metrics = [Dark(float(data.images[2].mean())), "entropy"]
        arguments = {"maps": mine, "controls": False, "out": tmp_path}
        evaluate(loader(data), Picky(), metrics, **arguments)
        found = rows(tmp_path)
        failed = [row for row in found if row["error"]]
        assert sorted(plain(failed, "index", "metric", "method")) == [
            (index, metric, method)
            for index, metric in [*product((0, 1), ("dark", "entropy")), (2, "dark")]
            for method in ("maps", "picky")
        ]
        for row in found:
            if row["metric"] == "dark" and not row["error"]:
                expected = float(data.images[row["index"]].mean())
                assert row["values"] == [pytest.approx(expected, rel=1e-5)]
                assert row["target"] == int(GapNet()(data.images[row["index"]][None]).argmax())

    def test_failed_image_is_recorded_as_a_row_of_each_method(self, tmp_path):
        data = Pictures()
        data.images[5, 0, 0, 0] = torch.nan
        evaluate(loader(data), out=tmp_path)
        failed = [row for row in rows(tmp_path) if row["error"]]
        assert plain(failed, "index", "method", "target") == [
            (5, method, None) for method in sorted(["gradcam", *CONTROLS])
        ]
        assert "values that are not finite" in failed[0]["error"]

    def test_method_that_always_fails_leaves_the_others(self, tmp_path):
        layer = xcam.get_method("gradcam")(layer="none")
        results = evaluate(loader(), layer, out=tmp_path)
        errors = {row["error"] for row in rows(tmp_path) if row["method"] == "gradcam"}
        assert len(errors) == 1
        assert "the model has no layer 'none'" in errors.pop()
        assert sorted(results.table().query("n == 11")["method"]) == CONTROLS

    @pytest.mark.parametrize("kind", [MemoryError, torch.OutOfMemoryError])
    def test_out_of_memory_splits_the_batch_and_then_aborts(self, tmp_path, monkeypatch, kind):
        limit = [2]

        def score(self, model, images, explanation, truth=None):
            if len(images) > limit[0]:
                raise kind("no memory")
            return images.flatten(1).mean(1)

        monkeypatch.setattr(Brightness, "score", score)
        evaluate(loader(), metrics=Brightness(), out=tmp_path / "split")
        assert {row["error"] for row in rows(tmp_path / "split")} == {None}
        limit[0] = 0
        with pytest.raises(kind, match="no memory"):
            evaluate(loader(), metrics=Brightness(), out=tmp_path / "ended")
        assert parts(tmp_path / "ended") == []

    def test_device_error_aborts(self, tmp_path, monkeypatch):
        def score(self, model, images, explanation, truth=None):
            raise RuntimeError("CUDA error: device-side assert triggered")

        monkeypatch.setattr(Brightness, "score", score)
        with pytest.raises(RuntimeError, match="device-side"):
            evaluate(loader(), metrics=Brightness(), out=tmp_path)
        assert parts(tmp_path) == []


class Broken(Pictures):
    """Pictures some of which cannot be read."""

    def __init__(self, broken, error=ValueError):
        super().__init__()
        self.broken, self.error = broken, error

    def __getitem__(self, index):
        if index in self.broken:
            raise self.error(f"picture {index}\nis cut off")
        return super().__getitem__(index)


class TestUnreadableImages:
    @pytest.mark.parametrize("workers", [0, 1])
    def test_unreadable_image_is_recorded_as_a_row_of_each_method_and_metric(
        self, tmp_path, workers
    ):
        def colors(images, ids, target):
            return images

        data = Broken({5, 8, 9, 10})  # one of the second batch, and the third batch whole
        settings = {
            "metrics": ["entropy", "sparseness"],
            "model": {"a": GapNet(), "b": SmallCNN()},
            "maps": {"mine": colors},
            "save_maps": True,
        }
        results = evaluate(loader(data, num_workers=workers), out=tmp_path / "some", **settings)
        found = rows(tmp_path / "some")
        failed = [row for row in found if row["error"]]
        methods = sorted(["gradcam", "mine", *CONTROLS])
        assert plain(failed, "index", "model", "method", "metric") == list(
            product([5, 8, 9, 10], "ab", methods, settings["metrics"])
        )
        for row in failed:
            assert row["image"] == data.ids[row["index"]]
            assert row["error"] == f"ValueError: picture {row['index']} is cut off"
            assert row["target"] is row["label"] is row["values"] is row["explain_passes"] is None
        evaluate(loader(), out=tmp_path / "all", **settings)
        others = [row for row in rows(tmp_path / "all") if row["index"] not in data.broken]
        assert_same_rows([row for row in found if not row["error"]], others)
        assert set(results.table()["errors"]) == {4}
        assert set(results.table()["n"]) == {7}
        counts, *reasons = str(results).splitlines()[-3:]
        assert counts.endswith("11 rows each, 80 errors")
        assert reasons == [
            f"first error of {', '.join(methods)} ({name}): ValueError: picture 5 is cut off"
            for name in "ab"
        ]

    def test_first_image_may_be_unreadable(self, tmp_path):
        data = Broken({0, 1})
        evaluate(loader(data, batch_size=1), target="label", out=tmp_path)
        assert {row["index"] for row in rows(tmp_path) if row["error"]} == {0, 1}
        assert len(parts(tmp_path)) == 11

    def test_data_without_a_readable_image_is_refused(self, tmp_path):
        data = Broken(range(11))
        sentence = r"none of the first 11 images can be read; .*10.png': ValueError: picture 10 is"
        with pytest.raises(ValueError, match=sentence):
            evaluate(loader(data), out=tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_out_of_memory_while_reading_aborts(self, tmp_path):
        with pytest.raises(MemoryError, match="picture 5"):
            evaluate(loader(Broken({5}, MemoryError)), out=tmp_path)
        assert parts(tmp_path) == ["batch-00000000.parquet"]

    def test_dry_run_counts_unreadable_images(self, capsys):
        evaluate(loader(Broken({1})), dry_run=True)
        assert capsys.readouterr().out.splitlines()[-2] == "4 of 16 rows are errors"

    def test_unreadable_file_of_a_folder_is_recorded(self, tmp_path):
        for index, image in enumerate(Pictures(8).images):
            save_image(image, tmp_path / f"{index}.png")
        (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:100])
        results = evaluate(xcam.data.folder(tmp_path, size=16), controls=False)
        (row,) = results.errors().to_dict("records")
        assert row["image"] == "1.png"
        assert "1.png' is not a picture that can be read" in row["error"]
        assert results.table()["n"].tolist() == [7]


def test_interrupted_evaluation_ends_its_workers():
    class Stopping(GapNet):
        def forward(self, images):
            if any(frame.function == "_run_share" for frame in inspect.stack()):
                raise KeyboardInterrupt
            return super().forward(images)

    data = DataLoader(Pictures(8), 1, num_workers=1)
    with pytest.raises(KeyboardInterrupt) as stopped:
        xcam.evaluate(Stopping(), data, "saliency", "sparseness", controls=False)
    assert stopped.traceback
    assert multiprocessing.active_children() == []
