"""One image: Grad-CAM on nets of many kinds, and Eigen-CAM; methods of many passes: `explain.py`.

`python benchmarks/one_image.py` prints its tables of `RESULTS.md`, in minima of interleaved rounds
over a bare forward in channels_last; `--rounds 5` shortens it, `--threads 1` is what is printed.
`--only first_calls` measures first calls alone, with `PYTHONPATH` those of another version.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import time
from collections.abc import Callable
from functools import partial

import torch
import torchvision
from explain import TARGET, bare, pictures, rows, title
from timing import interleave, machine, seconds
from torch import Tensor, nn

import xcam
from xcam.models import default_layer

Candidate = Callable[[], object]


def make_net(name: str) -> nn.Module:
    """Make a seeded net in eval mode, of torchvision, timm or xcam."""
    torch.manual_seed(0)
    if name.startswith("timm:"):
        import timm

        model: nn.Module = timm.create_model(name.removeprefix("timm:"), pretrained=False)
    elif name.startswith("xcam:"):
        model = xcam.models.load(name, depth=20).model
    else:
        model = torchvision.models.get_model(name, weights=None)
    return model.eval()


# Name, title, the side of the images, and how grad-cam is told to read the layer.
NETS: tuple[tuple[str, str, int, Callable[[Tensor], Tensor] | None], ...] = (
    ("resnet50", "ResNet-50", 224, None),
    ("mobilenet_v3_large", "MobileNetV3-L", 224, None),
    ("efficientnet_b0", "EfficientNet-B0", 224, None),
    (
        "timm:vit_small_patch16_224",
        "ViT-S",
        224,
        lambda tokens: tokens[:, 1:].mT.unflatten(2, (14, 14)),
    ),
    ("swin_t", "Swin-T", 224, lambda features: features.permute(0, 3, 1, 2)),
    ("xcam:cifar_resnet", "ResNet-20, 32 px", 32, None),
)


def make_candidates(
    name: str, side: int, reshape: Callable[[Tensor], Tensor] | None
) -> dict[str, Candidate]:
    """Return Grad-CAM by each library on one image, and the bare forward."""
    import pytorch_grad_cam as grad_cam
    import torchcam.methods
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model = make_net(name)
    images = pictures(1, "cpu")[..., :side, :side].contiguous()
    layer = default_layer(model, images)
    candidates = {
        "bare forward": partial(bare, model, images, 1, 1, True),
        "xcam": lambda: xcam.explain(model, images, TARGET, "gradcam"),
        "xcam, layer named": lambda: xcam.explain(model, images, TARGET, "gradcam", layer=layer),
    }
    copied = copy.deepcopy(model)  # peers leave hooks on their net
    target_layers = [copied.get_submodule(layer)]
    theirs = grad_cam.GradCAM(copied, target_layers, reshape_transform=reshape)
    candidates["grad-cam"] = lambda: theirs(images, [ClassifierOutputTarget(TARGET)])
    if reshape is None:  # torch-cam reads maps of (B, C, h, w) alone
        other = copy.deepcopy(model)
        extractor = torchcam.methods.GradCAM(other, layer)

        def run_torchcam() -> None:
            extractor(TARGET, other(images))

        candidates["torch-cam"] = run_torchcam
    return candidates


def compare_gradcam(rounds: int) -> None:
    """Print Grad-CAM's time on one image over that of a forward, for each net."""
    names = ("xcam, first call", "xcam", "xcam, layer named", "torch-cam", "grad-cam")
    table: dict[str, list[str]] = {name: [name] for name in names}
    for name, heading, side, reshape in NETS:
        times = interleave(make_candidates(name, side, reshape), rounds)
        best = {candidate: min(found) for candidate, found in times.items()}
        best["xcam, first call"] = min(time_first_call(name, side) for _ in range(3))
        for row in names:
            found = f"{best[row] / best['bare forward']:.2f}" if row in best else "–"
            table[row].append(found)
        print(f"  {heading}", flush=True)
    title(f"Grad-CAM on one image, time over a bare forward, minima of {rounds} rounds")
    rows(["", *(heading for _, heading, _, _ in NETS)], list(table.values()))


def time_first_call(name: str, side: int) -> float:
    """Time the first call on a net, which searches its default layer."""
    model, images = make_net(name), pictures(1, "cpu")[..., :side, :side].contiguous()
    bare(model, images, 1, 1, True)
    start = time.perf_counter()
    xcam.explain(model, images, TARGET, "gradcam")
    return time.perf_counter() - start


def measure_first_calls(rounds: int) -> None:
    """Print the milliseconds of a first call on a net, and of later ones."""
    title(f"Milliseconds of a first call on a net, and of later ones, minima of {rounds} rounds")
    body = []
    for name, heading, side, _ in NETS:
        net, images = make_net(name), pictures(1, "cpu")[..., :side, :side].contiguous()
        first, later = [], []
        for _ in range(1 + rounds):  # the first imports parts of torch
            model = copy.deepcopy(net)
            bare(model, images, 1, 1, True)
            run = partial(xcam.explain, model, images, TARGET, "gradcam")
            first.append(seconds(run))
            later += [seconds(run) for _ in range(3)]
        found = min(first[1:]), min(later)
        body.append([heading, *(f"{1000 * took:.1f}" for took in found)])
    rows(["", "first", "later"], body)


def compare_eigencam(rounds: int) -> None:
    """Print Eigen-CAM's time, which needs no gradient, over that of a forward."""
    import pytorch_grad_cam as grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, images = make_net("resnet50"), pictures(1, "cpu")
    copied = copy.deepcopy(model)  # peers leave hooks on their net
    theirs = grad_cam.EigenCAM(copied, [copied.layer4])
    times = interleave(
        {
            "bare forward": partial(bare, model, images, 1, 1, True),
            "xcam": lambda: xcam.explain(model, images, TARGET, "eigencam"),
            "grad-cam": lambda: theirs(images, [ClassifierOutputTarget(TARGET)]),
        },
        rounds,
    )
    best = {name: min(found) for name, found in times.items()}
    title(f"Eigen-CAM on one image, ResNet-50, time over a bare forward, minima of {rounds} rounds")
    rows(
        ["", "time"],
        [[name, f"{best[name] / best['bare forward']:.2f}"] for name in ("xcam", "grad-cam")],
    )


SECTIONS = {
    "gradcam": compare_gradcam,
    "eigencam": compare_eigencam,
    "first_calls": measure_first_calls,
}


def main() -> None:
    """Parse the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=SECTIONS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{datetime.date.today()}, {machine()}")
    for name, section in SECTIONS.items():
        if options.only in (None, name):
            section(options.rounds)


if __name__ == "__main__":
    main()
