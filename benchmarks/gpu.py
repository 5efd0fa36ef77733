"""What has only run on CPUs, on a GPU: tests, time, memory, precision, training, streams.

`python benchmarks/gpu.py` takes at most eight minutes, in one process, and prints tables for
`RESULTS.md`; `--only rise` runs one section. `--tiny` runs all of it in seconds, also on a CPU,
so that no time on a GPU is spent on faults of this script. Each section has a share of the time,
and what earlier ones have left of theirs; it is cut inside of its loops when that is over. One that
fails or is cut is reported, the others run, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial

import torch
from deadline import OutOfTimeError, cut_after, exit_after
from explain import TARGET, bare, compare, pictures, plain_rise, rows, title
from gpu_checks import TINY, Scale, host_copies, resume, streams, tests, training
from metrics import bare_passes, brightness, plain_curves, same, scored
from timing import machine, seconds, watch
from torch import Tensor, nn

import xcam
from xcam.engine.chunks import default_batch_size
from xcam.engine.forward import run_settings
from xcam.metrics import Deletion, Insertion

LIMIT = 8 * 60 - 10  # seconds of the whole, after the imports
MARGIN = 15  # of them, for a call that no signal interrupts


def gradcam(scale: Scale, device: str) -> None:
    """Time Grad-CAM of one image and of several beside bare forward passes and the peers."""
    model = scale.make("resnet50", device)
    for count in (1, scale.images):
        images = pictures(count, device, scale.size)
        peers: dict[str, Callable[[int], Callable[[], object]]] = {}
        if importlib.util.find_spec("torchcam"):
            peers["torchcam"] = lambda _, images=images: partial(
                torchcam_run, model, images, scale.layer
            )
        peers["xcam, default layer"] = lambda _, images=images: partial(
            xcam.explain, model, images, TARGET, "gradcam"
        )
        compare(
            f"Grad-CAM, ResNet-50, {count} images of {scale.size}, {scale.rounds} rounds",
            scale.rounds,
            partial(xcam.explain, model, images, TARGET, "gradcam", layer=scale.layer),
            lambda size, images=images: partial(bare, model, images, len(images), size, True),
            peers,
            device,
            (count,),
        )


def torchcam_run(model: nn.Module, images: Tensor, layer: str) -> None:
    """Run torchcam's Grad-CAM."""
    from torchcam.methods import GradCAM

    with GradCAM(model, layer) as extractor:
        extractor([TARGET] * len(images), model(images))


def curves(scale: Scale, device: str) -> None:
    """Time insertion and deletion beside their bare passes and the loop of RISE's authors."""
    model, images = scale.make("resnet18", device), pictures(scale.images, device, scale.size)
    explanation = brightness(images)
    metrics = (Insertion(step=scale.pixels), Deletion(step=scale.pixels))
    ours = partial(scored, model, images, explanation, *metrics)
    plain = partial(plain_curves, model, images, explanation.maps, pixels=scale.pixels)
    same("the curves from those of the plain loop", ours(), plain(scale.chunks[0]), 1e-3)
    scores = 1 + -(-(scale.size**2) // scale.pixels)
    compare(
        f"Insertion and deletion, ResNet-18, {len(images)} images of {scale.size}, {scores} "
        f"scores each, {scale.rounds} rounds",
        scale.rounds,
        ours,
        partial(bare_passes, model, images, 2 * scores * len(images)),
        {"plain loop": lambda size: partial(plain, size)},
        device,
        scale.chunks,
    )


def rise(scale: Scale, device: str) -> None:
    """Time RISE of one image beside its bare passes and the plain loop."""
    model, images = scale.make("resnet18", device), pictures(1, device, scale.size)
    compare(
        f"RISE, ResNet-18, one image of {scale.size}, {scale.masks} masks, {scale.rounds} rounds",
        scale.rounds,
        partial(xcam.explain, model, images, TARGET, "rise", n_masks=scale.masks),
        lambda size: partial(bare, model, images, 1 + scale.masks, size, True),
        {"plain loop": lambda size: partial(plain_rise, model, images, scale.masks, size)},
        device,
        scale.chunks,
    )


def chunks(scale: Scale, device: str) -> None:
    """Time bare passes by the number of images at a time, beside the engine's choice."""
    title("Milliseconds an image by the number of images at a time")
    body = []
    for name in ("resnet50", "resnet18", "mobilenet_v3_large"):
        for size in sorted({scale.size, 64}):
            model, images = scale.make(name, device), pictures(1, device, size)
            total = max(scale.chunks)
            took = []
            for count in scale.chunks:
                run = partial(bare, model, images, total, count, True)
                run()
                took.append(f"{1000 * seconds(run) / total:.3f}")
            body.append([name, str(size), str(default_batch_size(images)), *took])
    rows(["net", "pixels", "chosen", *map(str, scale.chunks)], body)


def memory(scale: Scale, device: str) -> None:
    """Measure the peak memory of deletion by its steps, and of RISE by its masks."""
    model, images = scale.make("resnet18", device), pictures(1, device, scale.size)
    explanation = brightness(images)
    title(f"Peak memory beyond that before, ResNet-18, one image of {scale.size}")
    body = []
    with run_settings(batch_size=scale.chunks[-1]):
        for steps in (scale.masks, 2 * scale.masks):
            metric = Deletion(step=1 / steps)
            metric.score(model, images, explanation)  # what a first call allocates
            peak = watch(partial(metric.score, model, images, explanation), device)
            body.append([f"deletion, {steps} steps", f"{peak:.0f}"])
    for masks in (scale.masks, 2 * scale.masks):
        run = partial(
            xcam.explain, model, images, TARGET, "rise", n_masks=masks, batch_size=scale.chunks[-1]
        )
        run()
        body.append([f"RISE, {masks} masks", f"{watch(run, device):.0f}"])
    rows(["work", "peak MB"], body)


def half(scale: Scale, device: str) -> None:
    """Time insertion and deletion in half precision, and measure how their areas change."""
    model, images = scale.make("resnet18", device), pictures(scale.images, device, scale.size)
    explanation = brightness(images)
    metrics = (Insertion(step=scale.pixels), Deletion(step=scale.pixels))
    title(f"Half precision, ResNet-18, insertion and deletion of {len(images)} images")
    found: dict[str, tuple[float, Tensor]] = {}
    for precision in ("full", "bf16", "fp16"):
        with run_settings(precision=precision):
            took = []
            for _ in range(1 + scale.rounds):  # the first warms up
                begin = time.perf_counter()
                values = scored(model, images, explanation, *metrics).cpu()
                took.append(time.perf_counter() - begin)
        areas = torch.stack([m.finish(v) for m, v in zip(metrics, values, strict=True)])
        found[precision] = (min(took[1:]), areas)
    full, areas = found["full"]
    rows(
        ["precision", "s", "time / full", "largest change of an area"],
        [
            [name, f"{took:.3f}", f"{took / full:.3f}", f"{(other - areas).abs().max():.5f}"]
            for name, (took, other) in found.items()
        ],
    )


# With the part of the time that each may take.
SECTIONS: dict[Callable[[Scale, str], None], float] = {
    tests: 0.27, training: 0.14, resume: 0.1, host_copies: 0.04, streams: 0.05, memory: 0.05,
    half: 0.06, curves: 0.1, rise: 0.07, gradcam: 0.07, chunks: 0.05,
}  # fmt: skip


def main() -> int:
    """Parse the command line, run the sections, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=[section.__name__ for section in SECTIONS])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    exit_after(LIMIT)
    scale, begin, failed = TINY if options.tiny else Scale(), time.perf_counter(), []
    print(f"{datetime.date.today()}, {options.device}, {machine()}")
    if options.tiny:
        print("Tiny sizes: one small net stands for all, and the times mean nothing.")
    end = 0.0
    for section, share in SECTIONS.items():
        name, at = section.__name__, time.perf_counter() - begin
        end += (LIMIT - MARGIN) * share
        if options.only not in (None, name):
            continue
        try:
            with cut_after(end - at):
                section(scale, options.device)
        except (Exception, OutOfTimeError):
            traceback.print_exc(file=sys.stdout)
            failed.append(name)
        print(f"\n{name}: {time.perf_counter() - begin - at:.1f} s", flush=True)
    print(f"\nfailed: {', '.join(failed) or 'none'}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
