"""How Sphinx builds the site."""

from __future__ import annotations

import sys
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import catalogue  # noqa: E402
import choices  # noqa: E402
import recipe_pages  # noqa: E402

import xcam  # noqa: E402

project = "xcam"
author = "The xcam developers"
version = release = xcam.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

default_role = "code"  # docstrings write `name`, as Markdown does
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature is short, and `Args:` says what a value is
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_attr_annotations = False
napoleon_custom_sections = [("Attributes", "params_style")]
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"xcam {version}"
html_show_sphinx = False

# These pages say what is registered, and which recipes there are, here and now.
(HERE / "generated").mkdir(exist_ok=True)
for name, page in (
    ("methods", catalogue.make_methods_page()),
    ("metrics", catalogue.make_metrics_page()),
    ("counterparts", catalogue.make_counterparts_page()),
    ("recipes", recipe_pages.recipes_page()),
):
    (HERE / "generated" / f"{name}.md").write_text(page, encoding="utf-8")

choices.write_tables(HERE / "generated" / "tables")


def keep_bars(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]):
    """Keeps |y|, an absolute value, from being read as a substitution."""
    lines[:] = [line.replace("|", r"\|") for line in lines]


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", keep_bars)
