"""A few digits in the format of MNIST's files, and a recipe to train on them."""

import numpy as np

RECIPE = """
title = "Digits"

[model]
name = "xcam:cifar_resnet"
depth = 8
in_channels = 1
num_classes = 10

[data]
name = "mnist"
validation = { fraction = 0.2, seed = 1 }
train = [{ name = "RandomCrop", size = 28, padding = 2 }]

[fit]
epochs = 2
batch_size = 4
optimizer = { name = "SGD", lr = 0.05, momentum = 0.9 }
seed = 3
"""


def write_mnist(root, train=60, test=20, classes=10):
    """Writes `root`/MNIST/raw: each class is a bright bar on noise, at its own height."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for part, count in (("train", train), ("t10k", test)):
        labels = (np.arange(count) % classes).astype(np.uint8)
        images = generator.integers(0, 80, (count, 28, 28), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label + 4 : 2 * label + 6] = 255
        for name, magic, array in (
            (f"{part}-images-idx3-ubyte", 2051, images),
            (f"{part}-labels-idx1-ubyte", 2049, labels),
        ):
            header = np.array([magic, *array.shape], dtype=">u4").tobytes()
            (raw / name).write_bytes(header + array.tobytes())
    return root
