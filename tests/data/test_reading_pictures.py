"""Which files of a folder are pictures, and what is said of the others."""

import warnings

import pytest
from PIL import Image, features

from xcam.data import folder, load
from xcam.errors import XcamWarning

FORMATS = {
    "1.gif": "GIF", "2.jfif": "JPEG", "3.jpe": "JPEG", "4.JPG": "JPEG", "5.Gif": "GIF",
    "6.apng": "PNG", "7.TIFF": "TIFF", "8.jp2": "JPEG2000", "9.pbm": "PPM", "a.tga": "TGA",
}  # fmt: skip


def save(path, gray=0, kind=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (32, 32), gray).save(path, kind)


@pytest.fixture
def root(tmp_path):
    save(tmp_path / "data" / "cat" / "1.png", 10)
    save(tmp_path / "data" / "dog" / "1.png", 200)
    return tmp_path / "data"


class TestFormats:
    def test_all_that_pillow_reads(self, root):
        formats = FORMATS | ({"b.avif": "AVIF"} if features.check("avif") else {})
        for name, kind in formats.items():
            save(root / "dog" / "deep" / name, 255, kind)
        data = folder(root, 32)
        assert data.ids[2:] == tuple(f"dog/deep/{name}" for name in sorted(formats))
        for image, label in [data[index] for index in range(2, len(data))]:
            assert label == 1
            assert image.min() > 0.97

    def test_first_frame_counts(self, root):
        frames = [Image.new("L", (32, 32), gray) for gray in (255, 0, 0)]
        frames[0].save(root / "cat" / "2.gif", save_all=True, append_images=frames[1:])
        assert folder(root, 32)[1][0].min() == 1

    def test_plugins_of_others(self, root, monkeypatch):
        """A format that somebody else taught Pillow, as pillow-heif does."""
        Image.init()
        monkeypatch.setitem(Image.EXTENSION, ".heic", "PNG")
        save(root / "cat" / "2.heic", kind="PNG")
        assert "cat/2.heic" in folder(root).ids


class TestLeftOut:
    def test_counted_and_said_once(self, root):
        for name in ("cat/a.heic", "dog/b.HEIC", "dog/c.svg", "dog/deep/d", "cat/e.npy"):
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_bytes(b"x")
        with pytest.warns(XcamWarning) as caught:
            assert len(folder(root)) == 2
        (found,) = caught
        text = str(found.message)
        with warnings.catch_warnings():  # once a process, however often it is opened
            warnings.simplefilter("error")
            assert len(folder(root)) == 2
        assert "left out 5 files that Pillow does not read as pictures (2 .heic, " in text
        assert "such as " in text
        assert "cat/a.heic" in text
        assert "without an ending" in text
        assert found.filename == __file__

    def test_notes_and_systems_files_are_no_news(self, root):
        names = ("notes.txt", "labels.csv", "README", "Thumbs.db", "desktop.ini", ".DS_Store",
                 "._1.png", "net.pth", "all.tar.gz")  # fmt: skip
        for name in (*names, *(f"cat/{name}" for name in names)):
            (root / name).write_bytes(b"x")
        for name in ("__MACOSX/cat/1.png", "lost+found/1.png", "dog/__MACOSX/2.png"):
            save(root / name)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            data = folder(root)
        assert data.classes == ("cat", "dog")
        assert data.ids == ("cat/1.png", "dog/1.png")

    def test_nothing_else_there(self, tmp_path):
        (tmp_path / "1.heic").write_bytes(b"x")
        with pytest.raises(FileNotFoundError, match=r"no pictures in .*: left out 1 .*1 .heic; .* t"
                           "o PNG or JPEG"):  # fmt: skip
            folder(tmp_path)

    def test_what_is_new_is_said(self, root):
        for name, sentence in (
            ("a.heic", "out 1 file that .*1 .heic"),
            ("b.svg", "out 2 file"),
        ):
            (root / "cat" / name).write_bytes(b"x")
            with pytest.warns(XcamWarning, match=sentence):
                folder(root)

    def test_once_for_each_split(self, root, tmp_path):
        for name in ("train", "val"):
            for label in ("cat", "dog"):
                save(tmp_path / "all" / name / label / "1.png")
        (tmp_path / "all" / "val" / "cat" / "a.heic").write_bytes(b"x")
        with pytest.warns(XcamWarning, match=r"/val': left out 1") as caught:
            load("folder", tmp_path / "all")
        assert len(caught) == 1


class TestLinks:
    def test_link_to_a_folder_elsewhere_is_followed(self, root, tmp_path):
        save(tmp_path / "more" / "deep" / "9.png", 30)
        (root / "cat" / "more").symlink_to(tmp_path / "more")
        (root / "fox").symlink_to(tmp_path / "more")
        data = folder(root)
        assert data.classes == ("cat", "dog", "fox")
        assert data.ids == ("cat/1.png", "cat/more/deep/9.png", "dog/1.png", "fox/deep/9.png")
        assert data.labels == (0, 0, 1, 2)

    @pytest.mark.parametrize("target", ["data/cat", "data", "."])
    def test_link_to_a_folder_above_is_not(self, root, tmp_path, target):
        (root / "cat" / "deep").mkdir()
        save(root / "cat" / "deep" / "2.png")
        (root / "cat" / "deep" / "up").symlink_to(tmp_path / target)
        with pytest.warns(XcamWarning, match=r"did not follow 1 link .*cat/deep/up'"):
            data = folder(root)
        assert data.ids == ("cat/1.png", "cat/deep/2.png", "dog/1.png")

    def test_links_to_one_another(self, root, tmp_path):
        save(tmp_path / "other" / "3.png")
        (root / "cat" / "other").symlink_to(tmp_path / "other")
        (tmp_path / "other" / "back").symlink_to(root / "cat")
        with pytest.warns(XcamWarning, match="did not follow 1 link to a folder around it"):
            assert folder(root).ids == ("cat/1.png", "cat/other/3.png", "dog/1.png")

    def test_link_that_is_no_class(self, root):
        (root / "loop").symlink_to("..")
        (root / "self").symlink_to(".")
        with pytest.warns(XcamWarning, match="did not follow 2 links"):
            data = folder(root)
        assert (data.classes, data.ids) == (("cat", "dog"), ("cat/1.png", "dog/1.png"))
