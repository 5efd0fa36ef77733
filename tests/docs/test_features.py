"""The cells of the feature table, on the libraries that are installed here."""

from pathlib import Path

import features
import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "explanation" / "peers.md").read_text("utf-8")
CELLS = features.read_cells(PAGE.partition(features.MARKER)[2])
TITLES = [(section, title) for section, group in features.SECTIONS.items() for title in group]


def test_table_has_every_feature_and_library():
    assert [title for _, title in TITLES] == [title for title in CELLS if CELLS[title]["xcam"]]
    assert all(list(row) == list(features.PACKAGES) for row in CELLS.values())


@pytest.mark.parametrize("library", ["torchcam", "captum", "grad-cam"])
def test_cells_of_a_library_are_as_the_table_says(library):
    pytest.importorskip(features.PACKAGES[library])
    assert f" {library} {features.find_version(library)} " in PAGE, "run docs/features.py again"
    said = {title: CELLS[title][library] for _, title in TITLES}
    assert said == {title: features.probe(section, title, library) for section, title in TITLES}


def test_xcam_has_what_the_table_says():
    """It may have gained something since."""
    claimed = [(section, title) for section, title in TITLES if CELLS[title]["xcam"] == "yes"]
    assert [pair for pair in claimed if features.probe(*pair, "xcam") != "yes"] == []
