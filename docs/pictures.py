"""Draw the example picture of each method: a cat, under the map of the class that is predicted.

`python docs/pictures.py` draws all, `python docs/pictures.py gradcam rise` these. The photograph
comes with scikit-image, the net is EfficientNet-Lite0; what it cannot be explained by is drawn with
a net of its own where `NETS` has one, or left out, and that is said.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import skimage
import torch
from PIL import Image
from torch import Tensor, nn

import xcam
from xcam.errors import LayerError, UnknownNameError

FIGURES = Path(__file__).resolve().parent / "figures" / "methods"
CAT = Path(skimage.data_dir) / "chelsea.png"
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

# Nets for methods that explain no plain classifier: a name, and a picture that it was trained for.
NETS: dict[str, str] = {}


def read_settings() -> dict[str, dict[str, Any]]:
    """Return how each picture was drawn, by method."""
    file = FIGURES / "drawn.json"
    return json.loads(file.read_text("utf-8")) if file.exists() else {}


def draw(name: str, model: nn.Module, image: Tensor) -> None:
    """Draw one method's picture, and note how."""
    settings = SETTINGS.get(name, {})
    explanation = xcam.explain(model, image, method=name, **settings)
    (overlay,) = explanation.overlay(image)
    pixels = (overlay.permute(1, 2, 0) * 255).round().byte().numpy()
    for quality in (85, 70, 55):
        Image.fromarray(pixels).save(FIGURES / f"{name}.webp", quality=quality, method=6)
        if (FIGURES / f"{name}.webp").stat().st_size < LIMIT:
            break
    category = model.categories[int(explanation.logits.argmax())]
    drawn = {**read_settings(), name: {"net": "EfficientNet-Lite0", "class": category, **settings}}
    file = FIGURES / "drawn.json"
    file.write_text(json.dumps(dict(sorted(drawn.items())), indent=1) + "\n", "utf-8")


def main(names: list[str]) -> None:
    """Draw the pictures of these methods, or of all."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    plain = xcam.models.load("xcam:efficientnet_lite0", weights="DEFAULT")
    image = xcam.read_image(CAT, SIDE)[None]
    for name in names or xcam.list_methods():
        start = time.process_time()
        try:
            model = xcam.models.load(NETS[name], weights="DEFAULT") if name in NETS else plain
            draw(name, model, image)
        except (LayerError, UnknownNameError, xcam.errors.NotFittedError, TypeError) as error:
            print(f"{name}: left out: {error}")
        else:
            print(f"{name}: {time.process_time() - start:.0f} s of processor time", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(2)
    main(sys.argv[1:])
