"""Do maps fall on the object? One image of each class by methods and layers: White Box's coherence.

    xcam fit --recipe fashion_mnist_simple_cnn --root data --out runs/fashion
    python examples/coherence.py runs/fashion/best.safetensors --data fashion_mnist --root data

draws the first test image of each class, explained as its label, by pixel methods and by the output
of convolutions and Grad-CAM at three depths of the net.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from torch import nn

import xcam
from xcam.methods import SmoothGrad
from xcam.results.figures import draw_coherence

METHODS = [
    "input_x_gradient",
    "guided_backprop",
    "integrated_gradients",
    SmoothGrad(base="input_x_gradient", n_samples=50),
    "guided_gradcam",
    "conv_output",
    "gradcam",
]
DEPTHS = (  # three depths of White Box's nets, the ReLUs of SimpleCNN's three blocks first
    ("features.2", "features.6", "features.10"),
    ("stages.1", "stages.3", "tail"),
    ("groups.0", "groups.1", "norm"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a net that xcam.save or xcam fit wrote")
    parser.add_argument("--data", default="fashion_mnist", help="a data set that xcam.data knows")
    parser.add_argument("--root", type=Path, default=Path("data"), help="where its files are")
    parser.add_argument("--layers", nargs="*", help="names of layers")
    parser.add_argument("--out", type=Path, default=Path("coherence.png"), help="the picture")
    options = parser.parse_args(arguments)
    images = xcam.data.load(options.data, root=options.root).test
    net = xcam.load(options.model)
    layers = options.layers if options.layers is not None else find_layers(net)
    draw_coherence(net, images, METHODS, layers, options.out)
    print(f"figure -> {options.out}")


def find_layers(net: nn.Module) -> tuple[str, ...]:
    """Return three layers of a net of White Box; of others none, for the default layer."""
    names = {name.removeprefix("model.") for name, _ in net.named_modules()}
    return next((layers for layers in DEPTHS if names.issuperset(layers)), ())


if __name__ == "__main__":
    main()
