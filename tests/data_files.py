"""Small copies of published data sets, in the formats in which they lie on disk."""

import gzip
import hashlib
import pickle
import struct

import numpy as np
from PIL import Image


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_picture(path, height=40, width=60, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(height, width, 3, seed=seed)).save(path)
    return path


def write_idx(path, array):
    """An idx file of bytes; gzipped, if its name ends so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_mnist(folder, train=20, test=10, suffix=""):
    """The four files of MNIST or Fashion-MNIST: label k mod 10, and what the images are."""
    images = {"train": pixels(train, 28, 28, seed=1), "t10k": pixels(test, 28, 28, seed=2)}
    for part, array in images.items():
        write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", array)
        labels = np.arange(len(array), dtype=np.uint8) % 10
        write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", labels)
    return images["train"], images["t10k"]


def write_cifar(root, published, monkeypatch):
    """CIFAR-10 or CIFAR-100 as torchvision's class has it, four images a file.

    The class is told the checksums of the files that are written. Returns the files' images,
    (4, 3, 32, 32), and labels, the file of the test images last.
    """
    folder = root / published.base_folder
    folder.mkdir(parents=True)
    fine = published.meta["key"] == "fine_label_names"
    sums, told = {}, []
    for number, (name, _) in enumerate([*published.train_list, *published.test_list]):
        images = pixels(4, 3, 32, 32, seed=number)
        labels = [(number + 3 * k) % (100 if fine else 10) for k in range(4)]
        content = {"data": images.reshape(4, -1), "fine_labels" if fine else "labels": labels}
        sums[name] = _pickle(folder / name, content)
        told.append((images, labels))
    names = [f"class {k}" for k in range(100 if fine else 10)]
    meta = _pickle(folder / published.meta["filename"], {published.meta["key"]: names})
    for part in ("train_list", "test_list"):
        files = [[name, sums[name]] for name, _ in getattr(published, part)]
        monkeypatch.setattr(published, part, files)
    monkeypatch.setattr(published, "meta", {**published.meta, "md5": meta})
    return told


def write_stl10(root, published, monkeypatch):
    """STL-10 with 10 images to train on, 20 to test and 2 without labels; the images of each."""
    folder = root / published.base_folder
    folder.mkdir(parents=True)
    told = {name: pixels(count, 3, 96, 96, seed=count)
            for name, count in {"train": 10, "test": 20, "unlabeled": 2}.items()}  # fmt: skip
    for name, images in told.items():
        images.transpose(0, 1, 3, 2).tofile(folder / f"{name}_X.bin")  # column by column
    for name in ("train", "test"):
        (np.arange(len(told[name]), dtype=np.uint8) % 10 + 1).tofile(folder / f"{name}_y.bin")
    (folder / "class_names.txt").write_text("\n".join(f"class {k}" for k in range(10)) + "\n")
    for part in ("train_list", "test_list"):
        files = [[name, _md5(folder / name)] for name, _ in getattr(published, part)]
        monkeypatch.setattr(published, part, files)
    return told["train"], told["test"]


def _pickle(path, content):
    path.write_bytes(pickle.dumps(content, protocol=2))
    return _md5(path)


def _md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


CUB_CLASSES = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross")
# The names of three attributes, and the percentage of each in each class.
CUB_ATTRIBUTES = {
    "has_bill_shape::hooked": (90.0, 10.0, 80.0),
    "has_wing_color::black": (70.0, 75.0, 20.0),
    "has_size::small": (0.0, 100.0, 0.0),
}


def write_cub(folder, height=40, width=60):
    """CUB-200-2011 with three classes of three pictures, two of them to test on.

    Of each picture points 2 (beak), 6 (forehead), 9 and 13 (wings) and 14 (tail) are visible, and
    the left part of it is the bird. In the last one only the tail is.
    """
    root = folder / "CUB_200_2011"
    names = [f"{name}/{name[4:]}_{k:04d}.jpg" for name in CUB_CLASSES for k in range(3)]
    lines = {
        "images.txt": names,
        "image_class_labels.txt": [k // 3 + 1 for k in range(9)],
        "train_test_split.txt": [int(k % 3 == 0) for k in range(9)],
        "bounding_boxes.txt": ["6.0 4.0 30.0 20.0"] * 9,
        "classes.txt": CUB_CLASSES,
    }
    for k, name in enumerate(names):
        write_picture(root / "images" / name, height, width, seed=k)
        bird = np.zeros((height, width), np.uint8)
        bird[:, : width * 3 // 4] = 51  # one of five annotators
        mask = (root.parent / "segmentations" / name).with_suffix(".png")
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(bird).save(mask)
    for name, values in lines.items():
        (root / name).write_text("".join(f"{k} {v}\n" for k, v in enumerate(values, start=1)))
    points = {2: (12, 8), 6: (18, 8), 9: (30, 30), 13: (54, 30), 14: (6, 36)}
    rows = [
        f"{image} {part} {x}.0 {y}.0 {int(part == 14 or image < 9)}\n"
        if (x := points.get(part, (0, 0))[0]) is not None and (y := points.get(part, (0, 0))[1]) > 0
        else f"{image} {part} 0.0 0.0 0\n"
        for image in range(1, 10)
        for part in range(1, 16)
    ]
    (root / "parts").mkdir()
    (root / "parts" / "part_locs.txt").write_text("".join(rows))
    (root / "attributes").mkdir()
    table = np.array([*CUB_ATTRIBUTES.values()]).T
    lines = (" ".join(map(str, row)) for row in table.tolist())
    (root / "attributes" / "class_attribute_labels_continuous.txt").write_text("\n".join(lines))
    named = (f"{k} {name}\n" for k, name in enumerate(CUB_ATTRIBUTES, start=1))
    (root.parent / "attributes.txt").write_text("".join(named))
    return root


VOC_OBJECTS = {
    "2008_000001": [("cat", (11, 6, 30, 25), 0), ("dog", (31, 1, 60, 40), 1)],
    "2008_000002": [("person", (1, 1, 20, 40), 0), ("person", (21, 11, 50, 30), 0)],
    "2008_000003": [("boat", (5, 5, 20, 20), 1)],
    "2008_000004": [("cat", (1, 1, 60, 40), 0), ("person", (41, 21, 60, 40), 0)],
}
"""The objects of each image: class, xmin to ymax as in the file, whether it is difficult."""


def write_voc(root, year="2012", test=False):
    """Pascal VOC with four images of 60 by 40: pictures, annotations, masks and lists.

    A mask has a cat, number 8, in its left half, a border of 255 in the column behind it, and a
    dog, number 12, on the right.
    """
    folder = root / "VOCdevkit" / f"VOC{year}"
    for seed, (name, objects) in enumerate(VOC_OBJECTS.items()):
        write_picture(folder / "JPEGImages" / f"{name}.jpg", seed=seed)
        lines = [
            f"<object><name>{kind}</name><difficult>{difficult}</difficult><bndbox>"
            f"<xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox>"
            "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>"
            for kind, (x0, y0, x1, y1), difficult in objects
        ]
        path = folder / "Annotations" / f"{name}.xml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"<annotation><filename>{name}.jpg</filename>{''.join(lines)}</annotation>")
        numbers = np.full((40, 60), 8, np.uint8)
        numbers[:, 30:] = 12
        numbers[:, 30] = 255
        mask = Image.fromarray(numbers, "P")
        mask.putpalette(pixels(768, seed=3).tolist())
        path = folder / "SegmentationClass" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        mask.save(path)
    names = [*VOC_OBJECTS]
    lists = {"train": names[:2], "val": names[1:], "trainval": names}
    lists |= {"test": names[2:]} if test else {}
    for kind in ("Main", "Segmentation"):
        (folder / "ImageSets" / kind).mkdir(parents=True)
        for image_set, own in lists.items():
            (folder / "ImageSets" / kind / f"{image_set}.txt").write_text("\n".join(own) + "\n")
    return folder
