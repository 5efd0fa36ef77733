"""Draw the example picture of each method: a cat, under the map of the class that is predicted.

`python docs/pictures.py` draws all, `python docs/pictures.py gradcam rise` these. The photograph
comes with scikit-image, the net is EfficientNet-Lite0. Methods with a trained head are drawn for
the small nets that come with xcam, of an image of Fashion-MNIST, if `--root` says where that is.
What explains nets with modules of its own alone is left out, and that is said.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import skimage
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate

import xcam
from xcam.errors import LayerError

FIGURES = Path(__file__).resolve().parent / "figures" / "methods"
SIDE = 224
LIMIT = 25_000  # bytes of a picture

# Settings other than the defaults, as the captions say: where those would take minutes.
FEWER_CHANNELS = {"layer": "model._blocks.15"}  # 320 of them, instead of 1280
SETTINGS: dict[str, dict[str, Any]] = {
    "ablationcam": FEWER_CHANNELS,
    "iscam": {"n_samples": 1, **FEWER_CHANNELS},
    "kernel_shap": {"n_samples": 200},
    "lime": {"n_samples": 200},
    "rise": {"n_masks": 300, "estimator": "centered", "sampling": "balanced"},
    "scorecam": FEWER_CHANNELS,
    "sess": {"n_scales": 4},
    "shapley_value_sampling": {"n_samples": 4},
    "sscam": {"n_samples": 1, **FEWER_CHANNELS},
}

# Nets for methods that explain no plain classifier. Theirs are images of Fashion-MNIST, see --root.
NETS = {
    name: f"xcam:fashion_mnist_{name}"
    for name in ("abn", "calm", "castream", "lcam_fm", "lcam_img", "lficam")
}
GARMENT = 0  # which of the test images: an ankle boot


def read_settings() -> dict[str, dict[str, Any]]:
    """Return how each picture was drawn, by method."""
    file = FIGURES / "drawn.json"
    return json.loads(file.read_text("utf-8")) if file.exists() else {}


def draw(name: str, model: nn.Module, image: Tensor, net: str) -> None:
    """Draw one method's picture, and note how."""
    settings = SETTINGS.get(name, {})
    explanation = xcam.explain(model, image, method=name, **settings)
    (overlay,) = interpolate(explanation.overlay(image), SIDE, mode="nearest")
    pixels = (overlay.permute(1, 2, 0) * 255).round().byte().numpy()
    for quality in (85, 70, 55):
        Image.fromarray(pixels).save(FIGURES / f"{name}.webp", quality=quality, method=6)
        if (FIGURES / f"{name}.webp").stat().st_size < LIMIT:
            break
    category = model.categories[int(explanation.logits.argmax())]
    drawn = {**read_settings(), name: {"net": net, "class": category, **settings}}
    file = FIGURES / "drawn.json"
    file.write_text(json.dumps(dict(sorted(drawn.items())), indent=1) + "\n", "utf-8")


def main() -> None:
    """Draw the pictures of the methods that are named, or of all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=xcam.list_methods(), help="methods")
    parser.add_argument("--root", type=Path, help="folder of Fashion-MNIST, for trained heads")
    chosen = parser.parse_args()
    FIGURES.mkdir(parents=True, exist_ok=True)
    cat = xcam.read_image(Path(skimage.data_dir) / "chelsea.png", SIDE)[None]
    plain = xcam.models.load("xcam:efficientnet_lite0", weights="DEFAULT")
    for name in chosen.names:
        start = time.process_time()
        try:
            if name not in NETS:
                draw(name, plain, cat, "EfficientNet-Lite0")
            elif chosen.root:
                garment = xcam.data.load("fashion_mnist", chosen.root).test[GARMENT][0][None]
                draw(name, xcam.models.load(NETS[name]), garment, f"`{NETS[name]}`")
            else:
                print(f"{name}: left out: needs --root, a folder with Fashion-MNIST")
                continue
        except LayerError as error:  # explains nets with modules of its own alone
            print(f"{name}: left out: {error}")
        else:
            print(f"{name}: {time.process_time() - start:.0f} s of processor time", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
