"""xcam beside grad-cam, captum and torchcam, in one process on the same inputs.

`python benchmarks/explain.py` prints the tables of `RESULTS.md`; `--only gradcam` runs one of
them, `--rounds 5` shortens it, `--device cuda` runs on an accelerator.
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
import torchvision
from timing import (
    best_size,
    interleave,
    machine,
    peak_memory,
    ratio,
    watch,
)
from torch import Tensor, nn

import xcam
from xcam.engine import capture

Candidate = Callable[[], object]
TARGET = 3


def net(name: str, device: str) -> nn.Module:
    """Make a seeded torchvision net in eval mode."""
    torch.manual_seed(0)
    model: nn.Module = torchvision.models.get_model(name, weights=None)
    return model.eval().to(device)


def pictures(count: int, device: str, size: int = 224) -> Tensor:
    """Make seeded smooth noise, so that activations differ from place to place."""
    noise = torch.rand(count, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(noise, size=size, mode="bilinear").to(device)


def bare(model: nn.Module, images: Tensor, passes: int, size: int, channels_last: bool) -> None:
    """Run the forward passes alone: `passes` images, `size` at a time."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    with torch.no_grad():
        for start in range(0, passes, size):
            count = min(size, passes - start)
            chunk = images[:1].expand(count, -1, -1, -1) if len(images) < count else images[:count]
            model(chunk.contiguous(memory_format=layout))


def bare_gradients(model: nn.Module, images: Tensor, passes: int, size: int) -> None:
    """Forward and backward passes to the input alone, in channels_last."""
    for start in range(0, passes, size):
        count = min(size, passes - start)
        chunk = images[:1].expand(count, -1, -1, -1).contiguous(memory_format=torch.channels_last)
        chunk.requires_grad_()
        torch.autograd.grad(model(chunk)[:, TARGET].sum(), chunk)


# Grad-CAM ---------------------------------------------------------------------------------------


def gradcam_candidates(device: str) -> dict[str, Candidate]:
    """Return runs of 16 images on ResNet-50: each library's Grad-CAM, and the bare forward."""
    import captum.attr
    import pytorch_grad_cam as grad_cam
    import torchcam.methods
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, images = net("resnet50", device), pictures(16, device)
    theirs = grad_cam.GradCAM(model, [model.layer4])
    targets = [ClassifierOutputTarget(TARGET)] * len(images)
    layer_gradcam = captum.attr.LayerGradCam(model, model.layer4)

    def torchcam_run() -> None:
        with torchcam.methods.GradCAM(model, "layer4") as extractor:
            extractor([TARGET] * len(images), model(images))

    return {
        "bare forward, batch 16 as given": partial(bare, model, images, 16, 16, False),
        "bare forward, chunks of 8 in channels_last": partial(bare, model, images, 16, 8, True),
        "xcam": lambda: xcam.explain(model, images, TARGET, "gradcam", layer="layer4"),
        "grad-cam": lambda: theirs(images, targets),
        "captum": lambda: layer_gradcam.attribute(images, TARGET),
        "torchcam": torchcam_run,
    }


def gradcam(rounds: int, device: str) -> None:
    """Time against the bare forward and the peers; peak memory against the bare forward."""
    candidates = gradcam_candidates(device)
    times = interleave(candidates, rounds)
    title(f"Grad-CAM, ResNet-50, 16 images of 224, {rounds} rounds")
    reference = "bare forward, batch 16 as given"
    memory = {name: peak_memory(__file__, "gradcam", name, device) for name in candidates}
    rows(
        ["", "median s", "time / bare forward", "peak MB", "peak / bare forward"],
        [
            [
                name,
                f"{median(times[name]):.3f}",
                str(ratio(times[name], times[reference])),
                f"{memory[name]:.0f}",
                f"{memory[name] / memory[reference]:.2f}",
            ]
            for name in candidates
        ],
    )


# Score-CAM --------------------------------------------------------------------------------------


def scorecam(rounds: int, device: str) -> None:
    """Time 256 channels of ResNet-18 on one image, every peer at its own best batch size."""
    import pytorch_grad_cam as grad_cam
    import torchcam.methods
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, images = net("resnet18", device), pictures(1, device)

    def run_grad_cam(size: int) -> Candidate:
        method = grad_cam.ScoreCAM(model, [model.layer3])
        method.batch_size = size
        return lambda: method(images, [ClassifierOutputTarget(TARGET)])

    def run_torchcam(size: int) -> Candidate:
        def run() -> None:
            with torchcam.methods.ScoreCAM(model, "layer3", batch_size=size) as extractor:
                extractor(TARGET, model(images))

        return run

    compare(
        f"Score-CAM, ResNet-18, one image of 224, 256 channels, {rounds} rounds",
        rounds,
        lambda: xcam.explain(model, images, TARGET, "scorecam", layer="layer3"),
        lambda size: partial(bare, model, images, 1 + channels(model, images), size, True),
        {"grad-cam": run_grad_cam, "torchcam": run_torchcam},
        device,
    )


def channels(model: nn.Module, images: Tensor) -> int:
    """Count the channels of layer3 that are not flat: the others need no pass."""
    with capture(model, "layer3", grad=False) as tap:
        tap(images)
        lowest, highest = tap.activation.flatten(2).aminmax(dim=2)
    return int((highest > lowest).sum())


# RISE -------------------------------------------------------------------------------------------


def rise(rounds: int, device: str) -> None:
    """Time 250 masks on ResNet-18, beside a loop in the style of the original: no peer has RISE."""
    model, images = net("resnet18", device), pictures(1, device)
    compare(
        f"RISE, ResNet-18, one image of 224, 250 masks, {rounds} rounds",
        rounds,
        lambda: xcam.explain(model, images, TARGET, "rise", n_masks=250),
        lambda size: partial(bare, model, images, 251, size, True),
        {"plain loop": lambda size: partial(plain_rise, model, images, 250, size)},
        device,
    )
    title("RISE, peak memory by the number of masks")
    few, many = (peak_memory(__file__, "rise", str(count), device) for count in (500, 4000))
    rows(["masks", "peak MB"], [["500", f"{few:.0f}"], ["4000", f"{many:.0f}"]])


def plain_rise(model: nn.Module, images: Tensor, count: int, size: int) -> Tensor:
    """Run RISE as it is usually written: all masks first, then batches, then one matrix product."""
    side, cells = images.shape[-1], 7
    cell = -(-side // cells)
    generator = torch.Generator().manual_seed(0)
    grids = (torch.rand(count, 1, cells, cells, generator=generator) < 0.5).float()
    offsets = torch.randint(0, cell, (count, 2), generator=generator).tolist()
    canvases = nn.functional.interpolate(grids, size=(cells + 1) * cell, mode="bilinear")
    masks = torch.stack(
        [
            canvas[:, y : y + side, x : x + side]
            for canvas, (y, x) in zip(canvases, offsets, strict=True)
        ]
    ).to(images.device)
    with torch.no_grad():
        scores = torch.cat([model(images * part).softmax(1) for part in masks.split(size)])
    return (scores.T @ masks.flatten(1) / count / 0.5)[TARGET].view(side, side)


# Integrated Gradients ---------------------------------------------------------------------------


def integrated_gradients(rounds: int, device: str) -> None:
    """Time 50 steps on ResNet-18 for one image, captum at its own best internal batch size."""
    import captum.attr

    model, images = net("resnet18", device), pictures(1, device)
    method = captum.attr.IntegratedGradients(model)

    def run_captum(size: int) -> Candidate:
        return lambda: method.attribute(images, target=TARGET, n_steps=50, internal_batch_size=size)

    compare(
        f"Integrated Gradients, ResNet-18, one image of 224, 50 steps, {rounds} rounds",
        rounds,
        lambda: xcam.explain(model, images, TARGET, "integrated_gradients", n_steps=50),
        lambda size: partial(bare_gradients, model, images, 50, size),
        {"captum": run_captum},
        device,
    )


# Tables -----------------------------------------------------------------------------------------


def compare(
    heading: str,
    rounds: int,
    ours: Candidate,
    passes: Callable[[int], Candidate],
    peers: dict[str, Callable[[int], Candidate]],
    device: str,
    sizes: Sequence[int] | None = None,
) -> None:
    """Time a method of many passes against its bare passes and peers, each at its best size."""
    sizes = sizes or ([4, 8, 16, 32] if device == "cpu" else [32, 64, 128, 256, 512])
    size, candidate = best_size(passes, sizes)
    candidates = {f"bare passes, best chunk ({size})": candidate}
    reference = next(iter(candidates))
    candidates["xcam"] = ours
    for name, make in peers.items():
        size, candidate = best_size(make, sizes)
        candidates[f"{name}, best batch ({size})"] = candidate
    times = interleave(candidates, rounds)
    title(heading)
    rows(
        ["", "median s", "time / bare passes", "time / xcam"],
        [
            [
                name,
                f"{median(times[name]):.2f}",
                str(ratio(times[name], times[reference])),
                str(ratio(times[name], times["xcam"])),
            ]
            for name in candidates
        ],
    )


def title(text: str) -> None:
    """Print a heading in Markdown."""
    print(f"\n## {text}\n")


def rows(header: list[str], body: Iterable[list[str]]) -> None:
    """Print a table in Markdown, each row as soon as it is there."""
    print("| " + " | ".join(header) + " |")
    print("|" + " --- |" * len(header))
    for row in body:
        print("| " + " | ".join(row) + " |", flush=True)


def median(times: list[float]) -> float:
    """Return the median of the rounds."""
    return sorted(times)[len(times) // 2]


def measure_memory(what: str, which: str, device: str) -> None:
    """Measure one run in the child process of `peak_memory`, and print its peak as JSON."""
    if what == "gradcam":
        candidate = gradcam_candidates(device)[which]
    else:
        model, images = net("resnet18", device), pictures(1, device)
        xcam.explain(model, images, TARGET, "rise", n_masks=16)  # what a first call allocates
        candidate = partial(xcam.explain, model, images, TARGET, "rise", n_masks=int(which))
    print(json.dumps({"megabytes": watch(candidate, device)}))


SECTIONS: dict[str, tuple[Callable[[int, str], None], int]] = {
    "gradcam": (gradcam, 20),
    "integrated_gradients": (integrated_gradients, 20),
    "scorecam": (scorecam, 8),
    "rise": (rise, 8),
}


def main() -> None:
    """Parse the command line and run the sections."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=SECTIONS)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory", nargs=3, metavar=("WHAT", "WHICH", "DEVICE"))
    options = parser.parse_args()
    if options.memory:
        measure_memory(*options.memory)
        return
    print(f"{datetime.date.today()}, {machine()}")
    for name, (section, rounds) in SECTIONS.items():
        if options.only in (None, name):
            section(options.rounds or rounds, options.device)


if __name__ == "__main__":
    main()
