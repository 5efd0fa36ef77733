"""Real photographs, a real ImageNet classifier, and what eleven methods say it looks at.

`make demo` runs it. The photographs come with scikit-image and scikit-learn, the trained
EfficientNet-Lite0 with a package of its own, so nothing is downloaded at run time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

import xcam
from xcam.core import figures
from xcam.models import Normalized

PHOTOGRAPHS = {
    "cat": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "pavilion": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
}

# The methods, in the order of the columns, with parameters where the defaults would take minutes.
METHODS: dict[str, dict[str, object]] = {
    "gradcam": {},
    "gradcam_plusplus": {},
    "layercam": {},
    "eigencam": {},
    "xgradcam": {},
    "opticam": {},
    "rise": {"n_masks": 200, "estimator": "centered", "sampling": "balanced"},
    "integrated_gradients": {"n_steps": 16},
    "smoothgrad": {},
    "guided_backprop": {},
    "guided_gradcam": {},
}


# Those that take few passes are also scored, by metrics that do.
SCORED = ("gradcam", "gradcam_plusplus", "xgradcam", "layercam", "eigencam", "guided_gradcam")
METRICS = ("average_drop", "increase_in_confidence", "sparseness")


class Photographs(Dataset[tuple[Tensor]]):
    """The photographs as a data set, with their names as ids."""

    def __init__(self, images: Tensor) -> None:
        self.images, self.ids = images, list(PHOTOGRAPHS)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor]:
        """Return one of them."""
        return (self.images[index],)


def find_photograph(name: str) -> Path:
    """Return the file of a photograph in the package that ships it."""
    package, file = PHOTOGRAPHS[name]
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"the photographs come with {package}: pip install 'xcam[demo]'")
    return Path(spec.origin).parent / file


def load_photographs(size: int | tuple[int, int]) -> Tensor:
    """Return all of them, (B, 3, H, W) in [0, 1]."""
    return torch.stack([xcam.read_image(find_photograph(name), size) for name in PHOTOGRAPHS])


def print_predictions(logits: Tensor, categories: tuple[str, ...]) -> None:
    """Print the three most probable classes of each photograph."""
    for name, odds in zip(PHOTOGRAPHS, logits.softmax(1), strict=True):
        best = odds.topk(3)
        classes = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        print(f"  {name:<11}", ", ".join(f"{categories[c]} {p:.0%}" for p, c in classes))


def write_page(model: Normalized, images: Tensor, path: Path) -> None:
    """Score some methods on the photographs, and write the results as a page."""
    data = Photographs(images)
    with tempfile.TemporaryDirectory() as folder:
        results = xcam.evaluate(
            {"EfficientNet-Lite0": model},
            data,
            [name for name in METHODS if name in SCORED],
            METRICS,
            out=folder,
            save_maps=True,
            progress=True,
        )
        print(results.to_text(100))
        results.to_html(path, data, title="Six photographs", worst=0)


def main() -> None:
    """Explain every photograph by every method, draw it as one picture, and write a page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="folder of the results")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)

    model = xcam.models.load("xcam:efficientnet_lite0", weights="DEFAULT")
    images = load_photographs(model.input_size)
    with torch.inference_mode():
        logits = model(images)
    print("What EfficientNet-Lite0 sees:")
    print_predictions(logits, model.categories)

    overlays, seconds = {}, {}
    for name, params in tqdm(METHODS.items(), desc="explaining", unit="method"):
        start = time.perf_counter()
        explanation = xcam.explain(model, images, method=name, progress=True, **params)
        title = xcam.get_method(name).spec.title
        seconds[title] = time.perf_counter() - start
        overlays[title] = explanation.overlay(images)

    print(f"Seconds for the {len(images)} photographs:")
    for title, duration in seconds.items():
        print(f"  {title:<24}{duration:6.1f}")
    rows = explanation.captions(model.categories)
    figures.draw_grid(images, overlays, rows, out / "demo.png")
    print(f"The picture: {out / 'demo.png'}")
    write_page(model, images, out / "report.html")
    print(f"The page: {out / 'report.html'}")


if __name__ == "__main__":
    main()
