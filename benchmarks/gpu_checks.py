"""What must be right on a GPU: tests, training, no copies to the host, two streams.

`gpu.py` runs these beside what it times; `Scale` says how large the work of both is.
"""

from __future__ import annotations

import tempfile
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from explain import TARGET, net, pictures, rows, title
from metrics import same
from torch import Tensor, nn
from torch.utils.data import Dataset

import xcam
from xcam.models.toy import GapNet
from xcam.testing import quick
from xcam.testing.checks.device import LeftDeviceError, StayOnDevice
from xcam.testing.metric_subject import MetricSubject
from xcam.testing.probe import ProbeNet

TESTS = Path(__file__).parent.parent / "tests"


@dataclass(frozen=True)
class Scale:
    """How large the work is.

    Attributes:
        size: Of the images, in pixels.
        images: How many.
        masks: Of RISE.
        pixels: Changed at a step of insertion and deletion.
        chunks: Numbers of images that go through a net at a time.
        rounds: Of each comparison.
        epochs: Of each training.
        items: What is trained on, in images.
        accuracy: What a training must reach.
        is_tiny: Whether one small net stands for all.
        tests: Which tests run, as pytest takes them.
    """

    size: int = 224
    images: int = 64
    masks: int = 1000
    pixels: int = 1792
    chunks: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    rounds: int = 5
    epochs: int = 20
    items: int = 96
    accuracy: float = 0.9
    tests: tuple[str, ...] = ("-k", "cuda", *map(str, (
        TESTS / "test_accelerator.py", TESTS / "explain/test_devices.py",
        TESTS / "fit/test_fit_order.py",
    )))  # fmt: skip
    is_tiny: bool = False

    @property
    def layer(self) -> str:
        """Return the last layer of the nets."""
        return "features" if self.is_tiny else "layer4"

    def make(self, name: str, device: str) -> nn.Module:
        """Make a net of torchvision, or the small one instead."""
        return GapNet(num_classes=10).eval().to(device) if self.is_tiny else net(name, device)


TINY = Scale(
    size=32, images=2, masks=16, pixels=256, chunks=(2, 4), rounds=1, epochs=2, items=32,
    accuracy=0.0, tests=(str(TESTS / "test_pretend_device.py"), "-k", "Values"), is_tiny=True,
)  # fmt: skip


def tests(scale: Scale, _device: str) -> None:
    """Run the tests that need a GPU."""
    import pytest

    title("Tests")
    # Without time limits of its own, which take the timer of ours.
    code = pytest.main(["-q", "-p", "no:cacheprovider", "--timeout=0", *scale.tests])
    if code != pytest.ExitCode.OK:
        raise RuntimeError(f"the tests ended with exit code {int(code)}")


class Patches(Dataset[tuple[Tensor, int]]):
    """Seeded noise with a bright patch of each of three colors."""

    def __init__(self, count: int, size: int = 32) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand(count, 3, size, size, generator=generator) / 2
        for index, image in enumerate(self.images):
            image[index % 3, : size // 2, : size // 2] += 1

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return an image and its class."""
        return self.images[index], index % 3


def train(scale: Scale, device: str, **settings: object) -> nn.Module:
    """Train a small net on patches."""
    return xcam.fit(
        GapNet(num_classes=3),
        Patches(scale.items),
        batch_size=16,
        device=device,
        optimizer={"name": "Adam", "lr": 0.02},
        **settings,
    )


def training(scale: Scale, device: str) -> None:
    """Train in each precision, float16 with its scaled loss, and require that the net learns."""
    title(f"Training a small net for {scale.epochs} epochs: chance is a third")
    body = []
    for precision in ("full", "bf16", "fp16"):
        begin = time.perf_counter()
        trained = train(scale, device, epochs=scale.epochs, precision=precision)
        took = time.perf_counter() - begin
        accuracy = float(xcam.accuracy(trained, Patches(scale.items))["accuracy"].iloc[-1])
        body.append([precision, f"{took:.1f}", f"{accuracy:.3f}"])
    rows(["precision", "s", "accuracy"], body)
    if min(float(row[-1]) for row in body) < scale.accuracy:
        raise RuntimeError("a net did not learn")


def resume(scale: Scale, device: str) -> None:
    """Train half of the epochs, go on from the folder, and compare with one training."""
    epochs = scale.epochs // 2
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "halves"
        train(scale, device, epochs=epochs, precision="fp16", out=path)
        halves = train(scale, device, epochs=2 * epochs, precision="fp16", out=path)
    whole = train(scale, device, epochs=2 * epochs, precision="fp16").state_dict()
    differences = [(v - whole[k]).abs().max() for k, v in halves.state_dict().items()]
    title("A training that was resumed, beside one that was not")
    difference = float(torch.stack(differences).max())
    rows(["epochs", "largest difference of a weight"], [[str(2 * epochs), f"{difference:.1e}"]])
    if not difference < 1e-2:
        raise RuntimeError("the resumed training ends elsewhere")


def host_copies(_scale: Scale, device: str) -> None:
    """Score by every metric where a copy of values to the host raises."""
    leaving = []
    for name in xcam.list_metrics():
        subject, model = MetricSubject(quick(xcam.get_metric(name)())), ProbeNet().to(device)
        case = subject.build_case()
        images, explanation = case.images.to(device), case.explanation.to(device)
        truth = None if case.truth is None else case.truth.to(device)
        try:
            with StayOnDevice():
                subject.settings.score(model, images, explanation, truth)
        except LeftDeviceError as error:
            leaving.append([name, str(error)])
    title(f"Metrics that copy values to the host, of {len(xcam.list_metrics())}")
    rows(["metric", "by"], leaving)


def streams(scale: Scale, device: str) -> None:
    """Explain two models at once, each on a stream of its own, and compare with one by one."""
    models = [scale.make(name, device) for name in ("resnet18", "resnet34")]
    images = pictures(scale.images, device, scale.size)
    found: dict[int, Tensor] = {}

    def explain(index: int, stream: AbstractContextManager[object]) -> None:
        with stream:
            maps = xcam.explain(models[index], images, TARGET, "gradcam").maps
            found[index] = maps.cpu()

    took, results = [], []
    for is_parallel in (False, False, True):  # the first warms up
        begin = time.perf_counter()
        # A stream waits for nothing by itself: the images must be there.
        if device != "cpu":
            torch.cuda.synchronize()
        threads = [
            threading.Thread(
                target=explain, args=(index, make_stream(device, is_parallel)), daemon=True
            )
            for index in range(2)
        ]
        for thread in threads:
            thread.start()
            if not is_parallel:
                thread.join()
        for thread in threads:
            thread.join()
        took.append(time.perf_counter() - begin)
        results.append(torch.cat([found.pop(0), found.pop(1)]))
    title("Two models, one after the other and at once on two streams")
    same("the maps of the streams from those one by one", results[-1], results[1], 1e-3)
    rows(["", "s"], [["one by one", f"{took[1]:.3f}"], ["at once", f"{took[2]:.3f}"]])


def make_stream(device: str, is_own: bool) -> AbstractContextManager[object]:
    """Return a block whose work is on a stream of its own, where the device has streams."""
    return torch.cuda.stream(torch.cuda.Stream()) if is_own and device != "cpu" else nullcontext()
