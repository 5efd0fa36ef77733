"""Insertion, deletion and pixel flipping beside torchcam, quantus and the loop of RISE's authors.

`python benchmarks/metrics.py` prints tables like those of `RESULTS.md`; `--only rise` makes one of
them, `--rounds 5` shortens it, `--device cuda` runs on an accelerator. Peers are given the same
maps and run at the batch size at which they are fastest. That their numbers are the same to 1e-5
is checked before.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial

import torch
from explain import bare, compare, median, net, pictures, rows, title
from timing import interleave, machine, peak_memory, ratio, watch
from torch import Tensor, nn

from xcam.core import Explanation, Metric
from xcam.engine.forward import Precision, run_settings
from xcam.metrics import Deletion, Insertion, PixelFlipping
from xcam.metrics.removal.insertion_deletion import blur_images
from xcam.models import load

Candidate = Callable[[], object]
TARGET = 3
STEP = 1792  # pixels at 224: 29 scores
SIZES = (1, 2, 4, 8, 16, 32)


def cases(device: str) -> tuple[nn.Module, Tensor, Explanation]:
    """Return ResNet-18, a few images and maps; the order of pixels does not matter for time."""
    images = pictures(4 if device == "cpu" else 64, device)
    return net("resnet18", device), images, brightness(images)


def brightness(images: Tensor) -> Explanation:
    """Explain by maps (B, H, W) of the pixels' ranks in brightness, for one class.

    Ranks, so that no two pixels are alike: which of them goes first is each library's own affair.
    """
    order = images.mean(1).flatten(1).argsort(dim=1, stable=True)
    maps = order.argsort(dim=1).float().view(len(images), *images.shape[-2:])
    target = torch.full((len(images),), TARGET, device=images.device)
    return Explanation.of(maps, images, target, method="brightness")


def scored(model: nn.Module, images: Tensor, explanation: Explanation, *metrics: Metric) -> Tensor:
    """Return the curves (metrics, B, P)."""
    return torch.stack([metric.score(model, images, explanation) for metric in metrics])


def same(what: str, ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    """Print the difference of two results, and stop if it is over a part of the largest value."""
    ours, theirs = ours.cpu(), theirs.cpu()
    difference = float((ours - theirs).abs().max() / ours.abs().max())
    print(f"\nLargest difference of {what}: {difference:.1e} of the largest value.", flush=True)
    if not difference < tolerance:
        raise SystemExit(f"{what} are not the same numbers")


# The authors' loop ------------------------------------------------------------------------------


def rise(rounds: int, device: str) -> None:
    """Time insertion and deletion with the authors' blur, beside the loop that they published."""
    model, images, explanation = cases(device)
    metrics = (Insertion(step=STEP), Deletion(step=STEP))
    ours = partial(scored, model, images, explanation, *metrics)
    plain = partial(plain_curves, model, images, explanation.maps)
    same("the curves from those of the plain loop", ours(), plain(8))
    compare(
        f"Insertion and deletion, ResNet-18, {len(images)} images, 29 scores each, {rounds} rounds",
        rounds,
        ours,
        partial(bare_passes, model, images, 2 * 29 * len(images)),
        {"plain loop": lambda size: partial(plain, size)},
        device,
        SIZES if device == "cpu" else None,
    )


def bare_passes(model: nn.Module, images: Tensor, count: int, size: int) -> Candidate:
    """Run as many passes, `size` at a time, in channels_last."""
    return partial(bare, model, images, count, size, True)


def plain_curves(
    model: nn.Module, images: Tensor, maps: Tensor, size: int, pixels: int = STEP
) -> Tensor:
    """Compute insertion and deletion as RISE's authors do, editing pictures in place."""
    order = maps.flatten(1).argsort(dim=1, descending=True)
    index = torch.arange(len(images), device=images.device)[:, None]
    curves = []
    soft = blur_images(images, "rise", 11, 5.0)
    for start, finish in ((soft, images), (images, torch.zeros_like(images))):
        shown, scores = start.clone(), []
        for step in range(1 + -(-order.shape[1] // pixels)):
            with torch.no_grad():
                logits = torch.cat([model(part) for part in shown.split(size)])
            scores.append(logits.softmax(1)[:, TARGET])
            places = order[:, step * pixels : (step + 1) * pixels]
            shown.flatten(2)[index, :, places] = finish.flatten(2)[index, :, places]
        curves.append(torch.stack(scores, 1))
    return torch.stack(curves)


# torchcam ---------------------------------------------------------------------------------------


class GivenMaps:
    """What torchcam's metrics take for one of its extractors: it hands out maps made before."""

    def __init__(self, model: nn.Module, maps: Tensor) -> None:
        self.model, self.maps = model, maps

    def __call__(self, *_: object, **__: object) -> list[Tensor]:
        """Return the maps, as of one layer."""
        return [self.maps]

    def fuse_cams(self, cams: list[Tensor]) -> Tensor:
        """Return the maps of the one layer."""
        return cams[0]

    def _hooks_off(self) -> nullcontext[None]:
        return nullcontext()


def torchcam(rounds: int, device: str) -> None:
    """Time insertion and deletion from and to zeros; torchcam makes two passes an image less."""
    from torchcam.metrics import DeletionInsertionMetric

    model, images, explanation = cases(device)
    metrics = (Insertion(step=STEP, fill="zero"), Deletion(step=STEP))
    ours = partial(scored, model, images, explanation, *metrics)

    def theirs(size: int) -> Tensor:
        metric = DeletionInsertionMetric(
            GivenMaps(model, explanation.maps),
            partial(torch.softmax, dim=1),
            steps=28,
            batch_size=size,
        )
        metric.update(images, TARGET)
        found = metric.summary()
        return torch.tensor([found["insertion_auc"], found["deletion_auc"]])

    areas = torch.stack([m.finish(c.mean(0)) for m, c in zip(metrics, ours(), strict=True)])
    same("the areas from torchcam's", areas, theirs(8))
    compare(
        f"Insertion and deletion from zeros, ResNet-18, {len(images)} images, {rounds} rounds",
        rounds,
        ours,
        partial(bare_passes, model, images, 2 * 29 * len(images)),
        {"torchcam": lambda size: partial(theirs, size)},
        device,
        SIZES if device == "cpu" else None,
    )


# quantus ----------------------------------------------------------------------------------------


def quantus(rounds: int, device: str) -> None:
    """Time pixel flipping of gray images: quantus counts each channel of a pixel as one to flip."""
    if importlib.util.find_spec("quantus") is None:
        # Not an extra of the package: its opencv-python and our headless build share their files.
        print(
            "\nquantus is not installed, pixel flipping is left out: "
            "pip install --no-deps quantus==0.6.0 cachetools",
            flush=True,
        )
        return
    from quantus import PixelFlipping as TheirPixelFlipping

    model, images, _ = cases(device)
    images = images[:, :1].contiguous()
    torch.manual_seed(0)
    model.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False).to(device)
    explanation, metric = brightness(images), PixelFlipping(step=STEP, output="prob")
    flipping = TheirPixelFlipping(
        features_in_step=STEP, perturb_baseline=0.0, normalize=False, disable_warnings=True
    )
    pixels, maps = images.cpu().numpy(), explanation.maps[:, None].cpu().numpy()
    classes = explanation.target.cpu().numpy()

    def theirs(size: int) -> Tensor:
        found = flipping(
            model, pixels, classes, maps, channel_first=True, device=device, batch_size=size
        )
        return torch.tensor(found)

    ours = partial(scored, model, images, explanation, metric)
    same("the curves from those of quantus", ours()[0, :, 1:], theirs(8))
    compare(
        f"Pixel flipping, ResNet-18, {len(images)} grey images, 28 steps, {rounds} rounds",
        rounds,
        ours,
        partial(bare_passes, model, images, 29 * len(images)),
        {"quantus": lambda size: partial(theirs, size)},
        device,
        SIZES if device == "cpu" else None,
    )


# Memory and precision ---------------------------------------------------------------------------


def memory(_: int, device: str) -> None:
    """Measure the peak memory of deletion beyond that before, by the number of steps."""
    title("Deletion, ResNet-18, one image, peak memory by the number of steps")
    peaks = {n: peak_memory(__file__, str(n), device) for n in (28, 224, 1792)}
    rows(["steps", "peak MB"], [[str(n), f"{peak:.0f}"] for n, peak in peaks.items()])


def measure_memory(steps: int, device: str) -> None:
    """Measure one run in the child process of `peak_memory`, and print its peak as JSON."""
    model, images = net("resnet18", device), pictures(1, device)
    explanation = brightness(images)
    Deletion(step=1 / 8).score(model, images, explanation)  # what a first call allocates
    run = partial(Deletion(step=1 / steps).score, model, images, explanation)
    print(json.dumps({"megabytes": watch(run, device)}))


def bf16(rounds: int, device: str) -> None:
    """Measure what bfloat16 saves, and how it changes the areas of a trained net on photographs."""
    model, images, explanation = cases(device)
    metrics = (Insertion(), Deletion())

    def run(precision: Precision) -> None:
        with run_settings(precision=precision):
            scored(model, images, explanation, *metrics)

    times = interleave({p: partial(run, p) for p in ("full", "bf16")}, rounds)
    title(f"bfloat16, ResNet-18, insertion and deletion of {len(images)} images, {rounds} rounds")
    rows(
        ["precision", "median s", "time / full precision"],
        [[p, f"{median(t):.2f}", str(ratio(t, times["full"]))] for p, t in times.items()],
    )
    title("Areas of EfficientNet-Lite0 on two photographs")
    rows(["metric", "full", "bf16", "largest change"], list(changes(metrics, device)))


def changes(metrics: tuple[Metric, ...], device: str) -> Iterator[list[str]]:
    """Yield a row a metric: its mean area in both precisions, the largest change of an image's."""
    from rise_convergence import photographs

    import xcam

    model = load("xcam:efficientnet_lite0", weights="DEFAULT").to(device)
    images = torch.stack([*photographs().values()]).to(device)
    explanation = xcam.explain(model, images, method="gradcam")
    for metric in metrics:
        areas = []
        for precision in ("full", "bf16"):
            with run_settings(precision=precision):
                areas.append(metric.finish(metric.score(model, images, explanation)))
        means = [f"{area.mean():.4f}" for area in areas]
        yield [metric.spec.name, *means, f"{(areas[0] - areas[1]).abs().max():.4f}"]


SECTIONS: dict[str, tuple[Callable[[int, str], None], int]] = {
    "rise": (rise, 20),
    "torchcam": (torchcam, 20),
    "quantus": (quantus, 20),
    "memory": (memory, 1),
    "bf16": (bf16, 20),
}


def main() -> None:
    """Parse the command line and run the sections."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=SECTIONS)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory", nargs=2, metavar=("STEPS", "DEVICE"))
    options = parser.parse_args()
    if options.memory:
        measure_memory(int(options.memory[0]), options.memory[1])
        return
    print(f"{datetime.date.today()}, {machine()}")
    for name, (section, rounds) in SECTIONS.items():
        if options.only in (None, name):
            section(options.rounds or rounds, options.device)


if __name__ == "__main__":
    main()
