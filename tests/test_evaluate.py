import gc
import json
import tracemalloc
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from evaluations import Pictures, assert_same_rows, parts, rows
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler, Subset

import xcam
from xcam.core import Method, MethodSpec, Metric, MetricSpec
from xcam.errors import UnknownNameError, XcamWarning
from xcam.forward import call, note
from xcam.models.toy import GapNet, SmallCNN
from xcam.state import untouched

NET = GapNet()
CONTROLS = ["center_gaussian", "random", "sobel"]


def evaluate(data, methods="gradcam", metrics="sparseness", model=NET, **arguments):
    return xcam.evaluate(model, data, methods, metrics, **arguments)


def loader(data=None, batch_size=4, **arguments):
    return DataLoader(data or Pictures(), batch_size=batch_size, **arguments)


def plain(rows, *columns):
    return [tuple(row[column] for column in columns) for row in rows]


@dataclass(frozen=True)
class Brightness(Metric):
    """Counts what it is given, and fails where it is told to."""

    fails: float = 2.0
    kind: str = "error"

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="brightness", title="", paper="", formula="", higher_is_better=True, bounds=(0, 1)
    )

    def score(self, model, images, explanation, truth=None):
        with untouched(model), torch.no_grad():
            call(model, images)
        note("the metric has something to say")
        note("image 0: of an image")
        for image in images:
            if image.max() > self.fails:
                if self.kind == "nan":
                    return torch.full((len(images),), torch.nan)
                raise {"error": ValueError, "stop": KeyboardInterrupt}[self.kind]("too\nbright")
        return images.flatten(1).mean(1)

    def finish(self, mean):
        return mean


@dataclass(frozen=True)
class Picky(Method):
    """Fails on one picture."""

    seen: ClassVar[list] = []
    spec: ClassVar[MethodSpec] = MethodSpec(
        name="picky", title="", paper="", family="control", cost="none"
    )

    def maps(self, model, images, target):
        self.seen.append(len(images))
        if images.max() > 2:
            raise ValueError("not this one")
        target.bind(call(model, images))
        return images.mean(1)


class TestRows:
    def test_are_one_for_each_image_method_and_metric(self, tmp_path):
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

    def test_hold_what_the_pieces_give_alone(self, tmp_path):
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

    def test_explain_the_label_if_asked(self, tmp_path):
        data = Pictures()
        evaluate(loader(data), target="label", out=tmp_path)
        assert all(row["target"] == row["label"] for row in rows(tmp_path))

    def test_count_the_passes(self, tmp_path):
        metrics = ["sparseness", "average_drop"]
        rise = xcam.get_method("rise")(n_masks=7)
        evaluate(loader(batch_size=3), ["gradcam", rise], metrics, out=tmp_path, batch_size=2)
        found = {(r["method"], r["metric"]): r for r in rows(tmp_path)}
        assert found["gradcam", "sparseness"]["explain_passes"] == 1
        assert found["rise", "sparseness"]["explain_passes"] == 8
        assert found["rise", "sparseness"]["passes"] == 0
        assert found["rise", "average_drop"]["passes"] == 2

    def test_do_not_depend_on_how_the_model_is_fed(self, tmp_path):
        for size in (1, 3, None):
            evaluate(loader(), metrics="deletion", out=tmp_path / str(size), batch_size=size)
        expected = rows(tmp_path / "None")
        assert_same_rows(rows(tmp_path / "1"), expected)
        assert_same_rows(rows(tmp_path / "3"), expected)

    def test_of_several_models_are_paired(self, tmp_path):
        nets = {"b": SmallCNN(), "a": GapNet()}
        evaluate(loader(), metrics="deletion", model=nets, controls=False, out=tmp_path)
        found = rows(tmp_path)
        assert plain(found, "index", "model") == [(i, m) for i in range(11) for m in "ab"]
        evaluate(loader(), metrics="deletion", controls=False, out=tmp_path / "alone")
        alone = [{**row, "model": "a"} for row in rows(tmp_path / "alone")]
        assert_same_rows([row for row in found if row["model"] == "a"], alone)

    def test_carry_labels_of_their_own(self, tmp_path):
        rise = xcam.get_method("rise")
        methods = [rise(n_masks=3), "gradcam", rise(n_masks=4)]
        evaluate(loader(), methods, {"gini": "sparseness"}, out=tmp_path)
        found = {row["method"] for row in rows(tmp_path)}
        assert found == {repr(methods[0]), repr(methods[2]), "gradcam", *CONTROLS}
        assert {row["metric"] for row in rows(tmp_path)} == {"gini"}

    def test_come_with_a_control_once(self, tmp_path):
        evaluate(loader(), ["sobel", "random"], out=tmp_path)
        assert {row["method"] for row in rows(tmp_path)} == set(CONTROLS)

    def test_are_returned_as_results(self):
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
    def test_of_any_kind_gives_the_same_rows(self, tmp_path, workers):
        data = Pictures()
        batches = [(images, labels) for images, labels in loader(data)]
        evaluate(loader(data, num_workers=workers), out=tmp_path / "loader")
        evaluate(data, out=tmp_path / "data")
        evaluate(batches, out=tmp_path / "list")
        expected = rows(tmp_path / "loader")
        assert_same_rows(rows(tmp_path / "data"), expected)
        unnamed = [{**row, "image": str(row["index"])} for row in expected]
        assert_same_rows(rows(tmp_path / "list"), unnamed)

    def test_without_labels(self, tmp_path):
        data = Pictures()
        for number, batches in enumerate([[data.images], [(data.images,)], [[data.images, None]]]):
            evaluate(batches, out=tmp_path / str(number))
            found = rows(tmp_path / str(number))
            assert len(found) == 44
            assert {row["label"] for row in found} == {None}

    def test_is_chosen_by_index(self, tmp_path):
        data = Pictures()
        evaluate(loader(data), out=tmp_path / "some", indices=[9, 2, 5, 3, 10])
        found = rows(tmp_path / "some")
        assert sorted({row["index"] for row in found}) == [2, 3, 5, 9, 10]
        assert set(data.loaded) == {2, 3, 5, 9, 10}
        assert len(parts(tmp_path / "some")) == 2
        evaluate(loader(data), out=tmp_path / "all")
        kept = {2, 3, 5, 9, 10}
        assert_same_rows(found, [r for r in rows(tmp_path / "all") if r["index"] in kept])

    def test_of_a_list_is_chosen_by_index(self, tmp_path):
        batches = list(loader())
        evaluate(batches, out=tmp_path, indices=[0, 7, 4, 10])
        assert sorted({row["index"] for row in rows(tmp_path)}) == [0, 4, 7, 10]
        assert len(parts(tmp_path)) == 3

    def test_is_drawn_by_the_seed(self, tmp_path):
        chosen = []
        for number, seed in enumerate((0, 0, 1)):
            evaluate(loader(), out=tmp_path / str(number), fraction=0.5, seed=seed)
            chosen.append(sorted({row["index"] for row in rows(tmp_path / str(number))}))
        assert len(chosen[0]) == 6
        assert chosen[0] == chosen[1] != chosen[2]

    def test_of_a_subset_keeps_its_ids(self, tmp_path):
        data = Pictures()
        evaluate(loader(Subset(data, [7, 2])), out=tmp_path)
        assert {(row["index"], row["image"]) for row in rows(tmp_path)} == {
            (0, data.ids[7]), (1, data.ids[2])
        }  # fmt: skip

    def test_gives_its_truth_to_those_who_need_it(self, tmp_path):
        names = ["energy_pointing_game", "sparseness"]
        evaluate(loader(Pictures(truth=True)), metrics=names, out=tmp_path)
        data = Pictures(truth=True)
        metric = xcam.get_metric("energy_pointing_game")()
        found = [row for row in rows(tmp_path) if row["method"] == "gradcam"]
        explanation = xcam.explain(NET, data.images)
        expected = metric.score(NET, data.images, explanation, data.masks)
        values = [r["values"] for r in found if r["metric"] == "energy_pointing_game"]
        np.testing.assert_allclose(values, expected.reshape(11, -1), atol=1e-6)


class TestFailures:
    def test_of_a_metric_are_rows(self, tmp_path):
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

    def test_are_also_numbers_that_are_not_finite(self, tmp_path):
        data = Pictures()
        data.images[5] += 3
        with pytest.warns(XcamWarning):
            evaluate(loader(data), metrics=Brightness(kind="nan"), out=tmp_path)
        failed = [row for row in rows(tmp_path) if row["error"]]
        assert {row["index"] for row in failed} == {5}
        assert "brightness gave values that are not finite" in failed[0]["error"]

    def test_of_a_method_are_rows_of_all_metrics(self, tmp_path):
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

    def test_of_an_image_are_rows_of_all_methods(self, tmp_path):
        data = Pictures()
        data.images[5, 0, 0, 0] = torch.nan
        evaluate(loader(data), out=tmp_path)
        failed = [row for row in rows(tmp_path) if row["error"]]
        assert plain(failed, "index", "method", "target") == [
            (5, method, None) for method in sorted(["gradcam", *CONTROLS])
        ]
        assert "values that are not finite" in failed[0]["error"]

    def test_of_a_method_everywhere_leave_the_others(self, tmp_path):
        layer = xcam.get_method("gradcam")(layer="none")
        results = evaluate(loader(), layer, out=tmp_path)
        errors = {row["error"] for row in rows(tmp_path) if row["method"] == "gradcam"}
        assert len(errors) == 1
        assert "the model has no layer 'none'" in errors.pop()
        assert sorted(results.table().query("n == 11")["method"]) == CONTROLS

    @pytest.mark.parametrize("kind", [MemoryError, torch.OutOfMemoryError])
    def test_of_memory_split_the_batch_and_then_end(self, tmp_path, monkeypatch, kind):
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

    def test_of_a_device_end_it(self, tmp_path, monkeypatch):
        def score(self, model, images, explanation, truth=None):
            raise RuntimeError("CUDA error: device-side assert triggered")

        monkeypatch.setattr(Brightness, "score", score)
        with pytest.raises(RuntimeError, match="device-side"):
            evaluate(loader(), metrics=Brightness(), out=tmp_path)
        assert parts(tmp_path) == []


class TestMaps:
    def test_of_a_folder_score_as_the_method_that_made_them(self, tmp_path):
        metrics = ["deletion", "sparseness"]
        evaluate(loader(), metrics=metrics, out=tmp_path / "made", save_maps=True)
        folder = tmp_path / "made" / "maps" / "gradcam"
        evaluate(
            loader(batch_size=3), (), metrics, maps=folder, controls=False, out=tmp_path / "read"
        )
        made = [row for row in rows(tmp_path / "made") if row["method"] == "gradcam"]
        read = rows(tmp_path / "read")
        assert plain(read, "index", "method", "metric") == plain(made, "index", "method", "metric")
        for one, other in zip(read, made, strict=True):
            # Half precision lets near neighbours change places, which a curve shows.
            atol = 1e-2 if one["metric"] == "deletion" else 1e-4
            np.testing.assert_allclose(one["values"], other["values"], rtol=0, atol=atol)

    def test_are_kept_at_their_own_resolution(self, tmp_path):
        from safetensors.torch import load_file

        nets = {"one": NET, "two": SmallCNN()}
        evaluate(loader(), ["gradcam", "saliency"], model=nets, out=tmp_path, save_maps=True)
        kept = tmp_path / "maps" / "one"
        assert sorted(path.name for path in kept.iterdir()) == sorted(
            ["gradcam", "saliency", *CONTROLS]
        )
        cam = load_file(kept / "gradcam" / "batch-00000000.safetensors")
        assert (cam["maps"].shape, cam["maps"].dtype) == ((4, 8, 8), torch.float16)
        pixels = load_file(kept / "saliency" / "batch-00000002.safetensors")
        assert pixels["maps"].shape == (3, 16, 16)

    @pytest.mark.parametrize("kind", ["tensor", "array", "channels", "list"])
    def test_of_a_callable(self, tmp_path, kind):
        asked = []

        def mine(images, ids, target):
            asked.append((ids, target.tolist()))
            maps = images.mean(1)
            return {
                "tensor": maps,
                "array": maps.numpy().astype(np.float64),
                "channels": images / 3,
                "list": [one[: 8 * (row % 2) + 8] for row, one in enumerate(maps)],
            }[kind]

        data = Pictures()
        evaluate(loader(data), (), maps=mine, out=tmp_path, controls=False)
        found = rows(tmp_path)
        assert {row["method"] for row in found} == {"maps"}
        assert {row["error"] for row in found} == {None}
        assert asked[0] == (data.ids[:4], NET(data.images).argmax(1)[:4].tolist())
        if kind != "list":
            explanation = xcam.explain(NET, data.images)
            brightness = data.images.mean(1)
            given = type(explanation)(brightness, brightness, None, None, explanation.method)
            expected = xcam.get_metric("sparseness")().score(NET, data.images, given)
            values = [row["values"][0] for row in found]
            np.testing.assert_allclose(values, expected, rtol=1e-5)

    def test_that_lack_an_image_leave_a_row(self, tmp_path):
        data = Pictures(3)
        for name in (data.ids[0], data.ids[2]):
            path = tmp_path / "maps" / f"{name}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.eye(16, dtype=np.float32))
        evaluate(loader(data), (), maps=tmp_path / "maps", out=tmp_path / "out", controls=False)
        errors = [row["error"] for row in rows(tmp_path / "out")]
        assert errors[0] is errors[2] is None
        assert f"no map of image '{data.ids[1]}'" in errors[1]

    @pytest.mark.parametrize(
        ("made", "sentence"),
        [
            (lambda images: images[:, 0] * torch.nan, "mine gave a map that is not finite"),
            (lambda images: images[:, 0, 0], r"mine must give \(1, h, w\) maps, got \(1, 16\)"),
            (lambda images: "maps", "mine must give a tensor of 1 maps, got str"),
            (lambda images: None, "mine must give a tensor of 1 maps, got NoneType"),
            (lambda images: [None] * len(images), "must give tensors or arrays, got NoneType"),
        ],
    )
    def test_that_are_none_leave_a_row(self, tmp_path, made, sentence):
        mine = {"mine": lambda images, ids, target: made(images)}
        evaluate(loader(Pictures(1)), (), maps=mine, out=tmp_path, controls=False)
        (row,) = rows(tmp_path)
        assert row["values"] is None
        with pytest.raises(ValueError, match=sentence):
            raise ValueError(row["error"])


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "kind", "sentence"),
        [
            ({"methods": "gradcan"}, UnknownNameError, "did you mean gradcam"),
            ({"metrics": "sparsness"}, UnknownNameError, "did you mean sparseness"),
            ({"methods": [3]}, TypeError, "method must be a name or a Method object, got 3"),
            ({"metrics": [3]}, TypeError, "metrics must be names or Metric objects, got 3"),
            ({"methods": ()}, ValueError, "nothing to evaluate; give methods, or maps"),
            ({"metrics": ()}, ValueError, "no metrics to score with"),
            ({"methods": ["rise", "rise"]}, ValueError, "RISE(.*) is given twice"),
            ({"target": 3}, ValueError, "target must be 'predicted' or 'label', got 3"),
            ({"model": lambda x: x}, TypeError, "model must be a torch.nn.Module, got function"),
            ({"model": {}}, ValueError, "there is no model"),
            ({"maps": 3}, TypeError, "maps must be a folder, a callable"),
            ({"maps": {"rise": print}, "methods": "rise"}, ValueError, "are called 'rise'"),
            ({"maps": "no/folder"}, FileNotFoundError, "no folder of maps at 'no/folder'"),
            ({"indices": [11]}, ValueError, "indices must be from 0 to 10, got 11"),
            ({"indices": [-1]}, ValueError, "indices must be from 0 to 10, got -1"),
            ({"indices": [1, 1]}, ValueError, "must name each image once"),
            ({"indices": []}, ValueError, "there are no images"),
            ({"fraction": 0}, ValueError, "fraction must be above 0 and at most 1, got 0"),
            ({"fraction": 1.5}, ValueError, "fraction must be above 0 and at most 1, got 1.5"),
            ({"batch_size": 0}, ValueError, "batch_size must be a positive int or None, got 0"),
            ({"precision": "fp8"}, ValueError, "precision must be"),
            ({"metrics": "max_box_acc"}, ValueError, "'max_box_acc' needs boxes"),
            ({"metrics": "energy_pointing_game"}, ValueError, "'energy_pointing_game' needs masks"),
        ],
    )
    def test_is_refused_before_anything_is_done(self, tmp_path, arguments, kind, sentence):
        out = tmp_path / "out"
        with pytest.raises(kind, match=sentence):
            evaluate(loader(), out=out, **arguments)
        assert not out.exists()

    @pytest.mark.parametrize(
        ("made", "kind", "sentence"),
        [
            (lambda d: loader(d, shuffle=True), ValueError, "by a RandomSampler"),
            (lambda d: loader(d, drop_last=True), ValueError, "drop_last=True"),
            (lambda d: DataLoader(d, batch_size=None), ValueError, "makes its own batches"),
            (lambda d: iter(loader(d)), TypeError, "loader must be a DataLoader, a data set"),
            (lambda d: [], ValueError, "there are no images"),
            (lambda d: [{"images": d.images}], TypeError, "a batch must be images"),
            (lambda d: [(d.images, [0.5] * 11)], TypeError, r"labels must be \(B,\) integers"),
            (lambda d: [(d.images, [0])], ValueError, "a batch has 11 images and 1 labels"),
            (lambda d: [(d.images, None, [None] * 11)], TypeError, "truth must be a tensor"),
            (lambda d: [d.images.double()], TypeError, "images are torch.float64 and the model"),
            (lambda d: [d.images[:, 0]], ValueError, r"images must be \(B, C, H, W\)"),
        ],
    )
    def test_data_that_cannot_be_used(self, tmp_path, made, kind, sentence):
        out = tmp_path / "out"
        with pytest.raises(kind, match=sentence):
            evaluate(made(Pictures()), out=out)
        assert not out.exists()

    def test_batches_of_a_sampler_of_its_own(self):
        class Own(BatchSampler):
            pass

        data = Pictures()
        own = Own(SequentialSampler(data), 4, False)
        with pytest.raises(ValueError, match="makes its own batches"):
            evaluate(DataLoader(data, batch_sampler=own))

    def test_streams(self):
        class Stream(IterableDataset):
            def __iter__(self):
                return iter(())

        with pytest.raises(TypeError, match="got Stream"):
            evaluate(DataLoader(Stream()))

    @pytest.mark.parametrize("metric", ["accuracy", "sparseness"])
    def test_missing_labels(self, metric):
        names = xcam.list_metrics()
        needy = [n for n in names if xcam.get_metric(n).spec.truth == "labels"]
        chosen = needy[:1] if metric == "accuracy" and needy else ["sparseness"]
        target = "label" if chosen == ["sparseness"] else "predicted"
        with pytest.raises(ValueError, match=r"needs labels, and the data has none"):
            evaluate([Pictures().images], metrics=chosen, target=target)

    def test_ids_that_do_not_fit(self):
        data = Pictures()
        data.ids = data.ids[:3]
        with pytest.raises(ValueError, match="has 11 images and 3 ids"):
            evaluate(loader(data))


class TestTraces:
    def test_nothing_is_left_on_the_model_or_the_generators(self, tmp_path):
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

    def test_a_temporary_folder_goes_with_a_failure(self, monkeypatch, tmp_path):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        data = Pictures()
        data.images[5] += 3
        with pytest.raises(KeyboardInterrupt):
            evaluate(loader(data), metrics=Brightness(kind="stop"))
        assert list(tmp_path.iterdir()) == []

    def test_memory_does_not_grow_with_the_images(self, tmp_path):
        """Rows are not kept: forty times the images, and the same peak."""

        def peak(count):
            data = Pictures(count)
            gc.collect()
            tracemalloc.start()
            try:
                evaluate(loader(data), controls=False, out=tmp_path / str(count))
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

        peak(8)
        assert peak(320) < 1.5 * peak(16)


class TestDryRun:
    def test_prints_passes_and_writes_nothing(self, tmp_path, capsys):
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
        assert set(data.loaded) == {0, 1, 2, 3}
        assert not (tmp_path / "out").exists()
        assert set(results.table()["n"]) == {4}

    def test_says_what_failed(self, capsys):
        layer = xcam.get_method("gradcam")(layer="none")
        evaluate(loader(), layer, dry_run=True)
        lines = capsys.readouterr().out.splitlines()
        assert lines[1].split() == ["GapNet", "gradcam", "explain", "failed", "failed"]
        assert lines[-2] == "4 of 16 rows are errors"


def test_the_manifest_says_what_the_rows_depend_on(tmp_path):
    evaluate(loader(), ["gradcam", "rise"], out=tmp_path, fraction=0.5, seed=3)
    said = json.loads((tmp_path / "manifest.json").read_bytes())
    assert said["versions"]["xcam"] == xcam.__version__
    assert said["methods"]["gradcam"]["layers"] == {"GapNet": "features"}
    assert said["methods"]["rise"]["repr"] == repr(xcam.get_method("rise")())
    assert said["methods"]["random"]["parameters"] == {"seed": 3}
    assert said["metrics"]["sparseness"]["name"] == "sparseness"
    assert said["images"]["count"] == 6
    assert (said["seed"], said["batch_size"], said["target"]) == (3, 4, "predicted")
    assert len(said["models"]["GapNet"]["sha256"]) == 64
