"""Build a checkpoint in one weight format: a real architecture with random weights.

Needs only the engine's Python: torch, pydantic and the standard library.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from rollout_bench.checkpoints.build import build_checkpoint
from rollout_bench.checkpoints.formats import FORMATS
from rollout_bench.checkpoints.shapes import PRESETS, ResolvedShape, SyntheticModel, wrong_field
from rollout_bench.core.errors import UserError
from rollout_bench.core.options import Parser


def main(argv: Sequence[str]) -> int:
    """Build the checkpoint and print the result."""
    options = _parser().parse_args(argv)
    shape = read_shape(options.shape)
    built = build_checkpoint(shape, options.format, options.out, config_only=options.config_only)
    print(f"built {options.out}" if built else f"{options.out} is already there and whole; left alone")
    return 0


def read_shape(text: str) -> ResolvedShape:
    """Return the shape from a preset's name, or from a JSON object of `synthetic:` fields or of a complete shape.

    Raises:
        UserError: if the text is neither, or a field is invalid.
    """
    remedy = f'give a preset ({", ".join(PRESETS)}) or a JSON object such as \'{{"preset": "qwen3-tiny", "seed": 1}}\''
    try:
        fields = json.loads(text) if text.lstrip().startswith("{") else {"preset": text}
        known = SyntheticModel if "preset" in fields else ResolvedShape
        if known is ResolvedShape:
            return ResolvedShape.model_validate(fields)
        return SyntheticModel.model_validate(fields).resolve()
    except json.JSONDecodeError as error:
        raise UserError(f"--shape is not valid JSON: {error}", remedy) from error
    except ValidationError as error:
        raise UserError(f"--shape: {wrong_field(error, known)}", remedy) from error


def _parser() -> Parser:
    parser = Parser(
        prog="rollout-bench build", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shape",
        required=True,
        metavar="JSON|PRESET",
        help=f"a preset ({', '.join(PRESETS)}) or a JSON object of the fields under `synthetic:` in the config, or of "
        "a complete shape",
    )
    parser.add_argument("--format", required=True, help=f"weight format: {', '.join(FORMATS)}")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder to make; a complete one is not changed"
    )
    parser.add_argument("--config-only", action="store_true", help="write no weights: enough for load_format: dummy")
    return parser
