"""The summary as a page for a browser and for Snakemake's report, which shows HTML and only offers Markdown to save."""

from __future__ import annotations

from markdown_it import MarkdownIt

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 75em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: 1em 0 }
th, td { padding: .3em .8em; border-bottom: 1px solid #ddd; font-variant-numeric: tabular-nums }
th { border-bottom-color: #888 }
blockquote { border-left: 4px solid #d55e00; margin: 1em 0; padding: 0 1em }
"""


def page(markdown: str) -> str:
    """A whole HTML page, with nothing to load from elsewhere, for a summary in Markdown."""
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    title = "Rollout benchmark"
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )
