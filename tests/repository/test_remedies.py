"""A remedy may name a file that the user made, so none of them destroys a file: what is moved away can come back."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import rollout_bench

SOURCE = Path(rollout_bench.__file__).parent
DESTROYS = re.compile(r"\b(delete|erase|rm)\b|\bremove (it|the (file|folder|link))\b(?! from| with)")


def spoken(file: Path) -> Iterator[str]:
    """Yield the texts of a module or template, without docstrings."""
    content = file.read_text()
    if file.suffix != ".py":
        yield content
        return
    tree = ast.parse(content)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def test_no_remedy_destroys_a_file():
    files = [file for kind in ("py", "j2") for file in SOURCE.rglob(f"*.{kind}")]
    assert len(files) > 100
    found = [f"{file}: {text}" for file in files for text in spoken(file) if DESTROYS.search(text)]
    assert found == []
