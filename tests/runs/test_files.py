import dataclasses
import errno
import json
import os
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import xcam
from xcam.core import Explanation, Method, MethodSpec, Note, SavedMethod
from xcam.core.explanation_file import FORMAT
from xcam.errors import FileFormatError, XcamWarning
from xcam.explanations.loading import load_explanation
from xcam.models.toy import GapNet
from xcam.registry import installed
from xcam.runs import files


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Filled(Method):
    """A method with parameters of every kind that a file can hold."""

    fill: torch.Tensor | str = "zero"
    sizes: tuple[object, ...] = ()
    seed: int | None = None
    spec: ClassVar[MethodSpec] = MethodSpec("filled", "Filled", "", "control", "none")

    def maps(self, model, images, target):
        return images.sum(1)


@pytest.fixture
def filled(monkeypatch):
    monkeypatch.setitem(installed().methods, "filled", Filled)


@pytest.fixture
def explanation():
    images = torch.rand(3, 3, 16, 12, generator=torch.Generator().manual_seed(0))
    return xcam.explain(GapNet(), images, [0, 2, 4], layer="features", relu=True)


def made(method, **changes):
    raw = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(1))
    values = {"raw": raw, "size": (4, 5), "target": None, "logits": None}
    return Explanation(method=method, **{**values, **changes})


def equal(a, b):
    return (a is None and b is None) or (a.dtype == b.dtype and torch.equal(a, b))


@pytest.mark.parametrize("name", ["maps", "raw", "target", "logits"])
def test_round_trip_is_exact(explanation, tmp_path, name):
    explanation.save(tmp_path / "e.safetensors")
    loaded = xcam.load(tmp_path / "e.safetensors")
    assert equal(getattr(loaded, name), getattr(explanation, name))
    assert loaded.method == explanation.method
    assert loaded.method.layer == "features"
    assert loaded.method.relu is True
    assert loaded.warnings == explanation.warnings


def test_missing_tensors_and_warnings_round_trip(tmp_path, filled):
    saved = made(Filled(), run_notes=(Note(0, "ein Umlaut, ü"), Note(None, "all")))
    saved.save(tmp_path / "e.safetensors")
    loaded = xcam.load(tmp_path / "e.safetensors")
    assert (loaded.target, loaded.logits, loaded.notes) == (None, None, saved.notes)


def test_parameters_of_every_kind_round_trip(tmp_path, filled):
    fill = torch.linspace(0, 1, 12).reshape(3, 4).T  # not contiguous
    made(Filled(fill, (1, [2.5, "a"], (None, True)), 7)).save(tmp_path / "e.safetensors")
    method = xcam.load(tmp_path / "e.safetensors").method
    assert torch.equal(method.fill, fill)
    assert method.sizes == (1, [2.5, "a"], (None, True))
    assert method.seed == 7
    assert repr(method) == repr(Filled(fill, (1, [2.5, "a"], (None, True)), 7))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(5, 4, 2).permute(2, 1, 0),
        torch.randn(1, 4, 5).expand(2, 4, 5),
        torch.randn(4, 4, 5)[::2],
        torch.randn(2, 4, 5, requires_grad=True),
        torch.tensor([float("inf"), -0.0, 1e-45]).repeat(40)[:40].reshape(2, 4, 5),
    ],
    ids=["permuted", "expanded", "strided", "requires_grad", "special values"],
)
def test_any_memory_layout_can_be_saved(tmp_path, filled, tensor):
    made(Filled(), raw=tensor).save(tmp_path / "e.safetensors")
    loaded = xcam.load(tmp_path / "e.safetensors")
    bits = tensor.detach().contiguous().numpy().view(np.int32)
    assert np.array_equal(loaded.maps.numpy().view(np.int32), bits)
    assert np.array_equal(loaded.raw.numpy().view(np.int32), bits)


def test_header_names_versions_and_format(explanation, tmp_path):
    path = tmp_path / "e.safetensors"
    explanation.save(path)
    length = struct.unpack("<Q", path.read_bytes()[:8])[0]
    outer = json.loads(path.read_bytes()[8 : 8 + length])
    header = json.loads(outer["__metadata__"]["xcam.explanation"])
    assert header["format"] == FORMAT
    assert header["method"] == "gradcam"
    assert header["parameters"] == {
        "layer": "features", "output": "logit", "relu": True, "rendering": None
    }  # fmt: skip
    assert header["versions"] == {"xcam": xcam.__version__, "torch": torch.__version__}


def test_unknown_method_keeps_its_parameters(tmp_path, filled):
    path = tmp_path / "e.safetensors"
    made(Filled("mean", (1,), 3)).save(path)
    installed().methods.pop("filled")
    with pytest.warns(XcamWarning, match="'filled' is not installed here"):
        loaded = xcam.load(path)
    assert loaded.method == SavedMethod("filled", (("fill", "mean"), ("sizes", (1,)), ("seed", 3)))
    assert "'filled' is not installed here" in loaded.warnings[0]
    loaded.save(path)  # and can be saved again
    with pytest.warns(XcamWarning):
        assert xcam.load(path).method == loaded.method


@pytest.mark.parametrize("name", ["maps", "brightness", "gradcam"])
def test_maps_from_elsewhere_load_without_a_warning(tmp_path, name):
    path, images = tmp_path / "e.safetensors", torch.zeros(2, 3, 4, 5)
    foreign = xcam.Explanation.of(torch.rand(2, 4, 5), images, 1, method=name)
    foreign.save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = xcam.load(path)
    assert loaded.method == foreign.method == SavedMethod(name, is_foreign=True)
    assert loaded.method != SavedMethod(name)
    assert torch.equal(loaded.raw, foreign.raw)
    assert loaded.notes == foreign.notes == ()


def test_method_that_refuses_its_parameters_keeps_them(explanation, tmp_path, monkeypatch):
    explanation.save(tmp_path / "e.safetensors")
    monkeypatch.setitem(installed().methods, "gradcam", Filled)
    with pytest.warns(XcamWarning, match="refuses its parameters"):
        loaded = xcam.load(tmp_path / "e.safetensors")
    assert loaded.method.parameters() == explanation.method.parameters()


def test_parameter_that_no_file_can_hold(tmp_path):
    with pytest.raises(TypeError, match=r"method\.sizes\.0 is a ReLU, which no file can hold"):
        made(Filled(sizes=(torch.nn.ReLU(),))).save(tmp_path / "e.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [0, 4, 100, -1, -1000])
def test_truncated_files_are_refused(explanation, tmp_path, size):
    path = tmp_path / "cut.safetensors"
    explanation.save(path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(FileFormatError, match=r"cut\.safetensors' is damaged, truncated"):
        xcam.load(path)


def rewritten(path, header=None, drop=(), **tensors):
    held = {**load_file(path), **tensors}
    held = {name: tensor for name, tensor in held.items() if name not in drop}
    with suppress(TypeError, ValueError):
        fields = json.loads(header)
        header = json.dumps({**fields, "checksum": files.compute_checksum(fields, held)})
    save_file(held, path, header and {"xcam.explanation": header})


GOOD = json.dumps(
    {"format": 3, "method": "gradcam", "parameters": {}, "notes": [], "size": [16, 12]}
)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"header": None}, "no explanation by xcam"),
        ({"header": "{"}, r"is damaged: its header cannot be read \(Exp.*\); make it again$"),
        ({"header": "[]"}, r"is damaged: its header cannot be read \(list.*\); make it again$"),
        ({"header": "{}"}, "is damaged: its header lacks 'format'; make it again$"),
        ({"header": '{"format": 3}'}, "is damaged: its header lacks 'method'; make it again$"),
        ({"header": GOOD.replace("3", "4", 1)}, "format 4, this xcam reads up to 3; upgrade"),
        ({"header": GOOD.replace("3", "2", 1)}, "format 2, of .* make it again$"),
        (
            {"header": GOOD.replace("{}", '{"fill": {"tensor": "gone"}}')},
            "header lacks 'gone'; make",
        ),
        ({"header": GOOD.replace("{}", '{"fill": {}}')}, "is damaged: its header cannot be read"),
        ({"header": GOOD, "drop": ["raw"]}, "no tensor 'raw'"),
        (
            {"header": GOOD, "raw": torch.zeros(2, 4, 4)},
            r"'target' has shape \(3,\) beside raw maps of",
        ),
        ({"header": GOOD, "target": torch.zeros(3, 1)}, r"'target' has shape \(3, 1\)"),
        ({"header": GOOD, "raw": torch.tensor(1.0)}, r"'raw' has shape \(\)"),
    ],
)
def test_foreign_and_damaged_files_are_refused(explanation, tmp_path, change, reason):
    path = tmp_path / "odd.safetensors"
    explanation.save(path)
    rewritten(path, **change)
    with pytest.raises(FileFormatError, match=reason) as caught:
        load_explanation(path)
    assert "odd.safetensors" in str(caught.value)


def test_files_of_another_kind_are_refused(tmp_path):
    torch.save({"maps": torch.zeros(1)}, tmp_path / "e.pt")  # a pickle is never opened
    with pytest.raises(FileFormatError, match=r"e\.pt' is damaged, truncated, or no safetensors"):
        xcam.load(tmp_path / "e.pt")


def test_missing_file_and_folder(explanation, tmp_path):
    with pytest.raises(FileNotFoundError, match="no file at"):
        xcam.load(tmp_path / "none.safetensors")
    with pytest.raises(FileNotFoundError, match="no file at"):
        xcam.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"cannot write .*none/e\.safetensors'"):
        explanation.save(tmp_path / "none" / "e.safetensors")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"cannot write .*not a directory"):
        explanation.save(tmp_path / "file" / "e.safetensors")


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "e"
    files.write(path, b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"cannot write .*: the disk is full") as caught:
        files.write(path, b"new")
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_who_may_read_a_file_follows_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        xcam.save(GapNet(), tmp_path / "net.safetensors")
        files.write(tmp_path / "bytes", b"")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {mode}


def test_what_a_writer_puts_beside_its_file_goes_with_it(tmp_path):
    path = tmp_path / "net.safetensors"
    with files.writing(path) as partial:
        (partial.parent / ".tmpAb3x").touch()
    assert list(tmp_path.iterdir()) == [path]


def test_threads_may_write_the_same_file(tmp_path):
    contents = [bytes([number]) * 1000 for number in range(8)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda content: files.write(tmp_path / "e", content), 20 * contents))
    assert (tmp_path / "e").read_bytes() in contents
    assert len(list(tmp_path.iterdir())) == 1


def test_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    files.write(tmp_path / "e", b"old")

    def interrupt(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write(tmp_path / "e", b"new")
    assert (tmp_path / "e").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1
