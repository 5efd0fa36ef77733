"""Metrics of sanity, robustness and axioms beside quantus and captum: the same work, interleaved.

`python benchmarks/sanity.py` prints a table of times and ratios; `--only randomization` makes a
part of it, `--rounds 5` repeats it, `--images 8 --size 64` makes it larger, `--device cuda` runs on
an accelerator. Each library explains by the plain gradient and makes as many passes.

quantus is no extra of the package: its opencv-python and our headless build share their files.
What it is compared with is left out unless a folder on the path has it:
`pip install --no-deps --target FOLDER quantus==0.6.0 cachetools`.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from explain import median, net, pictures, rows, title
from timing import interleave, machine, ratio
from torch import Tensor, nn

import xcam
from xcam.core import Metric
from xcam.metrics import MPRT, EfficientMPRT, RandomLogit

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
        images = torch.as_tensor(inputs).float().to(self.device).detach().clone().requires_grad_()
        classes = torch.as_tensor(targets).long().to(self.device)
        scores = model(images).gather(1, classes[:, None])
        (gradients,) = torch.autograd.grad(scores.sum(), images)
        return gradients.sum(1, keepdim=True).cpu().numpy()


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


SECTIONS: dict[str, Callable[[Subject], Pairs]] = {"randomization": randomization}


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
