"""A folder grows: what is new is computed, and what is there is kept."""

import itertools
import json
import shutil
import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from evaluations import CONTROLS, TIMES, Brightness, Pictures, assert_same_rows, parts, rows
from torch.utils.data import DataLoader, Dataset, Subset

import xcam
from xcam.core import Method, MethodSpec
from xcam.engine.forward import call
from xcam.models.toy import GapNet
from xcam.results import Results

METRICS = ("deletion", "sparseness")
SPENT = ("passes_spent", "explain_passes_spent")


@dataclass(frozen=True)
class Counted(Method):
    """Brightness of pixels; lists how many images it explained."""

    seen: ClassVar[list] = []
    spec: ClassVar[MethodSpec] = MethodSpec(
        name="counted", title="", paper="", family="gradient", cost="1 forward"
    )

    def maps(self, model, images, target):
        self.seen.append(len(images))
        target.bind(call(model, images))
        return images.mean(1)


@pytest.fixture
def counted():
    Counted.seen.clear()
    return Counted()


def brightness(images, ids, target):
    return images.mean(1)


def evaluate(out, data=None, methods="gradcam", metrics=METRICS, model=None, **arguments):
    arguments = {"controls": False, **arguments}
    loader = DataLoader(Pictures(6) if data is None else data, batch_size=2)
    return xcam.evaluate(model or GapNet(), loader, methods, metrics, out=out, **arguments)


def sort(found, skip=SPENT):
    """Return rows in one order, without what depends on the order in which they were made."""
    kept = [{name: value for name, value in row.items() if name not in skip} for row in found]
    return sorted(kept, key=lambda row: [row[n] for n in ("index", "model", "method", "metric")])


def assert_grown(out, whole):
    """Assert that a folder holds what an evaluation of everything at once would."""
    assert_same_rows(sort(rows(out)), sort(rows(whole)))
    table, expected = (Results(one).table(resamples=400) for one in (out, whole))
    keys = ["model", "metric", "method"]
    table, expected = (one.sort_values(keys, ignore_index=True) for one in (table, expected))
    assert table[keys].equals(expected[keys])
    numbers = ["value", "low", "high", "n", "rows", "errors"]
    np.testing.assert_allclose(table[numbers], expected[numbers], rtol=1e-6, atol=1e-6)


def test_methods_metrics_maps_and_models_are_added(tmp_path):
    nets = {"GapNet": GapNet(), "other": GapNet(seed=1)}
    out, whole = tmp_path / "grown", tmp_path / "whole"
    maps = {"mine": brightness}
    evaluate(out, metrics="sparseness")
    evaluate(out, methods=["gradcam", "hirescam"])
    evaluate(out, methods=["gradcam", "hirescam"], maps=maps, controls=True)
    results = evaluate(out, methods=["gradcam", "hirescam"], maps=maps, controls=True, model=nets)
    evaluate(whole, methods=["gradcam", "hirescam"], maps=maps, controls=True, model=nets)
    assert_grown(out, whole)
    assert set(results.table()["method"]) == {"gradcam", "hirescam", "mine", *CONTROLS}
    assert parts(out) == parts(whole)
    said, expected = (json.loads((f / "manifest.json").read_bytes()) for f in (out, whole))
    del said["checksum"], expected["checksum"]
    assert said == expected


def test_what_is_there_is_kept_and_not_computed_again(tmp_path, counted):
    data = Pictures(6)
    evaluate(tmp_path, data, methods=[counted], metrics="sparseness")
    before = rows(tmp_path)
    assert counted.seen == [2, 2, 2]
    results = evaluate(tmp_path, data, methods=[counted, "gradcam"], metrics="sparseness")
    assert counted.seen == [2, 2, 2]
    assert [row for row in rows(tmp_path) if row["method"] == "counted"] == before
    results = evaluate(tmp_path, data, methods="hirescam", metrics="deletion")
    found = set(map(tuple, results.table()[["method", "metric"]].to_numpy()))
    assert found == {
        ("counted", "sparseness"), ("gradcam", "sparseness"), ("hirescam", "deletion")
    }  # fmt: skip
    assert counted.seen == [2, 2, 2]
    data.loaded.clear()
    evaluate(tmp_path, data, methods="hirescam", metrics="deletion")
    assert set(data.loaded) == {0, 5}  # which tell the data from another


@pytest.mark.parametrize("controls", [False, True])
def test_added_metric_reads_stored_maps(tmp_path, counted, controls):
    settings = {"methods": [counted], "save_maps": True, "controls": controls}
    evaluate(tmp_path / "a", metrics="sparseness", **settings)
    before = {row["image"]: row for row in rows(tmp_path / "a") if row["method"] == "counted"}
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "a" / "maps").rglob("*.safetensors")}
    counted.seen.clear()
    evaluate(tmp_path / "a", metrics=["average_drop", "coherency"], **settings)
    assert counted.seen == [2, 2, 2]  # coherency explains each image again, behind its map
    assert files == {p: p.stat().st_mtime_ns for p in files}
    evaluate(tmp_path / "b", metrics=["sparseness", "average_drop", "coherency"], **settings)
    found, expected = (sort(rows(tmp_path / name)) for name in "ab")
    skipped = {"values", *TIMES}
    for one, other in zip(found, expected, strict=True):
        assert {k: v for k, v in one.items() if k not in skipped} == {
            k: v for k, v in other.items() if k not in skipped
        }
        if (one["method"], one["metric"]) == ("random", "coherency"):
            continue  # of noise that the image behind the map, rounded or not, is the seed of
        # Stored maps are in half precision.
        np.testing.assert_allclose(one["values"], other["values"], rtol=2e-3, atol=2e-3)
    costs = "explain_passes", "explain_passes_spent", "flat"
    for row in (row for row in rows(tmp_path / "a") if row["method"] == "counted"):
        assert [row[name] for name in costs] == [before[row["image"]][name] for name in costs]


def test_added_metric_explains_again_without_stored_maps(tmp_path, counted):
    evaluate(tmp_path / "a", methods=[counted], metrics="sparseness")
    counted.seen.clear()
    evaluate(tmp_path / "a", methods=[counted], metrics="average_drop")
    assert counted.seen == [2, 2, 2]
    evaluate(tmp_path / "b", methods=[counted], metrics=["average_drop", "sparseness"])
    assert_grown(tmp_path / "a", tmp_path / "b")


def test_metric_of_channels_explains_again(tmp_path):
    """Stored maps have one value a pixel."""
    element = xcam.get_metric("selectivity")(unit="element", steps=2)
    saliency = {"methods": "saliency", "save_maps": True}
    evaluate(tmp_path / "a", metrics="sparseness", **saliency)
    evaluate(tmp_path / "a", metrics=element, **saliency)
    evaluate(tmp_path / "b", metrics=["sparseness", element], **saliency)
    assert_grown(tmp_path / "a", tmp_path / "b")


def test_maps_of_what_is_done_are_written_later(tmp_path, counted):
    evaluate(tmp_path, methods=[counted])
    before = rows(tmp_path)
    evaluate(tmp_path, methods=[counted], save_maps=True)
    assert rows(tmp_path) == before
    assert len(list((tmp_path / "maps" / "counted").iterdir())) == 3
    assert counted.seen == [2] * 6


def test_maps_of_the_only_model_move_when_another_comes(tmp_path, counted):
    settings = {"methods": [counted], "metrics": "sparseness", "save_maps": True}
    evaluate(tmp_path, model={"counted": GapNet()}, **settings)
    nets = {"counted": GapNet(), "other": GapNet(seed=1)}
    counted.seen.clear()
    evaluate(tmp_path, model=nets, **settings)
    assert counted.seen == [2] * 3
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["counted", "other"]
    for name in nets:
        assert len(list((tmp_path / "maps" / name / "counted").iterdir())) == 3
    evaluate(tmp_path, model={"other": nets["other"]}, **settings)
    assert counted.seen == [2] * 3


class Placed(Subset):
    """Some of the pictures in an order, with their ids and labels."""

    def __init__(self, data, indices):
        super().__init__(data, indices)
        self.ids = [data.ids[index] for index in indices]
        self.labels = [data.labels[index] for index in indices]


NAMES = ("elk", "dog", "cat", "bee", "ant")


class Labelled(Dataset):
    """Pictures whose labels number the classes that there are."""

    def __init__(self, placed):
        self.placed, self.ids = placed, placed.ids
        self.labels, self.classes = placed.labels, placed.classes

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        return self.placed[index][0], self.labels[index]


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5, 6], [6, 3, 0, 1, 5, 2, 4]])
@pytest.mark.parametrize("kind", ["metric", "none"])
def test_new_images_are_computed_wherever_they_are(tmp_path, counted, order, kind):
    """As if a folder had been given more pictures, whose names are between those of others."""
    data = Pictures(7)
    metrics = ["sparseness", "deletion"] if kind == "metric" else ["sparseness"]
    out, whole = tmp_path / "grown", tmp_path / "whole"
    evaluate(out, Placed(data, [0, 1, 2]), methods=[counted], metrics="sparseness")
    assert counted.seen == [2, 1]
    results = evaluate(out, Placed(data, order), methods=[counted], metrics=metrics)
    assert sum(counted.seen) == 3 + 4 + (3 if kind == "metric" else 0)
    evaluate(whole, Placed(data, order), methods=[counted], metrics=metrics)
    assert_grown(out, whole)
    assert set(results.table()["n"]) == {7}
    assert {row["image"]: row["index"] for row in rows(out)} == {
        data.ids[image]: place for place, image in enumerate(order)
    }


def test_larger_fraction_and_more_indices(tmp_path):
    data = Pictures(8)
    evaluate(tmp_path / "a", data, indices=[1, 5])
    evaluate(tmp_path / "a", data, indices=[0, 1, 4, 5, 7])
    evaluate(tmp_path / "a", data)
    evaluate(tmp_path / "b", data)
    assert_grown(tmp_path / "a", tmp_path / "b")


def test_batches_of_the_caller_grow(tmp_path):
    data = Pictures(6)
    labels = torch.tensor(data.labels)

    def run(out, *ends):
        batches = [(data.images[a:b], labels[a:b]) for a, b in itertools.pairwise(ends)]
        settings = {"controls": False, "out": tmp_path / out}
        return xcam.evaluate(GapNet(), batches, "gradcam", "sparseness", **settings)

    run("a", 0, 2, 4)
    run("a", 0, 2, 4, 6)
    run("b", 0, 2, 4, 6)
    assert_grown(tmp_path / "a", tmp_path / "b")
    with pytest.raises(ValueError, match="images: 0 to 1 in one batch there, and not now"):
        run("a", 0, 1, 6)


def test_image_that_is_there_twice(tmp_path):
    data = Pictures(5)
    twice = Placed(data, [0, 1, 0])
    evaluate(tmp_path / "a", twice)
    more = Placed(data, [3, 0, 1, 2, 0])
    evaluate(tmp_path / "a", more)
    evaluate(tmp_path / "b", more)
    assert_grown(tmp_path / "a", tmp_path / "b")


def test_folder_with_a_new_class(tmp_path):
    """All later classes get other numbers in the data set, and keep the model's."""
    data, net = Pictures(5), GapNet()
    net.categories = ("ant", "bee", "cat", "dog", "elk")

    def give(names):
        chosen = [index for index, label in enumerate(data.labels) if NAMES[label] in names]
        found = Placed(data, chosen)
        found.classes = names
        found.labels = [names.index(NAMES[data.labels[index]]) for index in chosen]
        return Labelled(found)

    more = sorted({NAMES[label] for label in data.labels})
    few = more[1:]
    settings = {"model": net, "target": "label", "metrics": ["sparseness", "accuracy"]}
    evaluate(tmp_path / "a", give(few), **settings)
    evaluate(tmp_path / "a", give(more), **settings)
    evaluate(tmp_path / "b", give(more), **settings)
    assert_grown(tmp_path / "a", tmp_path / "b")
    said = json.loads((tmp_path / "a" / "manifest.json").read_bytes())["labels"]["GapNet"]["on"]
    assert said == {name: net.categories.index(name) for name in more}


@pytest.mark.parametrize("image", [0, 2])
def test_other_image_under_a_known_id_is_refused_among_more(tmp_path, image):
    data = Pictures(6)
    evaluate(tmp_path, Placed(data, [0, 1, 2]))
    data.images[image] += 0.1
    with pytest.raises(ValueError, match=rf"\(contents, {data.ids[image]}: \w+ there, \w+ now\)"):
        evaluate(tmp_path, Placed(data, [3, 0, 1, 2, 4]))


def test_method_and_maps_of_one_label_are_refused(tmp_path):
    evaluate(tmp_path, methods="gradcam")
    with pytest.raises(ValueError, match="both a method and maps of the evaluation in `out` are"):
        evaluate(tmp_path, methods=(), maps={"gradcam": brightness})


def test_metric_that_cannot_be_made_again_must_be_named(tmp_path):
    with pytest.warns(UserWarning, match="something to say"):
        evaluate(tmp_path, metrics=Brightness())
    before = rows(tmp_path)
    with pytest.raises(ValueError, match="'brightness', which cannot be made again"):
        evaluate(tmp_path, metrics="sparseness")
    assert rows(tmp_path) == before
    evaluate(tmp_path, metrics=[Brightness(), "sparseness"])
    assert len(rows(tmp_path)) == 2 * len(before)


def test_images_that_a_method_lacks_are_told(tmp_path):
    data = Pictures(6)
    evaluate(tmp_path, Placed(data, [0, 1]), methods=["gradcam", "hirescam"])
    message = r"4 of 6 images have no row of 'hirescam' \(GapNet\) by deletion, sparseness; name"
    with pytest.warns(UserWarning, match=message):
        results = evaluate(tmp_path, data)
    with warnings.catch_warnings(action="ignore"):  # few images
        compared = results.compare("gradcam", "hirescam", resamples=50)
    assert set(compared["n"]) == {2}
    assert not evaluate(tmp_path, data, methods=["gradcam", "hirescam"]).warnings


@pytest.mark.parametrize("part", [0, 1])
def test_killed_while_it_grows(tmp_path, part):
    """A part is replaced as a whole: some have new rows and positions, others do not yet."""
    data, out, whole = Pictures(6), tmp_path / "out", tmp_path / "whole"
    evaluate(out, Placed(data, [0, 1, 2, 3]))
    shutil.copytree(out, tmp_path / "old")
    more = {"data": Placed(data, [4, 3, 2, 5, 1, 0]), "methods": ["gradcam", "hirescam"]}
    evaluate(out, **more)
    shutil.copytree(out, whole)
    name = f"batch-0000000{part}.parquet"
    shutil.copy(tmp_path / "old" / "rows" / name, out / "rows" / name)
    (out / "rows" / "batch-00000002.parquet").unlink()
    evaluate(out, **more)
    assert_grown(out, whole)
