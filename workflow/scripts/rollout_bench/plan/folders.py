"""What a run keeps in its folder, looked at before Snakemake does, which would end with a traceback."""

from __future__ import annotations

from pathlib import Path

from rollout_bench.core.errors import UserError


def check_folder(folder: Path) -> None:
    """Raise `UserError` where something else stands in the place of a folder that the workflow needs."""
    if folder.is_symlink() and not folder.exists():
        raise UserError(
            f"{folder}: is a link to {folder.readlink()}, which does not exist",
            "make that folder (is its disk mounted?), or remove the link",
        )
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file, and the workflow needs a folder of that name", "move it away")


def check_metadata(folder: Path) -> None:
    """Raise `UserError` for a damaged file that Snakemake would end on with a traceback."""
    for path in folder.glob("*"):
        try:
            path.read_bytes().decode() if path.is_file() else None
        except OSError:  # gone meanwhile: another run ends a job
            continue
        except UnicodeDecodeError:
            remedy = (
                f"rm -r {folder}: Snakemake's notes on how files were made; results stay, nothing is measured again"
            )
            raise UserError(f"{path}: is damaged", remedy) from None
