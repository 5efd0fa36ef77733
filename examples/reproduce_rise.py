"""RISE's own numbers: insertion and deletion of its maps of ResNet-50 on ImageNet.

The authors' notebook reports, for the first 10,000 validation images, a deletion of 0.1048 and an
insertion of 0.7719. This computes the same through `xcam.evaluate`:

    python examples/reproduce_rise.py --root /data/imagenet/val --out runs/rise --device cuda

Conventions of the notebook: torchvision's first weights; images resized to 224 × 224 without a
crop; the predicted class; 5000 masks of 10 × 10 cells, each on with probability 0.1; masked pixels
take the mean colour; 28 steps of 1792 pixels; insertion starts from the image under the 11 × 11
kernel, zero-padded, in normalised space. The authors drew other masks, and their JPEGs were decoded
and resized by other libraries: no single image agrees to the digit, the mean of 10,000 should to
0.01. (Their own two halves differ by 0.005 in deletion and by 0.013 in insertion.)

It takes 5059 passes an image, fifty million in all: hours on a GPU. Stopped, or killed, it goes on
where it was when it is called again with the same arguments.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from torchvision.transforms import v2

import xcam
from xcam.core import Metric
from xcam.data import imagenet_val
from xcam.methods import RISE
from xcam.metrics import Deletion, Insertion
from xcam.models import Normalized

EXPECTED = {"deletion": 0.1048, "insertion": 0.7719}
COUNT, TOLERANCE = 10_000, 0.01
SIZE, STEP = 224, 1792
METRICS: dict[str, Metric] = {
    "deletion": Deletion(step=STEP),
    "insertion": Insertion(step=STEP, kernel="rise", size=11, sigma=5.0),
}


def make_rise(model: Normalized, masks: int) -> RISE:
    """Return RISE as in the notebook, for a model that takes [0, 1] pixels."""
    mean_colour = model.mean.flatten().cpu()  # which is zero once it is normalised
    return RISE(n_masks=masks, cells=10, probability=0.1, fill=mean_colour)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="the validation images")
    parser.add_argument("--out", type=Path, default=Path("runs/rise"), help="folder for the rows")
    parser.add_argument("--count", type=int, default=COUNT, help="how many images, from the first")
    parser.add_argument("--model", default="torchvision:resnet50")
    parser.add_argument("--weights", default="IMAGENET1K_V1", help="a name, a file, or none")
    parser.add_argument("--masks", type=int, default=5000, help="how many RISE draws")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, help="images through the model at a time")
    parser.add_argument("--workers", type=int, default=2, help="processes that load images")
    return parser.parse_args(arguments)


def evaluate_rise(options: argparse.Namespace) -> xcam.Results:
    """Evaluate both metrics on RISE's maps, eight images at a time, resumable."""
    weights = None if options.weights == "none" else options.weights
    model = xcam.models.load(options.model, weights=weights).to(options.device)
    stretched = v2.Compose([v2.Resize((SIZE, SIZE)), v2.ToDtype(torch.float32, scale=True)])
    data = imagenet_val(options.root, transform=stretched)
    return xcam.evaluate(
        model,
        DataLoader(data, batch_size=8, num_workers=options.workers),
        methods={"rise": make_rise(model, options.masks)},
        metrics=METRICS,
        out=options.out,
        controls=False,
        indices=range(min(options.count, len(data))),
        batch_size=options.batch_size,
        progress=True,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the results beside the published ones."""
    options = parse_arguments(arguments)
    for line in evaluate_rise(options).table().to_dict("records"):
        published = EXPECTED[line["metric"]]
        verdict = f"published {published:.4f}"
        if options.count == COUNT == line["n"]:
            agree = abs(line["value"] - published) <= TOLERANCE
            verdict += f", {'agrees' if agree else 'DIFFERS'} to {TOLERANCE}"
        interval = f"[{line['low']:.4f}, {line['high']:.4f}]"
        print(f"{line['metric']:<10} {line['value']:.4f} {interval} n={line['n']}  {verdict}")


if __name__ == "__main__":
    main()
