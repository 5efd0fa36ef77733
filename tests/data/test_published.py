"""Published data sets of small images: reading them, and errors for missing or damaged files."""

import gzip
import pickle
import shutil
from urllib.error import URLError

import numpy as np
import pytest
import torch
from data_files import pixels, write_cifar, write_idx, write_mnist, write_stl10
from torch.utils.data import DataLoader
from torchvision import datasets

from xcam.data import load
from xcam.errors import FileFormatError, UnknownNameError


def check(part, images, labels):
    """Assert that a split has exactly these images and labels, with pixels in [0, 1]."""
    assert len(part) == len(images)
    for (image, label), truth, number in zip(
        (part[index] for index in range(len(part))), images, labels, strict=True
    ):
        assert type(image) is torch.Tensor
        assert image.dtype == torch.float32
        assert torch.equal(image, torch.from_numpy(truth) / 255)
        assert type(label) is int
        assert label == number
    with pytest.raises(IndexError):
        part[len(images)]


class TestCifar:
    @pytest.fixture(params=["cifar10", "cifar100"])
    def written(self, request, tmp_path, monkeypatch):
        published = getattr(datasets, request.param.upper())
        return request.param, published, write_cifar(tmp_path, published, monkeypatch)

    def test_reads_what_is_written(self, written, tmp_path):
        name, _, (*batches, (images, labels)) = written
        splits = load(name, tmp_path)
        count = int(name.removeprefix("cifar"))
        assert repr(splits) == (
            f"Splits(train={4 * len(batches)}, validation=None, test=4, classes={count})"
        )
        check(
            splits.train,
            np.concatenate([batch for batch, _ in batches]),
            [label for _, numbers in batches for label in numbers],
        )
        check(splits.test, images, labels)
        assert splits.classes == tuple(f"class {k}" for k in range(count))

    def test_missing_cifar_file_is_named(self, written, tmp_path):
        name, published, _ = written
        file = published.train_list[-1][0]
        (tmp_path / published.base_folder / file).unlink()
        with pytest.raises(FileNotFoundError, match=rf"no {name} in .* no '.*{file}'; .*download"):
            load(name, tmp_path)

    def test_file_with_another_md5_is_not_unpickled(self, written, tmp_path):
        name, published, _ = written
        path = tmp_path / published.base_folder / published.test_list[0][0]
        path.write_bytes(b"cos\nabort\n(tR.")  # would end this process
        with pytest.raises(FileFormatError, match=rf"{path.name}' is not the published file, by"):
            load(name, tmp_path)

    def test_damaged_cifar_class_list_is_refused(self, written, tmp_path):
        name, published, _ = written
        (tmp_path / published.base_folder / published.meta["filename"]).write_bytes(b"")
        with pytest.raises(FileFormatError, match="meta' is not the published file"):
            load(name, tmp_path)

    def test_download_fetches_what_is_missing(self, written, tmp_path, monkeypatch):
        name, published, _ = written
        elsewhere = tmp_path / "elsewhere"

        def fetch(url, root, **_):
            assert url == published.url
            shutil.copytree(tmp_path / published.base_folder, root / published.base_folder)

        monkeypatch.setattr(datasets.cifar, "download_and_extract_archive", fetch)
        assert len(load(name, elsewhere, download=True).test) == 4

    def test_no_network(self, written, tmp_path, monkeypatch):
        def fail(*_, **__):
            raise URLError("no route to host")

        monkeypatch.setattr(datasets.cifar, "download_and_extract_archive", fail)
        with pytest.raises(ConnectionError, match=r"cannot be downloaded to .*no route.*; fetch"):
            load(written[0], tmp_path / "elsewhere", download=True)


class TestSTL10:
    def test_reads_what_is_written(self, tmp_path, monkeypatch):
        train, test = write_stl10(tmp_path, datasets.STL10, monkeypatch)
        splits = load("stl10", tmp_path)
        check(splits.train, train, list(range(10)))
        check(splits.test, test, list(range(10)) * 2)
        assert splits.validation is None
        assert splits.classes == tuple(f"class {k}" for k in range(10))
        (tmp_path / "stl10_binary" / "class_names.txt").unlink()
        assert load("stl10", tmp_path).classes == ()

    def test_missing_stl10_file_is_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no stl10 in .* no '.*train_X.bin'; give"):
            load("stl10", tmp_path)


class TestMNIST:
    @pytest.mark.parametrize("suffix", ["", ".gz"])
    @pytest.mark.parametrize(
        ("name", "folder"),
        [("mnist", "MNIST/raw"), ("fashion_mnist", "FashionMNIST/raw"), ("fashion_mnist", "")],
    )
    def test_reads_what_is_written(self, tmp_path, name, folder, suffix):
        train, test = write_mnist(tmp_path / folder, suffix=suffix)
        splits = load(name, tmp_path)
        check(splits.train, train[:, None], [k % 10 for k in range(20)])
        check(splits.test, test[:, None], range(10))
        assert splits.classes[9] == {"mnist": "9 - nine", "fashion_mnist": "Ankle boot"}[name]

    def test_agrees_with_torchvision(self, tmp_path):
        write_mnist(tmp_path / "MNIST" / "raw")
        for (image, label), (picture, number) in zip(
            load("mnist", tmp_path).test, datasets.MNIST(tmp_path, train=False), strict=True
        ):
            assert (image[0].numpy() * 255 == np.array(picture)).all()
            assert label == number

    def test_missing_mnist_file_is_named(self, tmp_path):
        write_mnist(tmp_path / "MNIST" / "raw")
        (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
        wanted = r"no t10k-labels-idx1-ubyte or .*gz in '.*MNIST/raw' or '.*'; give download=True"
        with pytest.raises(FileNotFoundError, match=wanted):
            load("mnist", tmp_path)

    @pytest.mark.parametrize("kept", [2, 8, 100, 3000])
    @pytest.mark.parametrize("suffix", ["", ".gz"])
    def test_truncated_mnist_file_is_refused(self, tmp_path, suffix, kept):
        write_mnist(tmp_path, suffix=suffix)
        path = tmp_path / f"train-images-idx3-ubyte{suffix}"
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(FileFormatError, match="train-images"):
            load("mnist", tmp_path)

    def test_damaged_mnist_gzip_is_refused(self, tmp_path):
        write_mnist(tmp_path, suffix=".gz")
        path = tmp_path / "train-images-idx3-ubyte.gz"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 255
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match="cannot be unzipped"):
            load("mnist", tmp_path)
        path.write_bytes(gzip.compress(b"something else"))
        with pytest.raises(FileFormatError, match="is no idx file of bytes with 3 axes"):
            load("mnist", tmp_path)

    def test_too_many_bytes(self, tmp_path):
        write_mnist(tmp_path)
        with (tmp_path / "t10k-labels-idx1-ubyte").open("ab") as file:
            file.write(b"\0")
        with pytest.raises(FileFormatError, match="should hold 10 bytes, and holds 11"):
            load("mnist", tmp_path)

    def test_wrong_number_of_labels_is_refused(self, tmp_path):
        write_mnist(tmp_path)
        write_idx(tmp_path / "t10k-labels-idx1-ubyte", pixels(9))
        with pytest.raises(FileFormatError, match=r"has 10 images, .* 9 labels"):
            load("mnist", tmp_path)

    def test_download(self, tmp_path, monkeypatch):
        def fetch(url, download_root, filename, **_):
            assert url.startswith("http://fashion-mnist.")
            write_mnist(tmp_path / "FashionMNIST" / "raw")

        monkeypatch.setattr(datasets.mnist, "download_and_extract_archive", fetch)
        assert len(load("fashion_mnist", tmp_path, download=True).train) == 20

    def test_no_network(self, tmp_path, monkeypatch):
        def fail(*_, **__):
            raise URLError("no route to host")

        monkeypatch.setattr(datasets.mnist, "download_and_extract_archive", fail)
        with pytest.raises(ConnectionError, match=r"mnist cannot be downloaded .*no route"):
            load("mnist", tmp_path, download=True)

    def test_workers_and_pickles(self, tmp_path):
        write_mnist(tmp_path)
        splits = load("mnist", tmp_path, validation={"fraction": 0.2, "seed": 1})
        loader = DataLoader(splits.train, batch_size=16, num_workers=1)
        ((images, labels),) = loader
        assert images.shape == (16, 1, 28, 28)
        again = pickle.loads(pickle.dumps(splits))
        assert [label for _, label in again.train] == labels.tolist()

    def test_inplace_transform_does_not_change_the_stored_images(self, tmp_path):
        write_mnist(tmp_path)
        erase = {"name": "RandomErasing", "p": 1, "scale": [0.5, 0.5], "inplace": True}
        part = load("mnist", tmp_path, train=[erase]).train
        before = part.images.clone()
        assert (part[0][0] == 0).float().mean() > 0.4
        assert torch.equal(part.images, before)


class TestNames:
    def test_unknown(self, tmp_path):
        with pytest.raises(UnknownNameError, match=r"no data set is called 'cifar-10'; .*cifar10"):
            load("cifar-10", tmp_path)

    def test_settings_of_other_sets(self, tmp_path):
        with pytest.raises(ValueError, match=r"lists are for .* 'mnist' has its own labels"):
            load("mnist", tmp_path, lists={"train": "train.txt"})
        with pytest.raises(ValueError, match="'folder' cannot be downloaded; give the folder"):
            load("folder", tmp_path, download=True)
        with pytest.raises(FileNotFoundError, match=r"no folder '.*gone'"):
            load("folder", tmp_path / "gone")
