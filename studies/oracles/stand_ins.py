"""What stands in place of vLLM where a trainer's own code runs without it, and how a command line is read."""

import dataclasses
import importlib.abc
import importlib.machinery
import itertools
import json
import sys
import types
from collections.abc import Collection, Iterator, Mapping
from typing import Any


class Kept(Exception):  # noqa: N818
    """The trainer's code has come as far as it is needed; what it would hand on are the exception's arguments."""


class Anything:
    """Stand-in for whatever a package has."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __await__(self) -> Iterator[None]:
        yield from ()

    def __class_getitem__(cls, _: Any) -> type:
        return cls


class Open(type):
    """Class of stand-ins: each attribute is a stand-in, too."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything


class Standing(types.ModuleType):
    """Module in which every name is a class of its own."""

    __path__ = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        setattr(self, name, Open(name, (Anything,), {}))
        return getattr(self, name)


@dataclasses.dataclass
class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds each module of the packages as a `Standing` one, with the version and with known names."""

    packages: Collection[str]
    version: str
    known: Mapping[str, Any]

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname.partition(".")[0] in self.packages:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> types.ModuleType:
        return Standing(spec.name)

    def exec_module(self, module: Any) -> None:
        module.__version__ = self.version
        for name, one in self.known.items():
            setattr(module, name, one)


def stand_in(packages: Collection[str], version: str, **known: Any) -> None:
    """Let every import from the packages succeed; `known` are names that each of their modules has."""
    sys.meta_path.insert(0, Finder(packages, version, known))


def read_command_line(words: list[str]) -> dict[str, Any]:
    """Return argument -> value: --no-NAME is false, a name without a value true, JSON is read."""
    found: dict[str, Any] = {}
    starts = [index for index, word in enumerate(words) if word.startswith("--")]
    for start, end in itertools.pairwise([*starts, len(words)]):
        flag, *values = words[start:end]
        name = flag.removeprefix("--")
        read = [_json(value) for value in values]
        found[name.removeprefix("no-").replace("-", "_")] = (
            not name.startswith("no-") if not read else read[0] if len(read) == 1 else read
        )
    return found


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return {"True": True, "False": False}.get(text, text)
