"""JSON files of one validated object each. Writing is atomic; reading errors name the file and the field."""

import errno
import io
import json
import os
import stat
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from rollout_bench.core.errors import UserError, near_miss

Model = TypeVar("Model", bound=BaseModel)


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically: temporary file, fsync, rename.

    A link stays, and the file that it leads to is written; an earlier file's permissions stay. A device or a pipe is
    written into.

    Raises:
        UserError: if the file system refuses. `path` is then unchanged and the temporary file is removed.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        target = path.resolve() if path.is_symlink() else path
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if target.exists() and not target.is_file():
            target.write_bytes(content)
            return
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                if target.is_file():
                    os.fchmod(file.fileno(), target.stat().st_mode & 0o7777)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        remedy = "check the folder's owner and permissions"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "free some space, then run the same command again: what was measured before is kept"
        raise UserError(f"{path}: cannot be written: {error.strerror}", remedy) from None


def write_archive(path: Path, contents: Mapping[str, bytes]) -> None:
    """Write files, name -> content, to `path` atomically as a tar.xz without owners and times."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:xz") as file:
        for name, content in sorted(contents.items()):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    write_whole(path, written.getvalue())


def private_temporary() -> Path | None:
    """Return a folder below the temporary folder that other users cannot have filled; None if there is none."""
    folder = Path(tempfile.gettempdir()) / f"rollout-bench-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()  # once, so that nobody can swap the folder between two looks
        is_private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o022
        return folder if is_private and status.st_uid == os.getuid() else None
    except OSError:
        return None


def folder_named(text: str) -> Path:
    """Return the folder that an option --out names; raise `UserError` if the name is empty."""
    if not text.strip():
        raise UserError("--out: is empty", "name a folder; . is the current one")
    return Path(text)


def did_you_mean_folder(path: Path) -> str | None:
    """Return a remedy that names an existing folder with a similar path; None if there is no such folder.

    The two paths differ in one name.
    """
    missing = next((each for each in (path, *path.parents) if each.parent.is_dir()), path)
    close = near_miss(missing.name, [other.name for other in missing.parent.glob("*/")])
    meant = missing.parent / close / path.relative_to(missing) if close else None
    return f"did you mean '{meant}'?" if meant and meant.is_dir() else None


def write_json(path: Path, content: BaseModel) -> None:
    """Write `content` as JSON with `write_whole`."""
    write_whole(path, json_text(content).encode())


def json_text(content: BaseModel) -> str:
    """Return `content` as JSON in the layout of our files."""
    return json.dumps(content.model_dump(mode="json"), indent=1) + "\n"


def read_model(path: Path, model: type[Model], remedy: str) -> Model:
    """Read and validate the JSON file at `path`.

    Args:
        remedy: what the user should do if the file is damaged or missing.

    Raises:
        UserError: if the file can't be read, is not JSON, has another schema version, or does not validate. The error
            names the file and the field.
    """
    return validated(path, read_json(path, remedy), model, remedy)


def read_regular(path: Path, remedy: str) -> bytes:
    """Return the content of a file; raise `UserError` if it can't be read or never ends, as a pipe or /dev/zero."""
    try:
        if not path.is_file() and path.exists() and not path.is_dir():
            raise UserError(f"{path}: cannot be read: it is not a regular file", remedy)
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}", remedy) from None


def read_json(path: Path, remedy: str) -> Any:
    """Return the content of the JSON file at `path`.

    Raises:
        UserError: it can't be read, is not JSON, or has a number beyond `LEAST` and `MOST`.
    """

    def bounded(text: str) -> float:
        value = float(text)
        if value and not LEAST < abs(value) < MOST:
            raise UserError(f"{path}: has {text}, which nothing here measures", remedy)
        return value

    try:
        return json.loads(read_regular(path, remedy), parse_float=bounded)
    except RecursionError:
        raise UserError(f"{path}: is not valid JSON: it is nested too deeply", remedy) from None
    except ValueError as error:
        raise UserError(f"{path}: is not whole JSON: {error}", remedy) from None


MOST, LEAST = 1e15, 1e-30
"""Bounds of the size of a number with a fraction that is not 0; nothing measured here is near them."""


def validated(path: Path, content: Any, model: type[Model], remedy: str) -> Model:
    """Return `content`, read from `path`, as a `model`; raise a `UserError` with file and field if it is invalid."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        errors = error.errors()
        first = next((e for e in errors if e["loc"] == ("schema_version",)), errors[0])
        where = ".".join(str(part) for part in first["loc"]) or "file"
        if where == "schema_version" and first["type"] == "literal_error":
            expected = first.get("ctx", {}).get("expected")
            raise UserError(
                f"{path}: schema_version: is {first['input']!r}, this version reads {expected}",
                f"read it with the version that wrote it, or {remedy}",
            ) from None
        raise UserError(f"{path}: {where}: {first['msg']}", remedy) from None
