"""`evaluate`: its rows, the data that it takes, and what it leaves as it was."""

import gc
import itertools
import json
import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from evaluations import (
    CONTROLS,
    NET,
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
from torch.utils.data import Subset

import xcam
from xcam._evaluate import dry_run
from xcam._evaluate.dry_run import format_estimate
from xcam.engine import forward
from xcam.errors import XcamWarning
from xcam.models.toy import GapNet, SmallCNN
from xcam.results.parts import Row


class TestRows:
    def test_each_image_method_and_metric_has_a_row(self, tmp_path):
        data = Pictures(11)
        evaluate(loader(data), ["gradcam", "rise"], ["sparseness", "entropy"], out=tmp_path)
        assert parts(tmp_path) == [f"batch-0000000{n}.parquet" for n in range(3)]
        found = rows(tmp_path)
        keys = plain(found, "index", "model", "method", "metric")
        methods = sorted(["gradcam", "rise", *CONTROLS])
        assert keys == [
            (index, "GapNet", method, metric)
            for index in range(11)
            for method in methods
            for metric in ("entropy", "sparseness")
        ]
        assert {row["image"] for row in found} == set(data.ids)
        assert all(row["label"] == data.labels[row["index"]] for row in found)
        assert all(row["error"] is None for row in found)

    def test_rows_agree_with_explain_and_metric_called_directly(self, tmp_path):
        data = Pictures(5)
        predicted = NET(data.images).argmax(1)
        evaluate(loader(data), "gradcam", "deletion", controls=False, out=tmp_path)
        metric = xcam.get_metric("deletion")()
        for row in rows(tmp_path):
            image = data.images[row["index"]][None]
            explanation = xcam.explain(NET, image)
            expected = metric.score(NET, image, explanation)[0]
            assert row["target"] == int(predicted[row["index"]])
            assert row["shape"] == list(expected.shape)
            np.testing.assert_allclose(row["values"], expected.flatten(), atol=1e-6)

    def test_target_label_explains_the_label(self, tmp_path):
        data = Pictures()
        evaluate(loader(data), target="label", out=tmp_path)
        assert all(row["target"] == row["label"] for row in rows(tmp_path))

    def test_rows_count_the_passes(self, tmp_path):
        metrics = ["sparseness", "average_drop"]
        rise = xcam.get_method("rise")(n_masks=7)
        evaluate(loader(batch_size=3), ["gradcam", rise], metrics, out=tmp_path, batch_size=2)
        found = {(r["method"], r["metric"]): r for r in rows(tmp_path)}
        assert found["gradcam", "sparseness"]["explain_passes"] == 1
        assert found["rise", "sparseness"]["explain_passes"] == 8
        assert found["rise", "sparseness"]["passes"] == 0
        assert found["rise", "average_drop"]["passes"] == 2

    def test_rows_divide_the_seconds_among_the_images(self, tmp_path, monkeypatch):
        ticks = itertools.count()
        monkeypatch.setattr("xcam._evaluate.failures.time.perf_counter", lambda: next(ticks))
        evaluate(loader(batch_size=8), controls=False, out=tmp_path)
        table = xcam.Results(tmp_path).to_pandas().sort_values("index")
        for column in ("seconds", "explain_seconds"):
            assert list(table[column]) == [1 / 8] * 8 + [1 / 3] * 3  # batches of 8 and 3

    def test_metric_that_reads_no_maps_is_computed_once(self, tmp_path):
        found = evaluate(loader(), ["gradcam", "rise"], ["accuracy", "sparseness"], out=tmp_path)
        costs = found.costs().query("metric == 'accuracy'")
        assert set(costs["passes"]) == {1}
        hits = {m: r["value"] for m, r in found.table().query("metric == 'accuracy'").iterrows()}
        right = (NET(Pictures().images).argmax(1) == torch.tensor(Pictures().labels)).float()
        assert set(hits.values()) == {right.double().mean().item()}
        assert list(found.ranks().columns) == ["sparseness", "mean"]

    def test_failed_image_is_recorded_for_its_method_alone(self, tmp_path):
        data = Pictures()
        data.images[5] += 3
        evaluate(loader(data), [Picky(), "gradcam"], "accuracy", out=tmp_path, controls=False)
        errors = {(r["method"], r["index"]) for r in rows(tmp_path) if r["error"]}
        assert errors == {("picky", 5)}

    def test_batch_size_changes_no_row(self, tmp_path):
        for size in (1, 3, None):
            evaluate(loader(), metrics="deletion", out=tmp_path / str(size), batch_size=size)
        expected = rows(tmp_path / "None")
        assert_same_rows(rows(tmp_path / "1"), expected)
        assert_same_rows(rows(tmp_path / "3"), expected)

    def test_several_models_have_rows_for_the_same_images(self, tmp_path):
        nets = {"b": SmallCNN(), "a": GapNet()}
        evaluate(loader(), metrics="deletion", model=nets, controls=False, out=tmp_path)
        found = rows(tmp_path)
        assert plain(found, "index", "model") == [(i, m) for i in range(11) for m in "ab"]
        evaluate(loader(), metrics="deletion", controls=False, out=tmp_path / "alone")
        alone = [{**row, "model": "a"} for row in rows(tmp_path / "alone")]
        assert_same_rows([row for row in found if row["model"] == "a"], alone)

    def test_dict_keys_label_methods_and_metrics(self, tmp_path):
        rise = xcam.get_method("rise")
        methods = [rise(n_masks=3), "gradcam", rise(n_masks=4)]
        evaluate(loader(), methods, {"gini": "sparseness"}, out=tmp_path)
        found = {row["method"] for row in rows(tmp_path)}
        assert found == {repr(methods[0]), repr(methods[2]), "gradcam", *CONTROLS}
        assert {row["metric"] for row in rows(tmp_path)} == {"gini"}

    def test_control_given_as_a_method_is_scored_once(self, tmp_path):
        evaluate(loader(), ["sobel", "random"], out=tmp_path)
        assert {row["method"] for row in rows(tmp_path)} == set(CONTROLS)

    def test_rows_are_returned_as_results(self):
        results = evaluate(loader())
        table = results.table()
        assert sorted(table["method"]) == sorted(["gradcam", *CONTROLS])
        assert set(table["n"]) == {11}
        folder = results.folder
        assert folder.is_dir()
        del results
        gc.collect()
        assert not folder.exists()


class TestData:
    @pytest.mark.parametrize("workers", [0, 1])
    def test_loader_data_set_and_list_give_the_same_rows(self, tmp_path, workers):
        data = Pictures()
        batches = [(images, labels) for images, labels in loader(data)]
        evaluate(loader(data, num_workers=workers), out=tmp_path / "loader")
        evaluate(data, out=tmp_path / "data")
        evaluate(batches, out=tmp_path / "list")
        expected = rows(tmp_path / "loader")
        assert_same_rows(rows(tmp_path / "data"), expected)
        unnamed = [{**row, "image": str(row["index"])} for row in expected]
        assert_same_rows(rows(tmp_path / "list"), unnamed)

    def test_data_without_labels_has_none_in_its_rows(self, tmp_path):
        data = Pictures()
        for number, batches in enumerate([[data.images], [(data.images,)], [[data.images, None]]]):
            evaluate(batches, out=tmp_path / str(number))
            found = rows(tmp_path / str(number))
            assert len(found) == 44
            assert {row["label"] for row in found} == {None}

    def test_indices_select_images_of_a_data_set(self, tmp_path):
        data = Pictures()
        evaluate(loader(data), out=tmp_path / "some", indices=[9, 2, 5, 3, 10])
        found = rows(tmp_path / "some")
        assert sorted({row["index"] for row in found}) == [2, 3, 5, 9, 10]
        assert set(data.loaded) == {2, 3, 5, 9, 10}
        assert len(parts(tmp_path / "some")) == 2
        evaluate(loader(data), out=tmp_path / "all")
        kept = {2, 3, 5, 9, 10}
        assert_same_rows(found, [r for r in rows(tmp_path / "all") if r["index"] in kept])

    def test_indices_select_images_of_a_list_of_batches(self, tmp_path):
        batches = list(loader())
        evaluate(batches, out=tmp_path, indices=[0, 7, 4, 10])
        assert sorted({row["index"] for row in rows(tmp_path)}) == [0, 4, 7, 10]
        assert len(parts(tmp_path)) == 3

    def test_fraction_is_drawn_by_the_seed(self, tmp_path):
        chosen = []
        for number, seed in enumerate((0, 0, 1)):
            evaluate(loader(), out=tmp_path / str(number), fraction=0.5, seed=seed)
            chosen.append(sorted({row["index"] for row in rows(tmp_path / str(number))}))
        assert len(chosen[0]) == 6
        assert chosen[0] == chosen[1] != chosen[2]

    def test_subset_keeps_the_ids(self, tmp_path):
        data = Pictures()
        evaluate(loader(Subset(data, [7, 2])), out=tmp_path)
        assert {(row["index"], row["image"]) for row in rows(tmp_path)} == {
            (0, data.ids[7]), (1, data.ids[2])
        }  # fmt: skip

    def test_truth_goes_to_the_metrics_that_need_it(self, tmp_path):
        names = ["energy_pointing_game", "sparseness"]
        evaluate(loader(Pictures(truth=True)), metrics=names, out=tmp_path)
        data = Pictures(truth=True)
        metric = xcam.get_metric("energy_pointing_game")()
        found = [row for row in rows(tmp_path) if row["method"] == "gradcam"]
        explanation = xcam.explain(NET, data.images)
        expected = metric.score(NET, data.images, explanation, data.masks)
        values = [r["values"] for r in found if r["metric"] == "energy_pointing_game"]
        np.testing.assert_allclose(values, expected.reshape(11, -1), atol=1e-6)

    def test_metric_on_labels_gets_labels_beside_masks(self, tmp_path):
        data, controls = Pictures(truth=True), False
        evaluate(loader(data), metrics=["accuracy"], controls=controls, out=tmp_path)
        hits = NET(data.images).argmax(1) == torch.tensor(data.labels)
        assert [row["error"] for row in rows(tmp_path)] == [None] * 11
        assert [row["values"] for row in rows(tmp_path)] == [[hit] for hit in hits.tolist()]


class TestTraces:
    def test_model_and_random_generators_are_left_as_they_were(self, tmp_path):
        net = SmallCNN().train()
        net.features[0].weight.requires_grad_(False)
        hooks = Counter(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in net.modules())
        state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        before = torch.get_rng_state()
        data = Pictures()
        data.images[5] += 3
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", XcamWarning)
            evaluate(loader(data), ["gradcam", Picky()], Brightness(), model=net, out=tmp_path)
        assert torch.equal(torch.get_rng_state(), before)
        assert all(module.training for module in net.modules())
        assert not net.features[0].weight.requires_grad
        assert net.classifier.weight.requires_grad
        assert all(parameter.grad is None for parameter in net.parameters())
        assert all(torch.equal(tensor, state[n]) for n, tensor in net.state_dict().items())
        assert hooks == Counter(
            len(m._forward_pre_hooks) + len(m._forward_hooks) for m in net.modules()
        )

    def test_temporary_folder_is_removed_after_a_failure(self, monkeypatch, tmp_path):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        data = Pictures()
        data.images[5] += 3
        with pytest.raises(KeyboardInterrupt):
            evaluate(loader(data), metrics=Brightness(kind="stop"))
        assert list(tmp_path.iterdir()) == []


class TestDryRun:
    def test_dry_run_prints_passes_and_writes_nothing(self, tmp_path, capsys):
        data = Pictures()
        results = evaluate(
            loader(data), metrics=["average_drop"], out=tmp_path / "out", dry_run=True
        )
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].split() == ["model", "method", "step", "passes", "seconds"]
        assert lines[1].split()[:4] == ["GapNet", "gradcam", "explain", "1"]
        assert lines[2].split()[:4] == ["GapNet", "gradcam", "average_drop", "2"]
        assert lines[-2] == "no errors"
        assert lines[-1].startswith("about 0:00:0")
        assert lines[-1].endswith(" for 11 images, measured on 4")
        assert set(data.loaded) == {0, 1, 2, 3, 10}
        assert not (tmp_path / "out").exists()
        assert set(results.table()["n"]) == {4}

    @pytest.mark.parametrize(
        ("images", "processes", "expected"),
        [(100, 1, "0:01:40 for 100 images"), (100, 4, "0:00:25 for 100 images in 4 processes"),
         (50_001, 1, "13:53:21 for 50001 images")],
    )  # fmt: skip
    def test_dry_run_estimates_the_time_of_all_images(self, images, processes, expected):
        """Four images in four seconds; each step has its own means."""
        costs = [(3.0, 1.0), (5.0, 3.0)] * 2
        measured = [
            Row(index, str(index), "net", 0, 0, "gradcam", metric, np.zeros(1), (), seconds, passes)
            for index, (passes, seconds) in enumerate(costs)
            for metric in ("deletion", "entropy")
        ]
        lines = format_estimate(measured, 4.0, images, processes).splitlines()
        assert lines[-1] == f"about {expected}, measured on 4"
        assert [line.split()[2:] for line in lines[1:4]] == [
            ["explain", "failed", "failed"], ["deletion", "4", "2"], ["entropy", "4", "2"]
        ]  # fmt: skip

    def test_dry_run_counts_failures(self, capsys):
        layer = xcam.get_method("gradcam")(layer="none")
        evaluate(loader(), layer, dry_run=True)
        lines = capsys.readouterr().out.splitlines()
        assert lines[1].split() == ["GapNet", "gradcam", "explain", "failed", "failed"]
        assert lines[-2] == "4 of 16 rows are errors"

    def test_dry_run_ends_in_time(self, capsys, monkeypatch):
        """Each look at the clock is a second: after five of them no pass is made."""
        seconds = itertools.count()
        monkeypatch.setattr(forward, "monotonic", lambda: next(seconds))
        monkeypatch.setattr(dry_run, "_SECONDS", 5)
        rise = xcam.get_method("rise")(n_masks=100)
        settings = {"controls": False, "batch_size": 1, "dry_run": True}
        results = evaluate(Pictures(), ["gradcam", rise], **settings)
        lines = capsys.readouterr().out.splitlines()
        assert lines[-2] == "not measured, they take too long: rise (GapNet)"
        assert lines[-1].startswith("more than 0:00:")
        assert lines[-1].endswith(" for 11 images, measured on 1")
        assert results.table()["method"].tolist() == ["gradcam"]
        monkeypatch.setattr(dry_run, "_SECONDS", -1)
        with pytest.raises(ValueError, match="one image takes more than -1 seconds"):
            evaluate(Pictures(), **settings)


def test_progress_names_model_and_method_and_counts_images(tmp_path, capsys):
    evaluate(loader(), out=tmp_path, progress=True, controls=False)
    shown = capsys.readouterr().err
    assert "11/11" in shown
    assert "GapNet: gradcam" in shown
    (tmp_path / "rows" / "batch-00000001.parquet").unlink()
    evaluate(loader(), out=tmp_path, progress=True, controls=False)
    shown = capsys.readouterr().err
    assert "2 of 3 batches are done\n" in shown
    assert "4/4" in shown


def test_seed_applies_to_names_but_not_to_objects(tmp_path):
    smooth, noisy = xcam.get_method("smoothgrad")(n_samples=2), xcam.get_metric("road")(seed=1)
    methods = {"a": "random", "b": smooth, "c": "gradcam"}
    metrics = {"x": "remove_and_classify", "y": noisy}
    evaluate(loader(Pictures(2)), methods, metrics, out=tmp_path, seed=3, controls=False)
    said = json.loads((tmp_path / "manifest.json").read_bytes())
    seeds = {label: said["methods"][label]["on"]["GapNet"]["parameters"] for label in "ab"}
    assert seeds["a"] == {"seed": 3}
    assert seeds["b"]["seed"] == 0
    assert said["metrics"]["x"]["parameters"]["seed"] == 3
    assert said["metrics"]["y"]["parameters"]["seed"] == 1


def test_manifest_lists_what_the_rows_depend_on(tmp_path):
    evaluate(loader(), ["gradcam", "rise"], out=tmp_path, fraction=0.5, seed=3)
    said = json.loads((tmp_path / "manifest.json").read_bytes())
    assert said["versions"]["xcam"] == xcam.__version__
    assert said["methods"]["gradcam"]["on"]["GapNet"]["parameters"]["layer"] == "features"
    assert said["methods"]["rise"]["on"]["GapNet"]["repr"] == repr(xcam.get_method("rise")(seed=3))
    assert said["methods"]["random"]["on"]["GapNet"]["parameters"] == {"seed": 3}
    assert said["metrics"]["sparseness"]["name"] == "sparseness"
    assert said["images"]["count"] == 6
    assert (said["seed"], said["target"]) == (3, "predicted")
    assert len(said["models"]["GapNet"]["sha256"]) == 64
