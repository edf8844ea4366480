"""Colours of answers on a terminal."""

from rich.console import Console
from rich.text import Text

STYLES = {
    r"(?m)^Conclusion.*$": "bold",
    r"[\d.]+x \^": "green",
    r"[\d.]+x v(?= |$)": "red",
    r"[\d.]+x [~?]": "yellow",
    r"(?m)(?<=^  )[^- ].* as fast as .*$": "bold",
    r"(?m)(?<=^  - )(In doubt|The machine was disturbed).*$": "yellow",
    r"(?m)(?<=^  - )rollout-bench .*$": "cyan",
}
"""Regular expression -> style of what it matches in an answer."""


def print_answer(text: str) -> None:
    """Print an answer to stdout: coloured on a terminal, as it is elsewhere."""
    shown = Text(text)
    for pattern, style in STYLES.items():
        shown.highlight_regex(pattern, style)
    Console(soft_wrap=True, highlight=False).print(shown, end="")
