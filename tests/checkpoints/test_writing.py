"""Nothing is left behind where a net cannot be written."""

import signal
import warnings
from contextlib import contextmanager

import pytest
import torch
from torch import nn

import xcam
from xcam.models.toy import GapNet


class Telling(nn.Module):
    """Has state that is no tensor."""

    def get_extra_state(self):
        return {"note": "hello"}

    def set_extra_state(self, state):
        pass


def holding(tensor):
    net = nn.Module()
    net.register_buffer("odd", tensor)
    return net


with warnings.catch_warnings():  # they are to be removed from torch
    warnings.simplefilter("ignore")
    QUANTISED = torch.quantize_per_tensor(torch.rand(3), 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ("net", "error", "reason"),
    [
        (None, TypeError, r"net must be a torch\.nn\.Module, got NoneType"),
        ({}, TypeError, r"net must be a torch\.nn\.Module, got dict"),
        (Telling(), TypeError, "'_extra_state' of the net is a dict, which no file can hold"),
        (nn.LazyConv2d(3, 1), ValueError, "'weight' of the net has no values: run a lazy net once"),
        (nn.Linear(2, 2, device="meta"), ValueError, "'weight' of the net has no values"),
        (holding(torch.eye(3).to_sparse()), TypeError, "'odd' of the net is sparse or quantized"),
        (holding(QUANTISED), TypeError, "'odd' of the net is sparse or quantized"),
        (holding(torch.zeros(2, dtype=torch.complex128)), TypeError, "can hold torch.complex128"),
    ],
    ids=["none", "state dict", "extra state", "lazy", "meta", "sparse", "quantised", "complex128"],
)
def test_state_that_no_file_can_hold_is_refused(tmp_path, net, error, reason):
    (tmp_path / "net").write_bytes(b"old")
    with pytest.raises(error, match=reason):
        xcam.save(net, tmp_path / "net")
    assert (tmp_path / "net").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cannot write .*none/net': no such file"):
        xcam.save(GapNet(), tmp_path / "none" / "net")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"cannot write .*file/net': not a directory"):
        xcam.save(GapNet(), tmp_path / "file" / "net")
    with pytest.raises(IsADirectoryError, match=r"cannot write .*: it is a folder"):
        xcam.save(GapNet(), tmp_path)


def test_folder_is_checked_before_any_work(tmp_path, monkeypatch):
    def work(*args):
        raise AssertionError("it began")

    monkeypatch.setattr("xcam.checkpoints.saving.get_state", work)
    with pytest.raises(FileNotFoundError):
        xcam.save(GapNet(), tmp_path / "none" / "net")


@contextmanager
def file_size_limit(count):
    """Let this process write files of at most so many bytes; its own output may be such a file."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_full_disk_keeps_the_old_file(tmp_path):
    (tmp_path / "net").write_bytes(b"old")
    with file_size_limit(2000), pytest.raises(OSError, match="file too large") as caught:
        xcam.save(GapNet(), tmp_path / "net")
    assert str(caught.value).startswith(f"cannot write '{tmp_path}/net': ")
    assert (tmp_path / "net").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_interrupt_keeps_the_old_file(tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("xcam.runs.files.save_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        xcam.save(GapNet(), tmp_path / "net")
    assert list(tmp_path.iterdir()) == []
