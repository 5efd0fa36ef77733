import json
import zlib

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import xcam
from xcam.engine import unwrap
from xcam.errors import FileFormatError
from xcam.explanations.folder import StoredMaps, write_maps
from xcam.metrics import Sparseness
from xcam.models.toy import GapNet, SmallCNN
from xcam.results.parts import SCHEMA, Row
from xcam.results.store import Store
from xcam.runs import manifest


def row(index=0, metric="entropy", **values):
    return Row(index, f"{index}.png", "net", 3, None, "gradcam", metric, **values)


class TestRows:
    def test_come_back_sorted_and_typed(self, tmp_path):
        store = Store(tmp_path)
        store.open({})
        values = np.arange(6, dtype=np.float32)
        good = {"values": values, "shape": (2, 3), "seconds": 0.5, "passes": 7.0}
        store.write(17, [row(2, **good), row(1, "sparseness"), row(1, error="ValueError: no")])
        table = pq.read_table(tmp_path / "rows" / "batch-00000017.parquet")
        assert table.schema.equals(SCHEMA)
        found = table.to_pylist()
        assert [(r["index"], r["metric"]) for r in found] == [
            (1, "entropy"), (1, "sparseness"), (2, "entropy")
        ]  # fmt: skip
        assert found[0]["error"] == "ValueError: no"
        assert found[0]["values"] is found[0]["seconds"] is found[0]["label"] is None
        assert found[2]["values"] == values.tolist()
        assert found[2]["shape"] == [2, 3]
        assert (found[2]["passes"], found[2]["target"]) == (7.0, 3)

    def test_rows_of_single_numbers_have_an_empty_shape(self, tmp_path):
        store = Store(tmp_path)
        store.open({})
        store.write(0, [row(values=np.array([2.5], np.float32), shape=())])
        (found,) = pq.read_table(tmp_path / "rows").to_pylist()
        assert (found["values"], found["shape"]) == ([2.5], [])

    def test_done_is_what_is_there_whole(self, tmp_path):
        store = Store(tmp_path)
        store.open({})
        assert store.list_done() == []
        store.write(3, [row()])
        (tmp_path / "rows" / ".batch-00000004.parquet.123.part").write_bytes(b"PAR1")
        assert store.list_done() == [3]

    def test_clean_takes_its_own_temporary_files_alone(self, tmp_path):
        store = Store(tmp_path)
        store.open({})
        ours = [
            ".manifest.json.123.a1b2c3d4.part",
            "rows/.batch-00000004.parquet.123.a1b2c3d4.part",
            "maps/net/gradcam/.batch-00000004.safetensors.123.a1b2c3d4.part",
        ]
        others = [
            ".film.mkv.part",
            "download/.film.mkv.part",
            "maps/.film.mkv.12.part",
            "another/rows/.batch-00000004.parquet.123.a1b2c3d4.part",
            "another/.manifest.json.123.a1b2c3d4.part",
            "rows/batch-00000003.parquet",
        ]
        for name in others:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        for name in ours:
            (tmp_path / name).mkdir(parents=True)
            (tmp_path / name / "content").touch()
        store.clean()
        assert [name for name in ours if (tmp_path / name).exists()] == []
        assert [name for name in others if not (tmp_path / name).exists()] == []


class TestMapFolders:
    def test_map_folders_are_named_by_label(self, tmp_path):
        store = Store(tmp_path)
        assert store.maps_folder("net", "gradcam") == tmp_path / "maps" / "net" / "gradcam"
        assert store.maps_folder("RISE(n_masks=10)").name == "RISE(n_masks=10)"

    @pytest.mark.parametrize("label", ["../../etc", "a/b", "..", "", "x" * 300])
    def test_map_folders_stay_inside_the_store(self, tmp_path, label):
        path = Store(tmp_path).maps_folder(label)
        assert path.parent == tmp_path / "maps"
        assert path.name not in ("", ".", "..")


class TestManifest:
    def test_manifest_is_written_once_and_then_compared(self, tmp_path):
        Store(tmp_path).open({"seed": 0, "models": {"a": {"sha256": "x"}}})
        written = (tmp_path / "manifest.json").read_bytes()
        content = json.loads(written)
        assert content.pop("checksum") == zlib.crc32(
            b'{"models": {"a": {"sha256": "x"}}, "seed": 0}'
        )
        assert content == {"seed": 0, "models": {"a": {"sha256": "x"}}}
        Store(tmp_path).open({"models": {"a": {"sha256": "x"}}, "seed": 0})
        assert (tmp_path / "manifest.json").read_bytes() == written

    def test_manifest_of_an_empty_folder_is_replaced_except_by_joining_processes(self, tmp_path):
        store = Store(tmp_path)
        store.open({"seed": 0})
        with pytest.raises(ValueError, match="seed: 0 there, 1 now"):
            store.open({"seed": 1}, joining=True)
        store.open({"seed": 1})
        store.write(0, [row()])
        with pytest.raises(ValueError, match="seed: 1 there, 0 now"):
            store.open({"seed": 0})

    def test_names_each_setting_of_a_method(self):
        there, now = (
            {"method": manifest.describe_settings(kind(relu=relu), kind.spec.name)}
            for kind, relu in ((xcam.get_method("gradcam"), r) for r in (False, True))
        )
        assert list(manifest.list_differences(there, now)) == [
            "method, relu: false there, true now"
        ]
        other = {"method": manifest.describe_settings(xcam.get_method("rise")(), "rise")}
        (name, *_) = manifest.list_differences(there, other)
        assert name == 'method, name: "gradcam" there, "rise" now'

    def test_names_each_difference(self):
        recipe = manifest.describe_settings(xcam.get_method("gradcam")(), "gradcam")
        other = manifest.describe_settings(xcam.get_method("gradcam")(relu=True), "gradcam")
        there = {"seed": 0, "methods": {"a": recipe, "b": recipe}, "target": "label", "same": [1]}
        now = {"seed": 1, "methods": {"a": other}, "same": [1], "new": None}
        found = list(manifest.list_differences(there, now))
        assert found[0] == "seed: 0 there, 1 now"
        assert found[1] == "methods: a, b there, a now"
        assert found[2].startswith("methods, a: GradCAM(")
        assert "relu=True" in found[2].partition(" there, ")[2]
        assert found[3] == 'target: "label" there, null now'
        assert len(found) == 4

    def test_refuses_what_is_damaged_or_gone(self, tmp_path):
        store = Store(tmp_path)
        store.open({})
        store.write(0, [row()])
        for content in ("{", "[]", "{}", "\xff", '{"checksum": 0}'):
            (tmp_path / "manifest.json").write_text(content, encoding="latin-1")
            with pytest.raises(FileFormatError, match=r"manifest\.json' is damaged, or not by"):
                store.open({})
        (tmp_path / "manifest.json").unlink()
        message = r"holds a begun evaluation but no manifest\.json"
        with pytest.raises(FileFormatError, match=message):
            store.open({})

    def test_tells_models_apart_by_class_weights_and_buffers(self):
        net = SmallCNN()
        same = manifest.describe_model(unwrap(net))
        assert manifest.describe_model(unwrap(torch.nn.DataParallel(SmallCNN()))) == same
        assert manifest.describe_model(unwrap(SmallCNN(inplace=True))) == same
        assert manifest.describe_model(unwrap(SmallCNN(seed=1))) != same
        assert manifest.describe_model(unwrap(GapNet()))["class"] != same["class"]
        net.features[1].running_mean[0] += 1e-6
        assert manifest.describe_model(unwrap(net)) != same

    def test_sees_buffers_outside_of_the_state_dict(self):
        models = [xcam.models.Normalized(GapNet(), (mean,), (1.0,)) for mean in (0.0, 0.5)]
        first, second = map(manifest.describe_model, models)
        assert first != second

    def test_holds_settings_as_json(self):
        fill = xcam.get_method("scorecam")(fill=torch.zeros(3))
        found = manifest.describe_settings(fill, "scorecam")
        assert json.loads(json.dumps(found)) == found
        assert found["parameters"]["fill"] == "Tensor"
        assert found["repr"] == repr(fill)
        assert manifest.describe_settings(Sparseness(), "sparseness")["parameters"] == {}


@pytest.fixture
def images():
    return torch.zeros(2, 3, 8, 8)


class TestStoredMaps:
    def test_come_back_in_half_precision_at_any_scale(self, tmp_path, images):
        maps = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
        maps = maps * torch.tensor([1e-9, 1e9])[:, None, None]  # outside of what a half holds
        write_maps(tmp_path / "batch-00000000.safetensors", maps, ["a/0.png", "1"], [4, 2])
        found = StoredMaps(tmp_path)(images, ["1", "a/0.png"], torch.tensor([2, 4]))
        for one, expected in zip(found, maps.flip(0), strict=True):
            error = (one - expected).abs().max() / expected.abs().max()
            assert error < 2**-11

    def test_stored_zeros_are_zeros(self, tmp_path, images):
        write_maps(tmp_path / "x.safetensors", torch.zeros(1, 4, 4), ["0"], [0])
        (found,) = StoredMaps(tmp_path)(images[:1], ["0"], torch.tensor([0]))
        assert torch.equal(found, torch.zeros(4, 4))

    def test_maps_of_another_class_are_refused(self, tmp_path, images):
        maps = torch.stack([torch.full((2, 2), 1.0), torch.full((2, 2), 2.0)])
        write_maps(tmp_path / "x.safetensors", maps, ["cat", "cat"], [0, 3])
        stored = StoredMaps(tmp_path)
        found = stored(images, ["cat", "cat"], torch.tensor([3, 0]))
        assert [float(one[0, 0]) for one in found] == [2.0, 1.0]
        with pytest.raises(
            ValueError, match=r"image 'cat' is of class 0, 3, and class 1 is needed"
        ):
            stored(images[:1], ["cat"], torch.tensor([1]))

    def test_maps_that_are_not_class_specific_count_for_any_class(self, tmp_path, images):
        path, ids, maps = tmp_path / "x.safetensors", ["cat", "dog"], torch.eye(3).expand(2, 3, 3)
        write_maps(path, maps, ids, [0, 3], class_specific=False)
        assert len(StoredMaps(tmp_path)(images, ids, torch.tensor([7, 8]))) == 2
        assert torch.equal(StoredMaps(tmp_path).load("dog"), maps[1])
        write_maps(path, maps, ids, [0, 3])
        assert len(StoredMaps(tmp_path)(images, ids, torch.tensor([0, 3]))) == 2
        with pytest.raises(ValueError, match="is of class 3, and class 8 is needed"):
            StoredMaps(tmp_path)(images, ids, torch.tensor([0, 8]))

    def test_arrays_are_found_by_id(self, tmp_path, images):
        (tmp_path / "n01").mkdir()
        np.save(tmp_path / "n01" / "cat.npy", np.ones((3, 4)))
        np.save(tmp_path / "7.npy", np.ones((3, 6, 6), np.float16))
        cat, seven = StoredMaps(tmp_path)(images, ["n01/cat.jpg", "7"], torch.tensor([1, 2]))
        assert (cat.shape, cat.dtype) == ((3, 4), torch.float32)
        assert torch.equal(seven, torch.full((6, 6), 3.0))

    def test_explanations_are_found_by_id(self, tmp_path):
        image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        explanation = xcam.explain(GapNet(), image, 2)
        explanation.save(tmp_path / "cat.safetensors")
        stored = StoredMaps(tmp_path)
        (found,) = stored(image, ["cat.png"], torch.tensor([2]))
        assert torch.equal(found, explanation.raw[0])
        with pytest.raises(ValueError, match="is of class 2, and class 0 is needed"):
            stored(image, ["cat.png"], torch.tensor([0]))

    def test_two_maps_of_an_image_are_refused(self, tmp_path):
        for name in ("gradcam", "rise"):
            write_maps(tmp_path / name / "x.safetensors", torch.ones(1, 2, 2), ["cat"], [0])
        with pytest.raises(ValueError, match="both have a map of image 'cat'"):
            StoredMaps(tmp_path)

    def test_missing_or_damaged_maps_are_refused_in_one_sentence(self, tmp_path, images):
        with pytest.raises(FileNotFoundError, match="no folder of maps at"):
            StoredMaps(tmp_path / "none")
        with pytest.raises(FileNotFoundError, match="holds no maps"):
            StoredMaps(tmp_path)
        np.save(tmp_path / "flat.npy", np.ones(5))
        (tmp_path / "broken.npy").write_bytes(b"no array")
        stored = StoredMaps(tmp_path)
        one = images[:1], torch.tensor([0])
        with pytest.raises(FileNotFoundError, match="no map of image 'cat'"):
            stored(one[0], ["cat"], one[1])
        with pytest.raises(ValueError, match=r"must hold \(h, w\) or \(C, h, w\), got \(5,\)"):
            stored(one[0], ["flat"], one[1])
        with pytest.raises(FileFormatError, match="is damaged, or no array"):
            stored(one[0], ["broken"], one[1])
        (tmp_path / "broken.safetensors").write_bytes(b"no tensors")
        with pytest.raises(FileFormatError, match="is damaged, or no file of maps"):
            StoredMaps(tmp_path)
