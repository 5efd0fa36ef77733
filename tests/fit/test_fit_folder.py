"""The folder of a training: what is in it, what cannot be written or read."""

import errno
import json
import tempfile

import pytest
import torch
from trainings import EVERYTHING, Noisy, train


class TestFolder:
    def test_folder_that_cannot_be_made_is_named(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match="cannot make the folder"):
            train(tmp_path / "file" / "run")

    @pytest.mark.parametrize("begun", [False, True])
    def test_read_only_folder_is_refused_before_training(self, tmp_path, monkeypatch, begun):
        if begun:
            train(tmp_path, epochs=1)
        data = Noisy()

        def refused(*arguments, **others):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(tempfile, "mkdtemp", refused)
        with pytest.raises(PermissionError, match=r"cannot write .*permission denied"):
            train(tmp_path, data=data)
        assert set(data.loaded) == {0}

    def test_leftovers_of_killed_writers_are_removed_and_nothing_else(self, tmp_path):
        left, stranger = tmp_path / ".training.pt.123.a1b2c3d4.part", tmp_path / ".film.mkv.part"
        left.mkdir()
        (left / ".tmpAb3x").touch()  # as safetensors writes it
        stranger.touch()
        train(tmp_path, epochs=1)
        assert stranger.exists()
        assert not left.exists()

    def test_full_disk_keeps_the_last_state(self, tmp_path, monkeypatch):
        train(tmp_path, epochs=1)
        before = (tmp_path / "training.pt").read_bytes()

        def write(*arguments):
            raise OSError(errno.ENOSPC, "no space left on device")

        monkeypatch.setattr("xcam.runs.archives.memoryview", write, raising=False)
        with pytest.raises(OSError, match=r"training\.pt': the disk is full"):
            train(tmp_path, epochs=2)
        assert (tmp_path / "training.pt").read_bytes() == before
        assert list(tmp_path.glob(".*.part")) == []

    def test_device_error_while_saving_is_not_reported_as_a_full_disk(self, tmp_path, monkeypatch):
        failing = RuntimeError("CUDA error: an illegal memory access was encountered")
        monkeypatch.setattr(torch, "save", lambda state, partial: (_ for _ in ()).throw(failing))
        with pytest.raises(RuntimeError, match="illegal memory access"):
            train(tmp_path, epochs=1)

    def test_read_error_is_not_reported_as_a_damaged_file(self, tmp_path, monkeypatch):
        train(tmp_path, epochs=1)

        def load(file, **options):
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(torch, "load", load)
        with pytest.raises(OSError, match="Input/output error"):
            train(tmp_path, epochs=1)

    def test_manifest_holds_what_decides_a_training(self, tmp_path):
        train(tmp_path, epochs=1)
        said = json.loads((tmp_path / "manifest.json").read_text())
        assert said["optimizer"] == EVERYTHING["optimizer"]
        assert said["data"] == {"images": 44, "shape": [3, 8, 8], "drop_last": False}
        assert not {"epochs", "workers", "device", "progress", "save_minutes"} & said.keys()
