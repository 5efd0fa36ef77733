"""Metrics of sanity, robustness and axioms beside quantus and captum: the same work, interleaved.

`python benchmarks/sanity.py` prints a table of times and ratios; `--only randomization` makes a
part of it, `--rounds 5` repeats it, `--images 8 --size 64` makes it larger, `--device cuda` runs on
an accelerator. Each library explains by the plain gradient and makes as many passes.

quantus is no extra of the package: its opencv-python and our headless build share their files.
What it is compared with is left out unless a folder on the path has it:
`pip install --no-deps --target FOLDER quantus==0.6.0 cachetools`, and PAIR's `saliency==0.2.1`.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import captum.metrics
import numpy as np
import torch
from explain import median, net, pictures, rows, title
from timing import interleave, machine, ratio
from torch import Tensor, nn

import xcam
from xcam.core import Metric
from xcam.metrics import (
    MPRT,
    SIC,
    Continuity,
    EfficientMPRT,
    FaithfulnessCorrelation,
    FaithfulnessEstimate,
    Infidelity,
    LocalLipschitz,
    MaxSensitivity,
    RandomLogit,
    RelativeInputStability,
    RelativeOutputStability,
)
from xcam.metrics.removal.pic import draw_pixels

Candidate = Callable[[], object]
CLASS = 3


@dataclass(frozen=True)
class Subject:
    """What is scored: ResNet-18 with random weights, and smooth noise."""

    model: nn.Module
    images: Tensor
    device: str

    def score(self, metric: Metric) -> Candidate:
        """Return what explains the images by the gradient, and scores the maps."""
        method = xcam.get_method("saliency")(reduce="sum")

        def run() -> Tensor:
            explanation = xcam.explain(self.model, self.images, CLASS, method)
            return metric.score(self.model, self.images, explanation)

        return run

    def ask_quantus(self, name: str, **settings: object) -> Candidate:
        """Return what explains the images by the gradient, and scores the maps by quantus."""
        import quantus

        metric = getattr(quantus, name)(disable_warnings=True, **settings)
        classes = np.full(len(self.images), CLASS)
        arrays = {"x_batch": self.images.cpu().numpy(), "y_batch": classes, "device": self.device}
        return lambda: metric(self.model, **arrays, explain_func=self.explain)

    def explain(
        self, model: nn.Module, inputs: np.ndarray, targets: np.ndarray, **_: object
    ) -> np.ndarray:
        """Return the gradients as quantus wants them, (B, 1, H, W)."""
        images = torch.as_tensor(inputs).float().to(self.device)
        classes = torch.as_tensor(targets).long().to(self.device)
        return differentiate(model, images, classes).cpu().numpy()


def differentiate(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Return the gradients at images of a class each, summed over channels, (B, 1, H, W)."""
    with torch.enable_grad():
        images = images.detach().clone().requires_grad_()
        scores = model(images).gather(1, classes[:, None])
        (gradients,) = torch.autograd.grad(scores.sum(), images)
    return gradients.sum(1, keepdim=True)


Pairs = Iterator[tuple[str, Candidate, Candidate]]
"""What is measured, xcam's way and the other's."""


def randomization(subject: Subject) -> Pairs:
    """Yield the tests of random weights, a module at a time, and of random classes."""
    if importlib.util.find_spec("quantus") is None:
        return
    theirs = subject.ask_quantus
    yield "MPRT, top-down", subject.score(MPRT(n_steps=None)), theirs("MPRT")
    independent = MPRT("independent", n_steps=None)
    yield (
        "MPRT, independent",
        subject.score(independent),
        theirs("MPRT", layer_order="independent"),
    )
    yield "Efficient MPRT", subject.score(EfficientMPRT()), theirs("EfficientMPRT")
    ranks = subject.score(RandomLogit())
    yield "Random Logit", ranks, theirs("RandomLogit", num_classes=1000)


def neighbors(subject: Subject) -> Pairs:
    """Yield Max-Sensitivity and infidelity beside captum's, each of ten copies."""
    model, images = subject.model, subject.images
    classes = torch.full((len(images),), CLASS, device=images.device)

    def explain(inputs: tuple[Tensor, ...] | Tensor, target: Tensor) -> object:
        # The clean images come as a tuple of one, the copies as they are; so must their maps.
        if isinstance(inputs, Tensor):
            return differentiate(model, inputs, target)
        return (differentiate(model, inputs[0], target),)

    def measure_sensitivity() -> Tensor:
        return captum.metrics.sensitivity_max(explain, images, target=classes)

    def perturb(inputs: Tensor) -> tuple[Tensor, Tensor]:
        noise = 0.2 * torch.randn_like(inputs)
        return noise, inputs - noise

    def measure_infidelity() -> Tensor:
        maps = differentiate(model, images, classes).expand_as(images)
        settings = {"target": classes, "n_perturb_samples": 10, "normalize": True}
        return captum.metrics.infidelity(model, perturb, images, maps, **settings)

    ours = subject.score(MaxSensitivity(n_samples=10, radius=0.02))
    yield "Max-Sensitivity (captum)", ours, measure_sensitivity
    ours = subject.score(Infidelity(perturbation="noise", n_samples=10))
    yield "Infidelity (captum)", ours, measure_infidelity


def robustness(subject: Subject) -> Pairs:
    """Yield the metrics of ten noisy copies, or of eight shifts."""
    if importlib.util.find_spec("quantus") is None:
        return
    few, samples = {"n_samples": 10, "radius": 0.02}, {"nr_samples": 10}
    gaussian = LocalLipschitz(noise="gaussian", radius=0.1, n_samples=10, normalize=True)
    stability = RelativeInputStability(**few), RelativeOutputStability(**few)
    for what, metric, name, settings in (
        ("Max-Sensitivity", MaxSensitivity(**few), "MaxSensitivity", samples),
        ("Local Lipschitz estimate", gaussian, "LocalLipschitzEstimate", samples),
        ("Relative input stability", stability[0], "RelativeInputStability", samples),
        ("Relative output stability", stability[1], "RelativeOutputStability", samples),
        ("Continuity", Continuity(n_steps=8), "Continuity", {"nr_steps": 8}),
    ):
        yield what, subject.score(metric), subject.ask_quantus(name, **settings)


def pixels(subject: Subject) -> Pairs:
    """Yield correlations of removed pixels, and an information curve.

    Quantus' NonSensitivity fails but for single elements, thousands of passes an image.
    """
    size = subject.images.shape[-1]
    if importlib.util.find_spec("quantus") is not None:
        theirs = subject.ask_quantus
        yield (
            "Faithfulness correlation, 28 subsets",
            subject.score(FaithfulnessCorrelation(size=224, n_samples=28)),
            theirs("FaithfulnessCorrelation", nr_runs=28, subset_size=224),
        )
        # quantus takes numbers of elements, of three channels, that divide the number of pixels.
        yield (
            "Faithfulness estimate, 96 parts",
            subject.score(FaithfulnessEstimate(step=1 / 96)),
            theirs("FaithfulnessEstimate", features_in_step=size**2 // 32),
        )
    if importlib.util.find_spec("saliency") is not None:
        yield "Softmax information curve", subject.score(SIC()), _ask_saliency(subject)


def _ask_saliency(subject: Subject) -> Candidate:
    """Return what explains the images by the gradient, and makes PAIR's curves of them."""
    from saliency.metrics import pic

    vars(np).setdefault("trapz", np.trapezoid)  # which NumPy has no more, and PAIR calls
    scaled = (subject.images.clamp(0, 1) * 255).round().byte()
    pictures_of_bytes = scaled.permute(0, 2, 3, 1).cpu().numpy()
    size = subject.images.shape[-1]

    def predict(batch: np.ndarray) -> np.ndarray:
        images = torch.tensor(batch, device=subject.device).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            return subject.model(images).softmax(1)[:, CLASS].cpu().numpy()

    def run() -> None:
        maps = subject.explain(subject.model, subject.images, np.full(len(subject.images), CLASS))
        for picture, (one,) in zip(pictures_of_bytes, maps, strict=True):
            seen = draw_pixels(0, size * size, 0.01).view(size, size).numpy()
            with suppress(pic.ComputePicMetricError):  # without a curve, before most of the work
                pic.compute_pic_metric(picture, one, seen, predict, SIC().fractions, 0)

    return run


SECTIONS: dict[str, Callable[[Subject], Pairs]] = {
    "randomization": randomization,
    "neighbors": neighbors,
    "robustness": robustness,
    "pixels": pixels,
}


def main() -> None:
    """Parse the command line and time the sections."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=SECTIONS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    print(f"{datetime.date.today()}, {machine()}")
    images = pictures(options.images, options.device, options.size)
    subject = Subject(net("resnet18", options.device), images, options.device)

    def measure() -> Iterator[list[str]]:
        for name in [options.only] if options.only else SECTIONS:
            for what, ours, other in SECTIONS[name](subject):
                times = interleave({"xcam": ours, "other": other}, options.rounds)
                seconds = [f"{median(times[one]):.3f}" for one in ("xcam", "other")]
                yield [what, *seconds, str(ratio(times["xcam"], times["other"]))]

    size = f"{options.images} images of {options.size} pixels a side"
    title(f"Sanity, robustness and axioms, ResNet-18, {size}, {options.rounds} rounds")
    rows(["metric", "xcam, s", "other, s", "ratio"], list(measure()))


if __name__ == "__main__":
    main()
