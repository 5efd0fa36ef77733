"""A flipped bit is refused wherever a file is read, with what mends it; so is a full disk said."""

import errno
import random

import pytest
import torch
from evaluations import TIMES, Pictures, evaluate, loader
from safetensors.torch import load_file
from torch import nn
from trainings import Noisy, assert_close, plain, weights

import xcam
from xcam.errors import FileFormatError
from xcam.explanations.folder import StoredMaps
from xcam.models.toy import GapNet
from xcam.results import Results
from xcam.runs import files
from xcam.runs.archives import check_archive, write_pickle

IMAGES = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def flip(path, places):
    """Yield for each place in turn, with a bit flipped there; the file is mended at the end."""
    whole = path.read_bytes()
    drawn = random.Random(0)
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << drawn.randrange(8)
        path.write_bytes(damaged)
        yield place
    path.write_bytes(whole)


def sample(path, count):
    size = path.stat().st_size
    return sorted(random.Random(1).sample(range(size), min(count, size)))


class TestExplanation:
    def test_any_flipped_bit_is_refused(self, tmp_path):
        path = tmp_path / "e.safetensors"
        saved = xcam.explain(GapNet(), IMAGES, method="gradcam")
        saved.save(path)
        start = int.from_bytes(path.read_bytes()[:8], "little")  # behind the length, the header
        for place in flip(path, [*range(8), *sample(path, 150), start + 9, start + 40]):
            with pytest.raises((FileFormatError, ValueError)):
                xcam.load(path)
            assert place >= 0
        assert torch.equal(xcam.load(path).maps, saved.maps)


class TestTraining:
    def test_resumption_refuses_a_flipped_bit_of_a_tensor(self, tmp_path):
        arguments = {"data": Noisy(12, noise=0), "batch_size": 4}
        plain(out=tmp_path, epochs=1, **arguments)
        path = tmp_path / "training.pt"
        whole = path.read_bytes()
        bits = load_file(tmp_path / "last.safetensors")["fc.weight"].numpy().tobytes()
        place = whole.index(bits) + 5
        for _ in flip(path, [place]):
            with pytest.raises(FileFormatError, match=r"training\.pt' is damaged; remove it"):
                plain(out=tmp_path, epochs=2, **arguments)
        assert_close(
            weights(plain(out=tmp_path, epochs=2, **arguments)),
            weights(plain(epochs=2, **arguments)),
            0,
        )

    def test_state_that_was_removed_is_made_again(self, tmp_path):
        arguments = {"data": Noisy(12, noise=0), "batch_size": 4, "epochs": 1}
        first = plain(out=tmp_path, **arguments)
        (tmp_path / "training.pt").unlink()
        assert_close(weights(plain(out=tmp_path, **arguments)), weights(first), 0)

    def test_damaged_manifest_is_refused_until_it_is_put_back(self, tmp_path):
        arguments = {"data": Noisy(12, noise=0), "batch_size": 4}
        plain(out=tmp_path, epochs=1, **arguments)
        path = tmp_path / "manifest.json"
        for _ in flip(path, [path.read_bytes().index(b'"batch_size": 4') + 14]):  # another size
            with pytest.raises(FileFormatError, match=r"is damaged, .* folder for the training$"):
                plain(out=tmp_path, epochs=2, **arguments)
        resumed = plain(out=tmp_path, epochs=2, **arguments)
        assert_close(weights(resumed), weights(plain(epochs=2, **arguments)), 0)

    def test_weights_of_a_checkpoint_with_a_flipped_bit_are_no_weights(self, tmp_path):
        net = xcam.models.load("xcam:gap_net", num_classes=2)
        paths = tmp_path / "net.safetensors", tmp_path / "net.pt"
        xcam.save(net, paths[0])
        torch.save(net.state_dict(), paths[1])
        bits = next(net.parameters()).detach().numpy().tobytes()
        for path in paths:
            xcam.models.load("xcam:gap_net", num_classes=2, weights=path)
            for _ in flip(path, [path.read_bytes().index(bits) + 2]):
                with pytest.raises(FileFormatError, match="is damaged or is no file of weights"):
                    xcam.models.load("xcam:gap_net", num_classes=2, weights=path)


class TestEvaluation:
    def run(self, out, **arguments):
        return evaluate(loader(Pictures(6), batch_size=3), out=out, **arguments)

    def read(self, folder):
        found = Results(folder).to_pandas().drop(columns=TIMES)
        return found.to_json()

    def test_flipped_bit_in_a_part_is_refused_and_mended(self, tmp_path):
        expected = self.run(tmp_path).table()
        whole = self.read(tmp_path)
        path = sorted((tmp_path / "rows").iterdir())[1]
        for _ in flip(path, sample(path, 400)):
            with pytest.raises(FileFormatError, match=rf"{path.name}' is damaged, .* remove it"):
                Results(tmp_path)
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(FileFormatError, match=r"batch-00000001\.parquet' is damaged"):
            self.run(tmp_path)
        path.unlink()
        assert self.run(tmp_path).table().equals(expected)
        assert self.read(tmp_path) == whole

    def test_flipped_bit_in_stored_maps_is_refused_and_mended(self, tmp_path):
        self.run(tmp_path, save_maps=True)
        rows = self.read(tmp_path)
        folder = tmp_path / "maps" / "gradcam"
        path = sorted(folder.iterdir())[0]
        whole = load_file(path)
        for _ in flip(path, sample(path, 80)):
            with pytest.raises(FileFormatError, match=path.name):
                StoredMaps(folder)(torch.empty(0), [Pictures(6).ids[0]], torch.tensor([0]))
        for _ in flip(path, [path.stat().st_size - 3]):
            with pytest.raises(
                FileFormatError, match=r"other contents; remove it, and call the xca"
            ):
                StoredMaps(folder)
        path.unlink()
        self.run(tmp_path, save_maps=True)
        mended = load_file(path)
        assert all(torch.equal(mended[name], value) for name, value in whole.items())
        assert self.read(tmp_path) == rows

    def test_damaged_manifest_is_refused_until_it_is_put_back(self, tmp_path):
        folder = tmp_path / "a"
        expected = self.run(folder).table()
        path = folder / "manifest.json"
        refused = pytest.raises(
            FileFormatError,
            match=r"a/manifest\.json' is damaged, .* put a copy of it back, or use another folder "
            "for the evaluation$",
        )
        whole = path.read_bytes()
        name = whole.index(b"sparseness") + 3
        for place in flip(path, [name, *sample(path, 200)]):
            with refused:
                Results(folder)
            if place == name:
                with refused:
                    self.run(folder)
        for size in (0, 1, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:size])
            with refused:
                self.run(folder)
            with refused:
                Results(folder)
        assert self.run(tmp_path / "b").table().equals(expected)
        path.write_bytes((tmp_path / "b" / "manifest.json").read_bytes())
        assert self.run(folder).table().equals(expected)

    def test_batch_without_any_map_is_not_computed_again(self, tmp_path):
        data = Pictures(6)
        data.images[3:, 0, 0, 0] = torch.nan
        for _ in range(2):
            data.loaded.clear()
            evaluate(loader(data, batch_size=3), out=tmp_path, save_maps=True)
        assert set(data.loaded) <= {0, 5}  # which tell that it is the same data


class TestFullDisk:
    @pytest.mark.parametrize(
        ("code", "words"),
        [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "your quota of the disk is used up")],
    )
    def test_every_writer_says_so_and_keeps_the_file(self, tmp_path, monkeypatch, code, words):
        def full(*arguments, **options):
            raise OSError(code, "no")

        path = tmp_path / "a"
        path.write_bytes(b"old")
        monkeypatch.setattr("os.fsync", full)
        explanation = xcam.explain(GapNet(), IMAGES, method="gradcam")
        writers = [
            lambda: files.write(path, b"new"),
            lambda: xcam.save(GapNet(), path),
            lambda: explanation.save(path),
        ]
        for write in writers:
            with pytest.raises(
                OSError, match=f"cannot write '{path}': {words}; make room"
            ) as caught:
                write()
            assert caught.value.errno == code
        assert path.read_bytes() == b"old"
        assert [entry.name for entry in tmp_path.iterdir()] == ["a"]
        monkeypatch.undo()
        monkeypatch.setattr("pathlib.Path.mkdir", full)
        with pytest.raises(OSError, match=f"cannot make the folder '{tmp_path}/b': {words}"):
            files.create_folder(tmp_path / "b")

    def test_torch_and_safetensors_tell_the_disks_error(self, tmp_path, monkeypatch):
        """Both hide it in errors of their own."""
        from safetensors import SafetensorError

        def fails(*arguments):
            raise SafetensorError("I/O error: No space left on device (os error 28)")

        monkeypatch.setattr("xcam.runs.files.save_file", fails)
        with pytest.raises(OSError, match=r"net': the disk is full"):
            xcam.save(GapNet(), tmp_path / "net")
        content = {"a": torch.zeros(1000)}
        with pytest.raises(OSError, match="/dev/full': the disk is full"):
            write_to_full_device(content)

    def test_stored_state_is_what_torch_reads(self, tmp_path):
        content = {"a": torch.rand(3, 4), "b": {"c": [1, 2.5]}, "d": nn.Linear(2, 2).state_dict()}
        with files.writing(tmp_path / "x") as partial:
            write_pickle(partial, content)
        with (tmp_path / "x").open("rb") as file:
            check_archive(file)
            found = torch.load(file, weights_only=True)
        assert torch.equal(found["a"], content["a"])
        assert found["b"] == content["b"]


def write_to_full_device(content):
    from pathlib import Path

    path = Path("/dev/full")
    if not path.exists():
        raise OSError("'/dev/full': the disk is full")
    try:
        write_pickle(path, content)
    except OSError as error:
        raise files.describe_failed_write(path, error) from error
