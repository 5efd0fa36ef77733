"""What the encoding of a terminal or pipe lacks is spelled out."""

import io
import os
import sys

import pytest
from PIL import Image

import xcam
from xcam import cli


@pytest.fixture
def run(monkeypatch):
    def run(encoding, *arguments):
        streams = {name: io.TextIOWrapper(io.BytesIO(), encoding) for name in ("stdout", "stderr")}
        for name, stream in streams.items():
            monkeypatch.setattr(sys, name, stream)
        with pytest.raises(SystemExit) as ended:
            cli.app([str(argument) for argument in arguments], prog_name="xcam")
        for stream in streams.values():
            stream.flush()
        return ended.value.code, *(stream.buffer.getvalue() for stream in streams.values())

    return run


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "cp437"])
@pytest.mark.parametrize("arguments", [["methods"], ["metrics", "--long"], ["metrics", "--help"]])
def test_tables_in_a_pipe_of_any_encoding(run, encoding, arguments):
    code, output, errors = run(encoding, *arguments)
    assert (code, errors) == (0, b"")
    assert len(output) > 100


def test_infinity_is_spelled_out(run):
    code, output, _ = run("cp1252", "metrics")
    line = next(line for line in output.decode("cp1252").splitlines() if "irof" in line)
    assert "(-inf, 1]" in line
    code, output, _ = run("utf-8", "metrics")
    assert code == 0
    assert "(−∞, 1]" in output.decode()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_file_names_that_are_no_utf8(run, tmp_path):
    net = tmp_path / "net.safetensors"
    xcam.save(xcam.models.load("xcam:small_cnn", num_classes=2), net)
    picture = tmp_path / os.fsdecode(b"caf\xe9.png")
    with picture.open("wb") as file:
        Image.new("RGB", (32, 32), (200, 10, 10)).save(file, "PNG")
    code, output, errors = run(
        "utf-8", "explain", picture, "--model", net, "--out", tmp_path, "--npy", tmp_path / "maps"
    )
    assert (code, errors) == (0, b"")
    assert rb"caf\xe9.png: " in output
    assert (tmp_path / os.fsdecode(b"caf\xe9.gradcam.png")).is_file()
    code, _, errors = run("utf-8", "explain", tmp_path / os.fsdecode(b"g\xe9.png"), "--model", net)
    assert code == 2
    assert b"no picture at" in errors


def test_huge_picture_is_one_sentence(run, tmp_path, monkeypatch):
    net = tmp_path / "net.safetensors"
    xcam.save(xcam.models.load("xcam:small_cnn", num_classes=2), net)
    Image.new("L", (64, 64)).save(tmp_path / "scan.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    code, _, errors = run("utf-8", "explain", tmp_path / "scan.png", "--model", net)
    (line,) = errors.decode().splitlines()
    assert code == 2
    assert line.startswith("xcam: ")
    assert "scan.png' is not a picture that can be read" in line
