"""Metrics with fewer passes than by default."""

import dataclasses

import xcam
from xcam.testing import quick

SETTINGS = {
    "fractions": (0.1, 0.5, 0.9), "n_segments": 16, "n_steps": 2, "step": 1 / 8, "steps": 4,
}  # fmt: skip


def make_coarse(name):
    metric = quick(xcam.get_metric(name)())
    known = metric.parameters()
    changes = {field: value for field, value in SETTINGS.items() if known.get(field) is not None}
    return dataclasses.replace(metric, **changes)
