"""Write the pages that say what is registered, exported and included, here and now."""

from __future__ import annotations

from pathlib import Path

import api_pages
import catalogue
import choices
import command_line
import entries
import gallery
import recipe_pages


def write_pages(folder: Path) -> None:
    """Write the pages; one that is as it was is left alone, so that it is not built again."""
    pages = {
        "methods": catalogue.make_methods_page(),
        "metrics": catalogue.make_metrics_page(),
        "counterparts": catalogue.make_counterparts_page(),
        "recipes": recipe_pages.recipes_page(),
        "command_line": command_line.make_command_line_page(),
        **gallery.make_gallery_pages(),
        **entries.make_entries(),
        **api_pages.make_api_pages(),
    }
    for path in folder.rglob("*.md"):
        if str(path.relative_to(folder).with_suffix("")) not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text("utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    choices.write_tables(folder / "tables")
