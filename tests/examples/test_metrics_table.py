"""The table of metrics on photographs: the page holds what the file holds, for every metric."""

from pathlib import Path

import metrics_table
import pandas as pd

import xcam

DOCS = Path(__file__).parents[2] / "docs"


def test_metrics_page_shows_the_values_of_the_csv_file():
    """Of metrics that exist; those that were added since it was measured are not on it."""
    table = pd.read_csv(DOCS / "figures" / "metrics_on_photographs.csv")
    page = (DOCS / "numbers" / "metrics_on_photographs.md").read_text("utf-8")
    assert metrics_table.format_markdown(table) in page
    assert set(table["metric"]) <= set(xcam.list_metrics())


def test_boxes_and_classes_are_of_the_photographs():
    boxes = metrics_table.load_boxes()
    assert len(boxes) == len(metrics_table.CLASSES) == 6
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    assert ((boxes >= 0) & (boxes <= 224)).all()
