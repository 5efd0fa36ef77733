"""A few digits in the format of MNIST's files."""

import numpy as np


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
