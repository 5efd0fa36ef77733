"""Write a small file or folder of each format that this xcam writes, beside those of older ones."""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from retrainings import TEST, TRAIN, Bright, Net, roar  # noqa: E402

import xcam  # noqa: E402

FIT = {"epochs": 1, "batch_size": 8, "seed": 3}
DATA = Bright(8)


def make_net():
    return xcam.models.load(
        "xcam:small_cnn", num_classes=2, seed=4, categories=["left", "right"], input_size=8
    )


def write_net(path):
    xcam.save(make_net(), path)


def write_explanation(path):
    xcam.explain(make_net(), DATA.images, "right").save(path)


def write_evaluation(path):
    settings = {"controls": False, "save_maps": True, "out": path}
    xcam.evaluate({"net": make_net()}, DATA, "gradcam", "sparseness", **settings)


def write_training(path):
    torch.manual_seed(0)
    xcam.fit(make_net(), DATA, **FIT, out=path)


def write_retraining(path):
    roar(path, TRAIN, TEST, Net, fractions=(0.5,))


def read_format(path):
    """The number in a file's header, or in a folder's manifest."""
    if path.is_file():
        size = int.from_bytes(path.read_bytes()[:8], "little")
        header = json.loads(path.read_bytes()[8 : 8 + size])
        return next(
            json.loads(text)["format"]
            for name, text in header["__metadata__"].items()
            if name.startswith("xcam")
        )
    if (path / "training.pt").exists():
        return torch.load(path / "training.pt", weights_only=True)["format"]
    return json.loads((path / "manifest.json").read_text("utf-8"))["format"]


def write(kind, folder):
    """Write an example; its name has the number of its format."""
    ending = ".safetensors" if kind in ("net", "explanation") else ""
    path = folder / f"new{ending}"
    WRITERS[kind](path)
    return path.rename(folder / f"{kind}-{read_format(path)}{ending}")


WRITERS = {
    "net": write_net,
    "explanation": write_explanation,
    "evaluation": write_evaluation,
    "training": write_training,
    "retraining": write_retraining,
}

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for kind in WRITERS:
            made = write(kind, Path(folder))
            if not (HERE / made.name).exists():
                shutil.move(made, HERE / made.name)
                print(HERE / made.name)
