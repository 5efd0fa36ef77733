"""The examples of docs/howto/data.md, on small copies of what they read."""

import re
from pathlib import Path

from data_files import write_cifar, write_cub, write_mnist, write_picture
from torchvision import datasets

import xcam

GUIDE = Path(__file__).parents[2] / "docs" / "howto" / "data.md"


def test_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_mnist(Path("data/FashionMNIST/raw"))
    write_cifar(Path("data"), datasets.CIFAR10, monkeypatch)
    for name in ("catdog/train/cat/1.jpg", "catdog/val/cat/2.jpg", "images/1.jpg",
                 "imagenet/val/ILSVRC2012_val_00000001.JPEG"):  # fmt: skip
        write_picture(Path(name))
    Path("val.txt").write_text("ILSVRC2012_val_00000001.JPEG 65\n")
    Path("VGG16_train.txt").write_text("1.jpg 3\n")
    for split in ("train", "test"):
        write_picture(Path(f"dataset/OpenImages/{split}/a.jpg"))
        folder = Path("metadata/OpenImages") / split
        folder.mkdir(parents=True)
        (folder / "class_labels.txt").write_text(f"{split}/a.jpg,0\n")
    write_cub(Path())
    Path("revisited_imagenet_2012_val.csv").write_text("1.jpg,3\n")
    examples = re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    assert len(examples) == 9
    names = {"net": xcam.models.load("xcam:small_cnn", num_classes=3)}
    for code in examples:
        exec(compile(code, str(GUIDE), "exec"), names)
    assert names["image"].shape == (1, 28, 28)
    assert names["label"] == names["splits"].train.indices[0] % 10
    assert names["found"]["parts"].tolist() == [1, 1, 2]
    assert len(names["train"]) == len(names["splits"].train)
