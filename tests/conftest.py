"""What many tests share: the real photographs, and the trained net that recognises them."""

import gc
import signal

import pytest
import torch
from evaluations import Pictures
from PIL import Image
from pretend_device import CUDA, accelerate

import xcam
from xcam.models import Normalized
from xcam.models.toy import GapNet, SmallCNN

# A shell's background jobs, and what they start, ignore Ctrl-C, which some tests send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Modules that `make test-fast` leaves out: they start processes, train, or need a trained net.
SLOW = {
    "test_ablationcam", "test_calm_nets", "test_cli_fit", "test_demo", "test_docs",
    "test_evaluate_processes", "test_evaluate_resume", "test_families", "test_fit_processes",
    "test_fit_resume", "test_five_papers", "test_gpu", "test_memory", "test_metrics_table",
    "test_ordering", "test_plugins", "test_published_calm", "test_published_lficam",
    "test_run_folder_lock", "test_roar_cues", "test_roar_on_fashion_mnist", "test_roar_processes",
    "test_second_inputs", "test_stability_example", "test_train_lcam", "test_train_on_cues",
    "test_writing",
}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of slow modules."""
    for item in items:
        if item.path.stem in SLOW:
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Keep what lasts as long as the tests out of each search for garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=["pretend", pytest.param("cuda", marks=CUDA)])
def accelerator(request):
    """An accelerator: a pretend one everywhere, and a GPU where there is one."""
    with accelerate(request.param) as accelerator:
        yield accelerator


@pytest.fixture(scope="session")
def photographs() -> torch.Tensor:
    """The demo's photographs, (6, 3, 224, 224) in [0, 1]."""
    import demo

    return demo.load_photographs(224)


@pytest.fixture(scope="session")
def lite0() -> torch.nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights."""
    return xcam.models.load("xcam:efficientnet_lite0", weights="DEFAULT")


@pytest.fixture
def net(monkeypatch):
    """What every --model gives, with the arguments of the call."""
    inner, names = SmallCNN(num_classes=4), ("ant", "bee", "cat")
    net = Normalized(inner, (0.0,), (1.0,), categories=names, input_size=(16, 24)).eval()
    net.loaded = []

    def load(name, weights=None):
        net.loaded.append((name, weights))
        return net

    monkeypatch.setattr(xcam.models, "load", load)
    return net


@pytest.fixture
def picture(tmp_path):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (20, 30, 3), dtype=torch.uint8, generator=generator)
    Image.fromarray(pixels.numpy()).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def nets(monkeypatch):
    """What every --model gives, and the arguments of each call."""
    loaded = []

    def load(name, weights=None):
        loaded.append((name, weights))
        return Normalized(GapNet(seed=len(name)), (0.5,), (0.5,), input_size=16)

    monkeypatch.setattr(xcam.models, "load", load)
    return loaded


@pytest.fixture
def pictures(tmp_path):
    data = Pictures(5)
    for name, image in zip(data.ids, data.images, strict=True):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255).byte().movedim(0, -1).numpy()).save(path)
    return tmp_path / "pictures"
