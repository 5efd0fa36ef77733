"""Maps that an evaluation saves, and maps from elsewhere that it scores."""

import itertools

import numpy as np
import pytest
import torch
from evaluations import (
    CONTROLS,
    NET,
    Pictures,
    assert_same_rows,
    evaluate,
    loader,
    plain,
    rows,
)

import xcam
from xcam.errors import XcamWarning
from xcam.explanations.folder import StoredMaps
from xcam.explanations.folder import _read_tensors as read_tensors
from xcam.imaging import normalize, resize
from xcam.models.toy import GapNet, SmallCNN


def square(side):
    """Return a map of noise (side, side)."""
    return torch.rand(side, side, generator=torch.Generator().manual_seed(side))


def by_evaluation(net, data, methods, folder):
    """Return the folder of each method's maps, as an evaluation saves them."""
    evaluate(loader(data), methods, model=net, out=folder, save_maps=True)
    return {name: folder / "maps" / name for name in methods}


def by_explaining(net, data, methods, folder):
    """Return the folder of each method's explanations, one file an image.

    They are made in the batches of `loader`: others give other roundings.
    """
    for method in methods:
        made = [xcam.explain(net, batch, method=method) for batch, _ in loader(data)]
        for name, one in zip(data.ids, itertools.chain(*made), strict=True):
            path = folder / method / f"{name}.safetensors"
            path.parent.mkdir(parents=True, exist_ok=True)
            one.save(path)
    return {method: folder / method for method in methods}


class TestMaps:
    def test_stored_maps_score_as_the_method_that_made_them(self, tmp_path):
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

    def test_maps_are_saved_at_their_own_resolution(self, tmp_path):
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

    @pytest.mark.parametrize("method", ["gradcam", "saliency", "input_x_gradient"])
    def test_saved_explanations_score_alike_bit_for_bit(self, tmp_path, method):
        data, metrics = Pictures(), ["deletion", "average_drop", "complexity"]
        maps = by_explaining(NET, data, [method], tmp_path)[method]
        settings = {"metrics": metrics, "controls": False}
        evaluate(loader(data), method, out=tmp_path / "made", **settings)
        evaluate(loader(data), (), maps=maps, out=tmp_path / "read", **settings)
        made, read = rows(tmp_path / "made"), rows(tmp_path / "read")
        columns = ("index", "metric", "values")
        assert plain(read, *columns) == plain(made, *columns)

    @pytest.mark.parametrize("made_by", [by_evaluation, by_explaining])
    def test_a_file_of_maps_is_read_once_for_all_metrics(self, tmp_path, made_by, monkeypatch):
        folder = made_by(NET, Pictures(), ["gradcam"], tmp_path)["gradcam"]
        source, read = StoredMaps(folder), []
        reader = "xcam.explanations.folder._read_tensors"
        monkeypatch.setattr(reader, lambda path: read.append(path) or read_tensors(path))
        metrics = ["deletion", "average_drop", "complexity", "sparseness"]
        evaluate(loader(), (), metrics, maps={"mine": source}, controls=False)
        files = sorted(folder.rglob("*.safetensors"))
        assert sorted(read) == files
        assert len(files) == (3 if made_by is by_evaluation else 11)

    def test_maps_of_several_resolutions_score_alike_in_any_batches(self, tmp_path):
        """Each is normalized at its own resolution, alone or beside another."""
        data, sides = Pictures(6), [5, 7, 5, 16, 7, 5]
        made = dict(zip(data.ids, map(square, sides), strict=True))

        def mine(images, ids, target):
            return [made[name] for name in ids]

        found = []
        for size in (1, 2, 6):
            out = tmp_path / str(size)
            metrics = ["average_drop", "sparseness"]
            evaluate(loader(data, size), (), metrics, maps=mine, controls=False, out=out)
            found.append(rows(out))
        for row in itertools.chain(*found):
            del row["passes_spent"]  # images of another resolution have clean passes of their own
        assert_same_rows(found[1], found[0])
        assert_same_rows(found[2], sorted(found[0], key=lambda row: row["index"]))
        drops = [row["values"][0] for row in found[0] if row["metric"] == "average_drop"]
        for image, low, drop in zip(data.images, made.values(), drops, strict=True):
            mask = resize(normalize(low[None]), (16, 16))
            with torch.no_grad():
                clean, masked = NET(torch.stack([image, image * mask[0]])).softmax(1).unbind()
            lost = (clean.amax() - masked[clean.argmax()]).clamp(min=0) / clean.amax()
            assert drop == pytest.approx(100 * float(lost), abs=1e-3)

    @pytest.mark.parametrize("made_by", [by_evaluation, by_explaining])
    def test_maps_without_a_class_count_for_any_class(self, tmp_path, made_by):
        """A map of LFI-CAM has no class, so that a net that predicts other classes can use it."""
        data, net, other = Pictures(6), xcam.get_method("lficam")().attach(GapNet()), SmallCNN()
        net.fitted = True
        classes = [one(data.images).argmax(1) for one in (net.eval(), other.eval())]
        differ = int((classes[0] != classes[1]).sum())
        assert differ > 0
        folders = made_by(net, data, ["lficam", "saliency"], tmp_path / "made")
        settings = {"model": other, "controls": False, "out": tmp_path / "read"}
        results = evaluate(loader(data), (), maps=folders, **settings)
        errors = results.errors()
        assert errors["method"].tolist() == ["saliency"] * differ
        assert errors["error"].str.contains("is of class").all()

    @pytest.mark.parametrize("layout", ["first", "last", "one", "one_last"])
    def test_arrays_score_alike_with_channels_first_or_last(self, tmp_path, layout):
        data = Pictures(4)
        for name, single in zip(data.ids, np.random.default_rng(0).random((4, 9, 7)), strict=True):
            stacked = {
                "first": np.stack([single / 2, single / 4, single / 4]),
                "last": np.stack([single / 2, single / 4, single / 4], -1),
                "one": single[None],
                "one_last": single[..., None],
            }[layout]
            for folder, values in (("plain", single), ("stacked", stacked)):
                path = tmp_path / folder / f"{name}.npy"
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, values.astype(np.float32))
        folders = {name: tmp_path / name for name in ("plain", "stacked")}
        results = evaluate(loader(data), (), "average_drop", maps=folders, controls=False)
        plain_drop, stacked_drop = results.table()["value"]
        assert stacked_drop == pytest.approx(plain_drop, abs=1e-4)

    @pytest.mark.parametrize("kind", ["tensor", "array", "channels", "list"])
    def test_callable_gives_maps(self, tmp_path, kind):
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
            given = explanation.of(brightness, data.images)
            expected = xcam.get_metric("sparseness")().score(NET, data.images, given)
            values = [row["values"][0] for row in found]
            np.testing.assert_allclose(values, expected, rtol=1e-5)

    def test_flat_maps_are_counted_also_from_a_folder(self, tmp_path):
        def mine(images, ids, target):
            maps = images.mean(1)
            maps[0] = 0.5
            return maps

        settings = {"maps": {"mine": mine}, "out": tmp_path, "metrics": ["deletion", "sparseness"]}
        for _ in range(2):
            with pytest.warns(XcamWarning, match="3 of 11 maps of 'mine' are flat, they point"):
                results = evaluate(loader(), (), **settings)
        assert len(results.warnings) == 1
        assert "11 rows each, 0 errors, 3 flat maps" in str(results)
        flat = [row["index"] for row in rows(tmp_path) if row["flat"]]
        assert flat == [0, 0, 4, 4, 8, 8]
        evaluate(loader(), out=tmp_path / "b")
        fine = xcam.Results(tmp_path / "b")
        assert fine.warnings == ()
        assert str(fine).endswith("0 errors")

    def test_missing_map_is_recorded_as_an_error(self, tmp_path):
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
    def test_bad_map_is_recorded_as_an_error(self, tmp_path, made, sentence):
        def mine(images, ids, target):
            return made(images)

        evaluate(loader(Pictures(1)), (), maps={"mine": mine}, out=tmp_path, controls=False)
        (row,) = rows(tmp_path)
        assert row["values"] is None
        with pytest.raises(ValueError, match=sentence):
            raise ValueError(row["error"])
