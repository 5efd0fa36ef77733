"""A training for several processes: `several.py OUT NAME…`, each name one of `TRAININGS`."""

import sys
from pathlib import Path

import torch
from trainings import Net, Noisy, plain

TRAININGS = {
    # The last step, of 3 images, is shared unequally; in `parts` some get none.
    "whole": {"batch_size": 5},
    "parts": {"batch_size": 5, "accumulate": 2},
    "options": {
        "batch_size": 6,
        "ema": {"decay": 0.5},
        "clip": 0.5,
        "schedule": {"name": "CosineAnnealingLR", "T_max": 12, "per": "step"},
        "groups": {"fc": {"lr_factor": 3}},
        "workers": 1,
    },
    "norms": {"batch_size": 5, "model": Net(), "validation": None},
}


def train(out, name, epochs=2):
    clean = Noisy(13, noise=0.0)
    arguments = {"validation": Noisy(7, seed=1, noise=0.0), "test": Noisy(1, noise=0.0)}
    return plain(clean, out=Path(out) / name, epochs=epochs, **arguments | TRAININGS[name])


if __name__ == "__main__":
    from xcam._evaluate.processes import launched

    torch.set_num_threads(1)
    out, *names = sys.argv[1:]
    for name in names:
        train(out, name, 1)
        net = train(out, name)  # goes on
        torch.save(net.state_dict(), Path(out) / f"{name}-{launched().rank}.pt")
    launched().part()
