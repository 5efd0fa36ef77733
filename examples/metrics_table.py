"""Metrics on real photographs: six pictures, a real ImageNet classifier, boxes drawn by hand.

    python examples/metrics_table.py --out runs/photographs

prints a table and writes it as CSV. The rows go to the folder; stopped, it goes on with it. Six
photographs show how the metrics are used and what they cost; they rank no method.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from demo import PHOTOGRAPHS, load_photographs
from torch import Tensor

import xcam
from xcam.core import Method
from xcam.models import Normalized

# The class of each, or the nearest that ImageNet has.
CLASSES = {
    "cat": "Egyptian cat",
    "coffee": "espresso",
    "motorcycle": "moped",
    "rocket": "missile",
    "pavilion": "palace",
    "flower": "daisy",
}

METHODS: dict[str, Method] = {
    "gradcam": xcam.get_method("gradcam")(),
    "gradcam_plusplus": xcam.get_method("gradcam_plusplus")(),
    "layercam": xcam.get_method("layercam")(),
    "rise": xcam.get_method("rise")(n_masks=500, estimator="centered", sampling="balanced"),
    "integrated_gradients": xcam.get_method("integrated_gradients")(),
}


def load_boxes() -> Tensor:
    """Return the objects, (B, 4) in the 224 × 224 input: left, top, right, bottom, in pixels."""
    drawn = json.loads((Path(__file__).parent / "boxes.json").read_text("utf-8"))
    return torch.tensor([drawn[name]["box"] for name in PHOTOGRAPHS]).float()


def load_labels(model: Normalized) -> Tensor:
    """Return the classes of the photographs, (B,) int64."""
    return torch.tensor([model.categories.index(CLASSES[name]) for name in PHOTOGRAPHS])


def score(model: Normalized, metrics: Sequence[str], out: Path) -> pd.DataFrame:
    """Return the table of all methods and the controls; see `xcam.Results.table`."""
    truth = zip(
        load_photographs(224).split(1),
        load_labels(model).split(1),
        load_boxes().split(1),
        strict=True,
    )
    results = xcam.evaluate(
        model, list(truth), METHODS, metrics, target="label", out=out, progress=True
    )
    return results.table()


def format_markdown(table: pd.DataFrame) -> str:
    """Return a table in Markdown: a line a metric, a column a method, the controls last."""
    methods = [*METHODS, *sorted(table[table["control"].astype(bool)]["method"].unique())]
    lines = [f"| metric | | {' | '.join(f'`{name}`' for name in methods)} |"]
    lines.append(f"|---|---|{'---:|' * len(methods)}")
    arrows = {"higher": "↑", "lower": "↓", "neither": ""}
    for metric, part in table.groupby("metric"):
        values = part.set_index("method")["value"]
        shown = " | ".join(f"{values[name]:.3g}" for name in methods)
        lines.append(f"| `{metric}` | {arrows[part['direction'].iloc[0]]} | {shown} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the rows")
    parser.add_argument("--csv", type=Path, help="where to write the table as well")
    asked = ("faithfulness", "localization", "shape")  # others explain each image many times
    default = [m for m in xcam.list_metrics() if xcam.get_metric(m).spec.question in asked]
    parser.add_argument("--metrics", nargs="+", default=default, help="their names")
    options = parser.parse_args(arguments)
    model = xcam.models.load("xcam:efficientnet_lite0", weights="DEFAULT")
    table = score(model, options.metrics, options.out)
    columns = ["metric", "direction", "method", "control", "value", "low", "high", "n", "errors"]
    if options.csv:
        table[columns].to_csv(options.csv, index=False, float_format="%.6g")
    print(format_markdown(table))


if __name__ == "__main__":
    main()
