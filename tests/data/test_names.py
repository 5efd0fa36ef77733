"""Names of files and lists in other encodings, and with blanks, commas, tabs and quotes."""

import codecs
import os
import sys
import unicodedata

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

import xcam
from xcam.data import folder, imagenet_val, listed

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="other systems refuse names that are no UTF-8"
)
OLD = b"caf\xe9.png"  # Latin-1


@pytest.fixture
def pictures(tmp_path):
    """A picture of one gray for each name: 0, 10, 20, …"""

    def pictures(*names):
        for number, name in enumerate(names):
            path = tmp_path / os.fsdecode(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                Image.new("L", (32, 32), 10 * number).save(file, "PNG")
        return tmp_path

    return pictures


@pytest.fixture
def write(tmp_path):
    def write(content, encoding="utf-8"):
        path = tmp_path / "list.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return path

    return write


def grays(data):
    return [(round(float(image.mean()) * 255), label) for image, label in data]


class TestFileNames:
    def test_evaluation_writes_and_reads_them(self, pictures, tmp_path):
        root = pictures("in/ok.png", b"in/" + OLD, b"in/\xff\xfe x.png") / "in"
        model = xcam.models.load("xcam:small_cnn", num_classes=3)
        data = folder(root, 32)
        assert data.ids == (r"caf\xe9.png", "ok.png", r"\xff\xfe x.png")
        out = tmp_path / "out"
        results = xcam.evaluate(
            model, data, "gradcam", ["sparseness"], controls=False, out=out, save_maps=True
        )
        assert set(results.to_pandas()["image"]) == set(data.ids)
        results.to_pandas().to_csv(tmp_path / "rows.csv")
        assert xcam.evaluate(
            model, data, "gradcam", ["sparseness"], controls=False, out=out, save_maps=True
        ).table().equals(results.table())  # fmt: skip
        maps = xcam.evaluate(
            model, data, [], ["sparseness"], maps=out / "maps" / "gradcam", controls=False
        )
        assert maps.to_pandas()["error"].isna().all()

    def test_folder_of_results_is_refused_before_the_work(self, pictures, tmp_path):
        root = pictures("a/1.png", "b/2.png")
        model, data = xcam.models.load("xcam:small_cnn", num_classes=2), folder(root, 32)
        out = tmp_path / os.fsdecode(b"out\xe9")
        sentence = r"out.*' is no UTF-8, .*; give another folder"
        with pytest.raises(ValueError, match=sentence):
            xcam.fit(model, data, epochs=1, batch_size=2, out=out)
        with pytest.raises(ValueError, match=sentence):
            xcam.evaluate(model, data, metrics=["sparseness"], controls=False, out=out)
        assert not out.exists()

    def test_class_folders(self, pictures):
        root = pictures(b"a\xe9/1.png", "b/" + os.fsdecode(OLD))
        data = folder(root, 32)
        assert data.classes == (r"a\xe9", "b")
        assert data.ids == (r"a\xe9/1.png", r"b/caf\xe9.png")
        assert grays(data) == [(0, 0), (10, 1)]
        assert imagenet_val(root, size=32).ids == ("1.png", r"caf\xe9.png")

    def test_ids_of_any_data_set(self, tmp_path):
        class Listed(Dataset):
            ids = ("a", os.fsdecode(OLD))

            def __len__(self):
                return 2

            def __getitem__(self, index):
                return (torch.rand(3, 32, 32),)

        model = xcam.models.load("xcam:small_cnn", num_classes=3)
        results = xcam.evaluate(model, Listed(), "gradcam", ["sparseness"], controls=False)
        assert sorted(results.to_pandas()["image"]) == ["a", r"caf\xe9.png"]

    def test_maps_by_id(self, pictures, tmp_path):
        root = pictures(b"in/" + OLD) / "in"
        (tmp_path / "maps").mkdir()
        with (tmp_path / "maps" / os.fsdecode(b"caf\xe9.npy")).open("wb") as file:
            np.save(file, np.random.default_rng(0).random((8, 8)))
        model = xcam.models.load("xcam:small_cnn", num_classes=3)
        rows = xcam.evaluate(
            model, folder(root, 32), [], ["sparseness"], maps=tmp_path / "maps", controls=False
        ).to_pandas()
        assert rows["error"].isna().all()
        assert len(rows) == 1


class TestEncodingsOfLists:
    @pytest.mark.parametrize(
        "encoding",
        ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"],
    )
    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    def test_names_in_the_file_system_s_utf8(self, pictures, write, encoding, end):
        pictures("pics/ok.png", "pics/é.png", "pics/naïve – €.png")
        path = write(f"file,label{end}pics/é.png,1{end}{end}pics/naïve – €.png,2{end}", encoding)
        data = listed(path, size=32)
        assert data.ids == ("pics/é.png", "pics/naïve – €.png")
        assert grays(data) == [(10, 1), (20, 2)]

    @pytest.mark.parametrize("codec", ["utf-16-be", "utf-16-le"])
    def test_either_order_of_bytes(self, pictures, write, codec):
        mark = codecs.BOM_UTF16_BE if codec == "utf-16-be" else codecs.BOM_UTF16_LE
        pictures("a.png", "é.png")
        assert grays(listed(write(mark + "é.png 4\n".encode(codec)), size=32)) == [(10, 4)]
        with pytest.raises(ValueError, match=r"list.txt' holds zero bytes, .*; save .* as UTF-8"):
            listed(write("é.png 4\n".encode(codec)))

    def test_names_and_list_in_latin_1(self, pictures, write):
        """The bytes of the list are the bytes of the name."""
        pictures("a.png", OLD, "café.png")
        data = listed(write(OLD + b" 3\n"), size=32)
        assert grays(data) == [(10, 3)]
        assert data.ids == (r"caf\xe9.png",)

    def test_messages_spell_names_as_ids_do(self, pictures, write):
        with pytest.raises(FileNotFoundError, match=r"no picture at '.*/caf\\xe9.png'; the list"):
            listed(write(OLD + b" 3\n"))
        pictures("a.png")
        with pytest.raises(FileNotFoundError, match=r"no file at '.*/m\\xff.png'"):
            listed(write(b"a.png 1 m\xff.png\n"))
        root = pictures(b"in/" + OLD) / "in"
        (root / os.fsdecode(OLD)).write_bytes(b"x")
        with pytest.raises(ValueError, match=r"/in/caf\\xe9.png' is not a picture"):
            folder(root)[0]

    @pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
    def test_accents_composed_otherwise(self, pictures, write, forms):
        in_list, on_disk = (unicodedata.normalize(form, "é.png") for form in forms)
        pictures("other.png", on_disk)
        assert grays(listed(write(f"{in_list} 1\n"), size=32)) == [(10, 1)]

    def test_missing_file_of_a_list_in_latin_1(self, write):
        with pytest.raises(FileNotFoundError, match=r"line 1 of .*; the list is not UTF-8, save i"):
            listed(write("é.png 0\n", "latin-1"))

    def test_no_text(self, write):
        with pytest.raises(ValueError, match="begins like utf-16 and is none"):
            listed(write(b"\xff\xfea"))

    def test_labels_alone(self, pictures, write):
        root = pictures("in/1.png", "in/2.png") / "in"
        assert imagenet_val(root, write("4\r\n7\r\n", "utf-16"), 32).labels == (4, 7)


class TestColumns:
    @pytest.mark.parametrize(
        "line",
        ["{}\t7", "{},7", '"{}",7', '"{}" 7', '"{}"\t7', "{};7", "{}\t 7"],
    )
    @pytest.mark.parametrize("name", ["my cat.png", "plain.png", "it's; a – test.png"])
    def test_names_with_blanks_and_quotes(self, pictures, write, line, name):
        if line == "{};7" and ";" in name:
            line = '"{}";7'
        pictures("other.png", name)
        assert grays(listed(write(line.format(name)), size=32)) == [(10, 7)]

    @pytest.mark.parametrize("line", ["a,b.png 7", "a,b.png\t7", '"a,b.png",7', '"a,b.png" 7'])
    def test_names_with_commas(self, pictures, write, line):
        pictures("a", "a,b.png") if '"' in line else pictures("other.png", "a,b.png")
        data = listed(write(f"{line}\n"), size=32)
        assert (data.ids, grays(data)) == (("a,b.png",), [(10, 7)])

    def test_quoted_mask_among_blanks(self, pictures, write):
        pictures("a.png", "my mask.png")
        (_, label, mask) = listed(write('a.png 1 "my mask.png"'), size=32)[0]
        assert (label, mask.unique().tolist()) == (1, [1])

    def test_lines_that_name_nothing(self, pictures, write):
        pictures("a.png")
        for line in ('""', ",", '"" ""', "x" * 5000 + " 1"):
            with pytest.raises((ValueError, FileNotFoundError), match="line 2 of "):
                listed(write(f"a.png 0\n{line}"))

    def test_empty_column_is_no_label(self, pictures, write):
        pictures("a.png")
        sentence = r"line 1 of .* from 0, or its name, and column 2 is empty: a separator too many"
        for line in ("a.png,,1,2,3,4", "a.png\t\t1"):
            with pytest.raises(ValueError, match=sentence):
                listed(write(line))

    def test_unit_separators_do_not_end_a_line(self, pictures, write):
        name = "a\x85b\u2028c.png"
        pictures("other.png", name)
        assert grays(listed(write(f"{name},2\n"), size=32)) == [(10, 2)]
