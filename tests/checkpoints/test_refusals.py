"""Files that are no good, and models that are not those of a file, are refused with the reason."""

import json
from contextlib import suppress

import pytest
import torch
from nets import Pooled, pictures
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import xcam
from xcam.checkpoints import load_net
from xcam.errors import FileFormatError, UnknownNameError
from xcam.explanations.loading import load_explanation
from xcam.models import Normalized
from xcam.models.toy import GapNet
from xcam.runs.files import compute_checksum


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "net.safetensors"
    xcam.save(xcam.models.load("xcam:gap_net", num_classes=2), path)
    return path


@pytest.fixture
def tiny(tmp_path):
    """A small file with everything in it."""
    path = tmp_path / "tiny.safetensors"
    xcam.save(Normalized(nn.Linear(2, 1), [0.5], [0.5], categories=["a"]), path)
    return path


def backbone():
    return Normalized(nn.Linear(2, 1), [0.5], [0.5])


def test_truncated_file_is_refused(tiny):
    whole = tiny.read_bytes()
    for size in range(len(whole)):
        tiny.write_bytes(whole[:size])
        with pytest.raises(FileFormatError, match=r"tiny\.safetensors' is damaged, truncated"):
            xcam.load(tiny, backbone())


def test_appended_bytes_are_refused(tiny):
    tiny.write_bytes(tiny.read_bytes() + b"\0")
    with pytest.raises(FileFormatError, match="is damaged, truncated"):
        xcam.load(tiny, backbone())


@pytest.mark.parametrize("bit", [0, 3, 7])
def test_flipped_bit_is_refused(tiny, bit):
    whole = tiny.read_bytes()
    expected = load_file(tiny)
    accepted = []
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit
        tiny.write_bytes(damaged)
        with suppress(FileFormatError):
            state = xcam.load(tiny, backbone()).state_dict()
            assert all(torch.equal(state[name], expected[name]) for name in expected)
            accepted.append(place)
    assert len(accepted) <= 8, accepted  # white space that fills the header up


def test_random_bytes_are_refused(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for size in (1, 7, 8, 9, 64, 1000):
        noise = torch.randint(256, (size,), generator=generator, dtype=torch.uint8)
        (tmp_path / "noise").write_bytes(noise.numpy().tobytes())
        with pytest.raises(FileFormatError, match="noise' is damaged, truncated"):
            xcam.load(tmp_path / "noise")


def rewrite(path, change, sign=True):
    """The file with another header, and with the checksum that belongs to it."""
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["xcam.net"])
    header.pop("checksum")
    change(header)
    if sign:
        header["checksum"] = compute_checksum(header, tensors)
    save_file(tensors, path, {"xcam.net": json.dumps(header)})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda header: header.update(format=3), "has format 3, this xcam reads up to 2; upgrade"),
        (
            lambda header: header.update(format=1),
            "has format 1, of .* make it again$",
        ),
        (lambda header: header.update(format="x"), "its header cannot be read .*'x'"),
        (
            lambda header: header.pop("format"),
            "is damaged: its header lacks 'format'; make it again",
        ),
        (lambda header: header.pop("tied"), "is damaged: its header lacks 'tied'; make it again"),
        (lambda header: header.update(tied={"a": "b"}), "its header lacks 'b'; make it again"),
        (lambda header: header.update(dtype="load"), "'load' is no dtype"),
        (lambda header: header.update(dtype=3), "is damaged: its header"),
        (lambda header: header.update(backbone=["xcam:gap_net"]), "is damaged: its header"),
        (lambda header: header["classes"].clear(), "is damaged: its header"),
        (lambda header: header["normalization"][""].pop("std"), "is damaged: its header"),
        (
            lambda header: header["backbone"].update(parameters={"set": []}),
            "is damaged: its header",
        ),
    ],
)
def test_damaged_header_is_refused(path, change, reason):
    rewrite(path, change)
    with pytest.raises(FileFormatError, match=reason):
        xcam.load(path)


def test_header_without_checksum_is_refused(path):
    rewrite(path, lambda header: None, sign=False)
    with pytest.raises(
        FileFormatError, match="is damaged: the checksum is that of other contents; make it again"
    ):
        xcam.load(path)


def test_overwritten_header_is_refused(path):
    rewrite(path, lambda header: header.update(checksum=0), sign=False)
    with pytest.raises(FileFormatError, match="the checksum is that of other contents"):
        xcam.load(path)


def test_flipped_bit_in_the_format_is_no_other_format(path):
    rewrite(path, lambda header: header.update(format=3))
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'\\"format\\": 3', b'\\"format\\": 2'))
    assert path.read_bytes() != whole
    with pytest.raises(FileFormatError, match=r"is damaged: the checksum is that of .* make it"):
        xcam.load(path)
    xcam.save(GapNet(), path)
    path.write_bytes(path.read_bytes().replace(b'\\"format\\": 2', b'\\"format\\": 6'))
    with pytest.raises(FileFormatError, match=r"is damaged: the checksum is that of .* make it"):
        xcam.load(path)


def test_flipped_bit_in_the_name_of_the_header(path):
    path.write_bytes(path.read_bytes().replace(b"xcam.net", b"xcam.nut"))
    with pytest.raises(FileFormatError, match=r"is damaged: its header lacks 'xcam\.net'; make it"):
        xcam.load(path)


def test_classifier_that_is_not_installed_is_refused(path):
    rewrite(path, lambda header: header["backbone"].update(name="torchvision:resnet8"))
    with pytest.raises(UnknownNameError, match="no torchvision classifier is called 'resnet8'"):
        xcam.load(path)


def test_foreign_safetensors_are_refused(tmp_path):
    save_file(GapNet().state_dict(), tmp_path / "bare.safetensors")
    with pytest.raises(FileFormatError, match=r"no net by xcam; .*xcam\.models\.load\(name, weig"):
        xcam.load(tmp_path / "bare.safetensors")


def test_explanation(tmp_path, path):
    explanation = xcam.explain(GapNet(), pictures(), 1)
    explanation.save(tmp_path / "e.safetensors")
    with pytest.raises(
        FileFormatError, match=r"no net by xcam; it is the explanation that xcam\.load"
    ):
        load_net(tmp_path / "e.safetensors")
    with pytest.raises(ValueError, match="holds an explanation, not a net; omit model="):
        xcam.load(tmp_path / "e.safetensors", GapNet())
    with pytest.raises(FileFormatError, match=r"no explanation by xcam; it is the net that xcam"):
        load_explanation(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickle_is_never_opened(tmp_path, zipped):
    torch.save(GapNet(), tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(FileFormatError, match=r"torch\.save wrote it; .*xcam\.models\.load\(name"):
        xcam.load(tmp_path / "net.pth")


def test_missing_file_is_refused(tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(FileNotFoundError, match="no file at"):
            xcam.load(path)


class TestModel:
    @pytest.mark.parametrize(
        ("model", "reason"),
        [
            (
                Normalized(GapNet(num_classes=7), [0.5], [0.5]),
                r"another shape in 'model\.fc\.bias', 'model\.fc\.weight' \(2 such\), the first "
                r"\(2,\) instead of \(7,\)",
            ),
            (
                Normalized(GapNet(num_classes=2, relu=False).features, [0.5], [0.5]),
                r"not those of this Normalized: they lack 'model\.0\.bias', 'model\.0\.weight', "
                r"'model\.2\.bias', … \(4 such\); have, beyond the model, "
                r"'model\.fc\.bias', 'model\.fc\.weight', 'model\.features\.0\.bias'",
            ),
            (
                GapNet(num_classes=2),
                r"normalizes its images itself, and the model does not; pass "
                r"xcam\.models\.Normalized\(model, \[0\.5\], \[0\.5\]\)",
            ),
        ],
        ids=["other shapes", "other names", "bare"],
    )
    def test_model_that_does_not_fit_is_refused(self, path, model, reason):
        with pytest.raises(FileFormatError, match=reason):
            xcam.load(path, model)

    def test_model_with_other_integer_types_is_refused(self, tmp_path):
        net = Pooled()
        net.register_buffer("count", torch.arange(3))
        xcam.save(net, tmp_path / "net")
        net.count = torch.arange(3).int()
        with pytest.raises(FileFormatError, match=r"'count' \(1 such\), the first \(3,\) int64"):
            xcam.load(tmp_path / "net", net)

    def test_model_that_is_no_module_is_refused(self, path):
        with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got str"):
            xcam.load(path, "xcam:gap_net")

    def test_model_without_values_is_refused(self, path):
        with pytest.raises(ValueError, match=r"'weight' of the net has no values: run a lazy net"):
            xcam.load(path, nn.LazyConv2d(3, 1))
        with pytest.raises(ValueError, match=r"'weight' of the net has no values"):
            xcam.load(path, nn.Conv2d(3, 3, 1, device="meta"))
