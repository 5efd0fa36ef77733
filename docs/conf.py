"""How Sphinx builds the site."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import generate  # noqa: E402
import inventories  # noqa: E402

import xcam  # noqa: E402

project = "xcam"
author = "The xcam developers"
version = release = xcam.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.linkcode",
    "sphinx_copybutton",
    "docstrings",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
add_module_names = False  # headings of the API pages say the module
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

default_role = "code"  # docstrings write `name`, as Markdown does
autodoc_member_order = "bysource"
autodoc_typehints = "description"  # the signature stays short
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_attr_annotations = False
napoleon_custom_sections = [("Attributes", "params_style")]
napoleon_use_rtype = False

html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"xcam {version}"
html_show_sphinx = False
html_show_copyright = False
smartquotes = False  # docstrings quote values
html_copy_source = False
html_static_path = ["static"]
html_css_files = ["site.css"]
html_theme_options = {
    "source_repository": "https://github.com/xcam-dev/xcam/",
    "source_branch": "main",
    "source_directory": "docs/",
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
intersphinx_mapping = inventories.write_inventories(HERE / "generated" / "inventories")

generate.write_pages(HERE / "generated")


def linkcode_resolve(domain: str, info: dict[str, str]) -> str | None:
    """Return where the source of a documented object is, in the repository."""
    try:
        thing = sys.modules[info["module"]]
        for name in info["fullname"].split("."):
            thing = getattr(thing, name)
        thing = inspect.unwrap(thing.fget if isinstance(thing, property) else thing)
        path = Path(inspect.getsourcefile(thing)).relative_to(HERE.parent)
        first = inspect.getsourcelines(thing)[1]
    except (KeyError, AttributeError, TypeError, ValueError, OSError):
        return None  # an attribute of an instance, a constant, or not ours
    return f"https://github.com/xcam-dev/xcam/blob/main/{path}#L{first}"


def hide_edit_link(
    app: Sphinx, page: str, template: str, context: dict[str, object], doctree: object
) -> None:
    """Offer no edit of a page that is made from the code; its classes link to their source."""
    if page.startswith("generated/"):
        context["page_source_suffix"] = ""


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("html-page-context", hide_edit_link)
