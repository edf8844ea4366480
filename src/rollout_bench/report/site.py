"""Hooks of mkdocs for the documentation's site: the reference tables become pages, and each names its version."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
from mkdocs.structure.files import File, Files

from rollout_bench import __version__


def on_config(config: Any) -> Any:
    """Say below each page which version it is for."""
    config["copyright"] = f"For rollout-bench {__version__}"
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add a page for each file of docs/reference that `make docs` writes."""
    for file in files.media_files():
        path = Path(file.src_uri)
        if path.suffix in (".csv", ".txt") and path.parent.name == "reference":
            page = f"---\nhide: [toc]\n---\n# {path.stem.capitalize()}\n\n{_content(Path(str(file.abs_src_path)))}\n"
            files.append(File.generated(config, str(path.with_suffix(".md")), content=page))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Link to the reference pages, and replace links to files outside of docs/ by their texts."""
    markdown = re.sub(r"\((reference/\w+)\.(?:csv|txt)\)", r"(\1.md)", markdown)
    return re.sub(r"(?<!!)\[([^]]+)\]\(\.\./[^)]*\)", r"\1", markdown)


def _content(path: Path) -> str:
    if path.suffix == ".txt":
        return f"```text\n{path.read_text()}```"
    table = pd.read_csv(path, dtype=str, keep_default_na=False).to_html(index=False, border=0, justify="left")
    return table.replace(' class="dataframe"', "")  # the theme scrolls and rules tables without a class
