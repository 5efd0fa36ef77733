"""Work for several processes: `several.py OUT NAME…`, then the arguments of a command of xcam.

Each name is one of `TRAININGS`. All in one launch, since it takes processes seconds to start.
"""

import sys
from pathlib import Path
from typing import ClassVar

import torch
from evaluations import NET, Pictures
from multi_label import ColorNet, Colors
from retrainings import roar
from trainings import Net, Noisy, plain

import xcam
from xcam.cli import app
from xcam.methods import CALM


class Spare(Net):
    """Has a layer that the loss does not use, and notes what it could draw in training."""

    drawn: ClassVar[list[float]] = []

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.spare = torch.nn.LayerNorm(3)

    def forward(self, images):
        if self.training and torch.is_grad_enabled():
            self.drawn.append(float(torch.rand((), dtype=torch.float64)))
        return super().forward(images)


TRAININGS = {
    # The last step, of 3 images, is shared unequally; in `parts` some get none.
    "whole": {"batch_size": 5},
    "parts": {"batch_size": 5, "accumulate": 2},
    # The processes' shares of a step, and its parts, have other sums of weights.
    "weighted": {
        "batch_size": 5,
        "accumulate": 2,
        "criterion": torch.nn.CrossEntropyLoss(weight=torch.tensor([1.0, 20.0, 0.1])),
    },
    "options": {
        "batch_size": 6,
        "ema": {"decay": 0.5},
        "clip": 0.5,
        "schedule": {"name": "CosineAnnealingLR", "T_max": 12, "per": "step"},
        "groups": {"fc": {"lr_factor": 3}},
        "workers": 1,
    },
    "spare": {"batch_size": 5, "accumulate": 2, "model": Spare(plain=True)},
    "lagged": {
        "batch_size": 5,
        "accumulate": 2,
        "model": Net(plain=True),
        "method": CALM(posterior="lagged", lag=0.5),
    },
    # The last batch of the validation images, of 2, is shared, too.
    "labels": {
        "batch_size": 5,
        "model": ColorNet(norm=False),
        "data": Colors(13),
        "validation": Colors(7, seed=1),
        "test": Colors(9, seed=2),
    },
    "norms": {"batch_size": 5, "model": Net(), "validation": None},
}


def train(out, name, epochs=2):
    clean, validation, test = Noisy(13, noise=0.0), Noisy(7, seed=1, noise=0.0), Noisy(1, noise=0.0)
    arguments = {"data": clean, "validation": validation, "test": test}
    return plain(out=Path(out) / name, epochs=epochs, **arguments | TRAININGS[name])


if __name__ == "__main__":
    from xcam.runs.processes import get_processes

    torch.set_num_threads(1)
    out, *command = sys.argv[1:]
    while command[0] in TRAININGS:
        name = command.pop(0)
        train(out, name, 1)
        net = train(out, name)  # goes on
        torch.save(net.state_dict(), Path(out) / f"{name}-{get_processes().rank}.pt")
    roar(Path(out) / "roar", repeats=2)
    torch.save(Spare.drawn, Path(out) / f"drawn-{get_processes().rank}.pt")
    xcam.evaluate(NET, Pictures(7), "gradcam", "sparseness", dry_run=True)
    app(command)
