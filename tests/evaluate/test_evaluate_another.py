"""A folder belongs to one evaluation: which changes are refused, and which are not."""

import functools
import shutil
import warnings

import numpy as np
import pytest
import torch
from evaluations import Pictures, assert_same_rows, rows
from torch.utils.data import DataLoader, Subset, TensorDataset

import xcam
from xcam.models.toy import GapNet

METRICS = ("deletion", "sparseness")


def evaluate(out, data=None, batch_size=2, model=None, **arguments):
    arguments = {"methods": "gradcam", "metrics": METRICS, "save_maps": True, **arguments}
    loader = DataLoader(data or Pictures(6), batch_size=batch_size)
    return xcam.evaluate(model or GapNet(), loader, out=out, **arguments)


def brightness(images, ids, target):
    return images.mean(1)


def darkness(images, ids, target):
    return 1 - images.mean(1)


def changed(ids=None, labels=None, images=None, unlisted=None, truth=False):
    """Six of the pictures, with one thing changed."""
    data = Pictures(6, truth=truth)
    if ids is not None:
        data.ids[3] = ids
    if labels is not None:
        data.labels[labels] += 1
    if images is not None:
        data.images[images, 0, 0, 0] += 0.01
    if unlisted is not None:
        data.labels = dict(enumerate(data.labels))  # found by number, and not listed
        data.labels[unlisted] += 1
    return data


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"methods": xcam.get_method("gradcam")(relu=True)}, r"methods, gradcam: .*relu=True"),
        (
            {"methods": xcam.get_method("gradcam")(layer="features.0")},
            r"features\.0.* on GapNet",
        ),
        (
            {"metrics": xcam.get_metric("deletion")(step=0.5)},
            r"metrics, deletion: .*step=0\.03.* there, .*step=0\.5",
        ),
        ({"model": GapNet(seed=1)}, "models, GapNet: "),
        ({"target": "label"}, 'target: "predicted" there, "label" now'),
        ({"indices": [0, 1]}, r"images: 'class\d/2.png' and 3 more there, and not among those now"),
        ({"precision": "bf16"}, 'precision: "full" there, "bf16" now'),
        ({"seed": 1}, "seed: 0 there, 1 now"),
        ({"data": changed(ids="6")}, r"images: 'class\d/3.png' there, and not among those now"),
        ({"data": changed(labels=3)}, r"image 'class\d/3.png': label \d there, \d now"),
        ({"data": changed(images=0)}, r"contents, class\d/0.png: "),
        ({"data": changed(images=5)}, r"contents, class\d/5.png: "),
        ({"data": changed(unlisted=5)}, r"contents, class\d/5.png: "),
        ({"data": changed(truth=True)}, r"contents, class\d/0.png: "),
    ],
)
def test_folder_of_another_evaluation_is_refused_with_the_difference(once, change, sentence):
    before = {path: path.read_bytes() for path in once.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=rf"holds another evaluation \(.*{sentence}"):
        evaluate(once, **{"data": Pictures(6), **change})
    assert before == {path: path.read_bytes() for path in once.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["data set", "subset", "loader", "list"])
def test_folder_of_other_data_is_refused(tmp_path, kind):
    """The data sets have no ids that differ."""

    def run(images, labels):
        whole = TensorDataset(images, torch.as_tensor(labels))
        data = {
            "data set": whole,
            "subset": Subset(whole, range(6)),
            "loader": DataLoader(whole, batch_size=4),
            "list": [(images[:4], labels[:4]), (images[4:], labels[4:])],
        }[kind]
        settings = {"controls": False, "out": tmp_path}
        return xcam.evaluate(GapNet(), data, "gradcam", "sparseness", **settings)

    one, other = Pictures(6), Pictures(6, seed=1)
    run(one.images, one.labels)
    run(one.images, one.labels)
    for images, labels in ((other.images, one.labels), (one.images, other.labels)):
        with pytest.raises(ValueError, match=r"contents, 0: .* there, .* now"):
            run(images, labels)


def test_folder_of_other_maps_by_the_same_label_is_refused(tmp_path):
    maps = tmp_path / "maps"
    for index, name in enumerate(Pictures(6).ids):
        (maps / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(maps / f"{name}.npy", np.full((4, 4), index, np.float32))

    def run(source, out="out"):
        settings = {"methods": (), "metrics": "average_drop", "maps": {"mine": source}}
        with warnings.catch_warnings(action="ignore"):  # the maps are flat
            evaluate(tmp_path / out, Pictures(6), controls=False, save_maps=False, **settings)

    run(brightness)
    run(brightness)
    with pytest.raises(ValueError, match=r'brightness"\} there, .*darkness"\} now'):
        run(darkness)
    with pytest.raises(ValueError, match=r"brightness.* there, .*folder.* now"):
        run(maps)
    run(maps, "folder")
    first = min(maps.rglob("*.npy"))
    np.save(first, np.eye(4, dtype=np.float32))
    with pytest.raises(ValueError, match=r"maps, mine: .*sha256.* there"):
        run(maps, "folder")
    run(maps, "rewritten")
    np.save(max(maps.rglob("*.npy")), np.eye(5, dtype=np.float32))
    with pytest.raises(ValueError, match=r"maps, mine: .*sha256.* there"):
        run(maps, "rewritten")


def test_lambda_as_maps_is_refused_with_a_folder_only(tmp_path):
    named = functools.update_wrapper(functools.partial(brightness), brightness)
    settings = {"methods": (), "controls": False, "save_maps": False}
    evaluate(tmp_path / "named", Pictures(2), maps=named, **settings)
    for maps in (lambda images, ids, target: images, functools.partial(brightness)):
        with pytest.raises(ValueError, match=r"the maps 'maps' come from .*; give a function made"):
            evaluate(tmp_path / "out", Pictures(2), maps=maps, **settings)
        assert not (tmp_path / "out").exists()
        assert evaluate(None, Pictures(2), maps=maps, **settings).errors().empty


def test_folder_without_rows_accepts_other_settings(tmp_path):
    class Stopped(Pictures):
        def __getitem__(self, index):
            if index == 1:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path / "a", Stopped(6))
    evaluate(tmp_path / "a", Pictures(6), seed=1, save_maps=False)
    evaluate(tmp_path / "b", Pictures(6), seed=1, save_maps=False)
    assert_same_rows(rows(tmp_path / "a"), rows(tmp_path / "b"))
    said = [(tmp_path / name / "manifest.json").read_bytes() for name in "ab"]
    assert said[0] == said[1]


@pytest.mark.parametrize("name", ["maps/gradcam/batch-00000000.safetensors", "a manifest"])
def test_manifest_of_another_kind_is_left_alone(tmp_path, name):
    """Maps that were written before any row, or a manifest of something else."""
    message = "holds another evaluation"
    if name == "a manifest":
        message = r"manifest\.json' is damaged, or not by .* use another folder for the evaluation"
        (tmp_path / "manifest.json").write_text('{"name": "my site"}')
    else:
        evaluate(tmp_path, Pictures(6))
        shutil.rmtree(tmp_path / "rows")
    before = (tmp_path / "manifest.json").read_bytes()
    with pytest.raises(ValueError, match=message):
        evaluate(tmp_path, Pictures(6), seed=1)
    assert (tmp_path / "manifest.json").read_bytes() == before


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    out = tmp_path_factory.mktemp("once")
    evaluate(out, Pictures(6))
    return out


def test_loader_may_have_another_batch_size_on_resume(once):
    before = {path: path.stat().st_mtime_ns for path in once.rglob("*") if path.is_file()}
    evaluate(once, Pictures(6), batch_size=4, controls=False, save_maps=False, metrics="deletion")
    assert before == {path: path.stat().st_mtime_ns for path in once.rglob("*") if path.is_file()}


def test_batch_size_may_change_on_resume(once):
    results = evaluate(once, Pictures(6), progress=True)
    again = xcam.evaluate(
        GapNet(),
        DataLoader(Pictures(6), batch_size=2, num_workers=0),
        "gradcam",
        METRICS,
        out=once,
        batch_size=1,
        save_maps=True,
    )
    assert again.table().equals(results.table())
