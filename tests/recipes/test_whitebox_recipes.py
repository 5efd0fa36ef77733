"""The eight recipes of White Box's attention networks train, on made-up sets in the real layout."""

import pytest
import torchvision
from data_files import write_cifar
from small_mnist import write_mnist

from xcam import recipes

SMALLER = {
    "simple_cnn_cam": {}, "simple_cnn_cbam": {}, "ran": {"model.width": 4},
    "warn": {"model.depth": 10, "model.widen": 1},
}  # fmt: skip


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Where MNIST is, with 60 images to train on, and CIFAR-10, with 20."""
    found = {name: tmp_path_factory.mktemp(name) for name in ("mnist", "cifar10")}
    write_mnist(found["mnist"])
    with pytest.MonkeyPatch.context() as patch:
        write_cifar(found["cifar10"], torchvision.datasets.CIFAR10, patch)
        yield found


@pytest.mark.parametrize("data", ["mnist", "cifar10"])
@pytest.mark.parametrize("net", SMALLER)
def test_two_steps_and_the_test_images(data, net, roots, tmp_path):
    size = {"mnist": 24, "cifar10": 8}[data]  # of 48 and 16 images that are not held out
    changes = {"epochs": 1, "batch_size": size, **SMALLER[net]}
    recipe = recipes.read(f"whitebox_{data}_{net}", changes)
    trained = recipes.fit(recipe, roots[data], tmp_path, device="cpu")
    assert all(parameter.isfinite().all() for parameter in trained.parameters())
    found = recipes.accuracy(recipe, roots[data], tmp_path / "best.safetensors", device="cpu")
    assert found["n"].iloc[-1] == {"mnist": 20, "cifar10": 4}[data]
