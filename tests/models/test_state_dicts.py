"""Reading files of weights, without running code in them, and refusing other files."""

import argparse
import pickle
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from xcam.errors import FileFormatError
from xcam.models.state_dicts import read_state_dict

STATE = {"fc.weight": torch.arange(6.0).view(2, 3), "fc.bias": torch.tensor([1.5, -2.0])}
TRAINING = {"epoch": 3, "state_dict": STATE, "optimizer": {"state": {}}}
NUMPY = {"acc": np.float64(93.2), "best": np.float32(1), "losses": np.arange(3.0)}


class Exits:
    def __reduce__(self):
        return (sys.exit, ("code from the file ran",))


def same(found):
    return found.keys() == STATE.keys() and all(torch.equal(found[n], STATE[n]) for n in STATE)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "content",
    [
        STATE,
        TRAINING,
        TRAINING | NUMPY,
        {f"module.{name}": tensor for name, tensor in STATE.items()},
    ],
    ids=["alone", "of a training", "with numpy's", "of DataParallel"],
)
def test_state_dict_is_read(tmp_path, content, legacy):
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    assert same(read_state_dict(tmp_path / "a.pth"))


def test_numpy_objects_by_the_names_of_numpy_1_are_skipped(tmp_path):
    torch.save(TRAINING | NUMPY, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "a.pth").read_bytes()
    assert b"numpy._core." in content or np.__version__.startswith("1.")
    (tmp_path / "a.pth").write_bytes(content.replace(b"numpy._core.", b"numpy.core."))
    assert same(read_state_dict(tmp_path / "a.pth"))


def test_numpy_objects_are_skipped_where_the_caller_allows_them(tmp_path):
    scalar = np.float64(1).__reduce__()[0]
    allowed = [scalar, np.dtype, type(np.dtype("f8")), type(np.dtype("f4")), np.ndarray]
    torch.save(TRAINING | {"acc": np.float64(93.2)}, tmp_path / "a.pth")
    before = torch.serialization.get_safe_globals()
    with torch.serialization.safe_globals(allowed):
        assert same(read_state_dict(tmp_path / "a.pth"))
    read_state_dict(tmp_path / "a.pth")
    assert torch.serialization.get_safe_globals() == before


def test_safetensors_file_is_read(tmp_path):
    save_file(STATE, tmp_path / "a.safetensors")
    assert same(read_state_dict(tmp_path / "a.safetensors"))


def test_prefix_of_some_names_alone_is_kept(tmp_path):
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "a.pth")
    assert read_state_dict(tmp_path / "a.pth").keys() == {"module.a", "b"}


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.touch(),
        lambda path: path.write_text("hello, this is a text\n"),
        lambda path: path.write_text("Epoch 1, loss 2.3\n"),
        lambda path: path.write_text('{"fc.weight": [1, 2]}'),
        lambda path: Image.new("RGB", (8, 8)).save(path, "png"),
        lambda path: path.write_bytes(pickle.dumps({"a": 1}, protocol=2)),
        lambda path: zipfile.ZipFile(path, "w").close(),
    ],
    ids=["empty", "text", "log", "json", "picture", "pickle", "archive"],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_file_without_weights_is_refused(tmp_path, write, suffix):
    path = tmp_path / f"a{suffix}"
    write(path)
    with pytest.raises(
        FileFormatError, match=r"a\.\w+' is damaged or is no file of weights; "
    ) as it:
        read_state_dict(path)
    assert "\n" not in str(it.value)


@pytest.mark.parametrize("legacy", [False, True])
def test_truncated_file_is_refused(tmp_path, legacy):
    torch.save(STATE, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    whole = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileFormatError, match="is damaged or is no file of weights"):
        read_state_dict(tmp_path / "a.pth")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("content", "name"),
    [
        (TRAINING | {"args": argparse.Namespace(lr=0.1)}, r"argparse\.Namespace"),
        ({"state_dict": nn.Linear(2, 2)}, r"torch\.nn\.modules\.linear\.Linear"),
        (nn.Linear(2, 2), r"torch\.nn\.modules\.linear\.Linear"),
        (STATE | {"a": Exits()}, r"sys\.exit"),
    ],
    ids=["arguments", "net in it", "net", "code"],
)
def test_other_objects_are_named_in_the_error_and_not_created(tmp_path, content, name, legacy):
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    message = f"holds Python objects other than tensors, such as {name}, which can run any code; "
    with pytest.raises(FileFormatError, match=message) as it:
        read_state_dict(tmp_path / "a.pth")
    assert "\n" not in str(it.value)


@pytest.mark.parametrize(
    "content",
    [[1, 2], torch.ones(2), {"state_dict": [1]}, {"model": {"a": 1}}, {"epoch": 3}, np.float64(1)],
    ids=["list", "tensor", "list in it", "number in it", "numbers", "numpy's number"],
)
def test_weights_without_names_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(FileFormatError, match="holds no state dict, alone or under 'state_dict', "):
        read_state_dict(tmp_path / "a.pth")


@pytest.mark.parametrize("entry", ["state_dict", "model_state_dict", "model"])
def test_state_dict_is_found_in_what_a_training_saves(tmp_path, entry):
    state = {"fc.weight": torch.rand(2, 3), "model": torch.ones(1)}
    torch.save({"epoch": 3, entry: state, "optimizer": {"lr": 0.1}}, tmp_path / "a.pth")
    torch.save(state, tmp_path / "b.pth")  # alone, with a tensor of such a name
    for name in ("a.pth", "b.pth"):
        found = read_state_dict(tmp_path / name)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[key], state[key]) for key in state)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file of weights at .*a\.pth"):
        read_state_dict(tmp_path / "a.pth")
