"""Base class of every model that is read from a file, and validated types of values."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

_Model = TypeVar("_Model", bound=BaseModel)
_Value = TypeVar("_Value")


class Strict(BaseModel):
    """Base of all models that are read from a file: no unknown fields, immutable values, finite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def to(self, model: type[_Model], **more: Any) -> _Model:
        """Return a validated `model` with the fields that it shares with this one; `more` replaces and adds fields."""
        return model(**self.model_dump(include=model.model_fields.keys() - more.keys()), **more)


def absent(description: str, **more: Any) -> Any:
    """Return a field that is None by default and then not written.

    Experiments that were measured before the field existed keep their key, and records omit fields of other modes.
    """
    return Field(None, description=description, exclude_if=lambda value: value is None, **more)


def flat(content: Mapping[str, Any] | BaseModel, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield each value in `content` as text; values of mappings are named `<field>.<name>`."""
    items = content.model_dump() if isinstance(content, BaseModel) else content
    for name, value in items.items():
        if isinstance(value, Mapping | BaseModel):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", "unknown" if value is None else str(value)


UtcTime = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)$")]
"""A moment in UTC, ISO 8601."""


MOST_LAUNCHES = 10_000
"""Maximum number of launches of one experiment."""

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9.+-]*$"

LONGEST_NAME = 60
"""Maximum characters of a name."""

HUB_ID = r"\w[\w.-]*/\w[\w.-]*"
"""Form of a model's name on the hub: <owner>/<name>."""


def name_made_of(text: str) -> str:
    """Return a valid name in lower case made of the last part of the path in `text`; empty if nothing is left."""
    last = re.sub(r"[^a-z0-9.+-]+", "-", text.rstrip("/").rpartition("/")[2].lower())
    return last.strip("-.+")[:LONGEST_NAME].strip("-.+")


def not_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("is true or false, but must be a number")
    return value


def _launches(value: Any) -> Any:
    if isinstance(value, str) and value != "auto":
        raise ValueError(f"{value!r} is neither a number nor auto")
    if not isinstance(value, dict):
        return not_bool(value)
    for mode, number in value.items():
        # values on the command line are text
        whole = str(number).isdecimal() and 1 <= int(number) <= MOST_LAUNCHES
        if not whole:
            raise ValueError(f"has {number!r} for {mode}, but needs a whole number from 1 to {MOST_LAUNCHES}")
    return {str(mode): int(number) for mode, number in value.items()}


def _switch_or_auto(value: Any) -> Any:
    if isinstance(value, bool) or value == "auto":
        return value
    if value in ("true", "True", "false", "False"):  # values on the command line are text
        return value in ("true", "True")
    raise ValueError(f"{value!r} is neither true, false nor auto")


def one_or_several(value: Any) -> str:
    """Return the tag of a value in a union of `one` and a list, `several`."""
    return "several" if isinstance(value, list) else "one"


def _list(value: Any) -> Any:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        raise ValueError(f"is the single value {value!r}, but must be a list")
    return value


def brackets(value: Any) -> Any:
    """Check that `value` is a list with at least one element.

    Raises:
        ValueError: it is a single value or an empty list.
    """
    value = _list(value)
    if isinstance(value, list) and not value:
        raise ValueError("is an empty list: write at least one value, or leave it out")
    return value


def no_duplicates(values: list[_Value]) -> list[_Value]:
    """Check that no value occurs more than once.

    Raises:
        ValueError: a value is repeated.
    """
    twice = [value for place, value in enumerate(values) if value in values[:place]]
    if twice:
        raise ValueError(f"has {', '.join(map(repr, twice))} more than once")
    return values


def _plain(value: str) -> str:
    if "\x00" in value or "\n" in value or re.search("[\ud800-\udfff]", value):
        raise ValueError("holds a line break, a NUL character or half of a character pair")
    return value


def without_variable(value: str) -> str:
    """Check that no part of a path is a variable, as in $HOME/models.

    Raises:
        ValueError: one is.
    """
    if re.search(r"(?:^|/)\$\{?[A-Za-z_]", value):
        meant = re.sub(r"^\$(HOME|\{HOME\})(?=/|$)", "~", value)
        raise ValueError(
            f"{value!r} has a variable, and none is expanded: "
            + (f"write {meant}" if "$" not in meant else "write the path itself, or ~ for the home folder")
        )
    return value


def _home(value: str) -> str:
    without_variable(value)
    try:
        return str(Path(value).expanduser())
    except RuntimeError:
        raise ValueError(f"{value!r} begins with the home folder of an unknown user") from None


def _no_braces(value: str) -> str:
    if "{" in value or "}" in value:
        raise ValueError(f"{value!r} contains braces, which are wildcards in Snakemake: use another path")
    return value


def _place(value: str) -> str:
    if value.startswith("hub:") and not re.fullmatch(f"hub:{HUB_ID}", value):
        raise ValueError(f"{value!r} names no model on the hub: write hub:<owner>/<name>")
    if value.startswith(("http://", "https://")):
        raise ValueError(f"{value!r} is a URL, and weights are a folder or hub:<owner>/<name>")
    _home(value)
    return value  # as written: it is part of the spec, and with a home folder the key would depend on the user


def _compiles(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(
            f"{value!r} is not a regular expression, {error}: write '{re.escape(value)}' for these very signs"
        ) from None
    return value


def typed(value: Any) -> Any:
    """Return `value` with numbers, true, false and null read from text, at any depth; a revision stays text."""
    if isinstance(value, dict):
        return {name: inner if str(name).endswith("revision") else typed(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [typed(inner) for inner in value]
    if isinstance(value, str) and re.fullmatch(
        r"-?(0|[1-9][0-9]*)(\.[0-9]+)?(e-?[0-9]+)?|[Tt]rue|[Ff]alse|[Nn]ull|~", value
    ):
        return yaml.safe_load(value)
    return value


Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=LONGEST_NAME)]
"""A name that becomes part of a path: letters, digits, `.`, `+`, `-`; it has no separator and cannot leave results/."""


Names = Annotated[list[Name], BeforeValidator(brackets), AfterValidator(no_duplicates)]
"""A selection: at least one name, without repetition."""

MaybeNames = Annotated[list[Name], BeforeValidator(_list), AfterValidator(no_duplicates)]
"""A selection that may be empty, without repetition."""

AUTO = "auto"

NamesOrAuto = Annotated[MaybeNames, BeforeValidator(lambda value: [AUTO] if value == AUTO else value)]
"""A selection, or `auto`, which becomes [AUTO]."""

Count = Annotated[int, BeforeValidator(not_bool), Field(ge=1, le=1_000_000)]
_SomeLaunches = Annotated[int, Field(ge=1, le=MOST_LAUNCHES)]
Launches = Annotated[_SomeLaunches | Literal["auto"] | dict[str, _SomeLaunches], BeforeValidator(_launches)]
AutoCount = Annotated[int, BeforeValidator(not_bool), Field(le=100)]
"""Maximum number of launches for `launches: auto`; the simulation of more looks would be slow."""
Index = Annotated[int, BeforeValidator(not_bool), Field(ge=0, le=1_000_000)]
MaybeAuto = Annotated[bool | Literal["auto"], BeforeValidator(_switch_or_auto)]
Tokens = Annotated[int, BeforeValidator(not_bool), Field(ge=1, le=10_000_000)]
Number = Annotated[float, BeforeValidator(not_bool), Field(allow_inf_nan=False)]
Seconds = Annotated[Number, Field(gt=0, le=1_000_000)]
Text = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_plain)]
Folder = Annotated[Text, AfterValidator(_home), AfterValidator(_no_braces)]
Program = Annotated[Text, AfterValidator(_home), AfterValidator(_no_braces)]
Weights = Annotated[Text, AfterValidator(_place)]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
VariableText = Annotated[str, AfterValidator(_plain)]
Pattern = Annotated[str, AfterValidator(_compiles)]


Sweep = Annotated[
    dict[
        Text,
        Annotated[
            list[Any],
            BeforeValidator(typed),
            BeforeValidator(brackets),
            AfterValidator(no_duplicates),
            Field(max_length=100),
        ],
    ],
    Field(max_length=10),
]
"""Values of each key, read from text like the values of `Args`."""

ZeroOrOne = Annotated[Literal[0, 1], BeforeValidator(typed)]
"""A choice of two numbers, also read from text."""

Args = Annotated[dict[Text, Any], BeforeValidator(typed)]
"""Any values; numbers, true, false and null are also read from text, since values on the command line are text.

A revision stays text, because it may consist of digits only.
"""
