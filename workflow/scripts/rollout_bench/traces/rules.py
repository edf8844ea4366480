"""The rules that say what an operator is for: `rules.yaml`, and a user's own before them."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

import yaml
from pydantic import AfterValidator, Field, ValidationError

from rollout_bench.errors import UserError
from rollout_bench.plan.profiling import Category
from rollout_bench.plan.strict import Strict
from rollout_bench.records.profile import Role

CATEGORIES: Final[tuple[Category, ...]] = get_args(Category)

Platform = Literal["cpu", "cuda", "ascend"]

Layout = Literal["out_first", "in_first", "any"]
"""How the inputs of a matrix multiplication stand."""

RULES_FILE: Final = Path(__file__).with_name("rules.yaml")


def _is_pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None
    return text


Pattern = Annotated[str, AfterValidator(_is_pattern)]


class Rule(Strict):
    """What events are for whose name, or a name on whose path, a pattern is found in."""

    match: Pattern = Field(min_length=1, description="Regular expression to find in a name.")
    category: Category = Field(description="What it is for.")
    role: Role | None = Field(None, description="What a linear layer does in the model.")
    path: Pattern | None = Field(None, description="Regular expression to find in the path.")
    dtypes: Pattern | None = Field(None, description="Regular expression to find in the data types.")
    shapes: Layout = Field("any", description="How the inputs of a linear layer stand.")
    companion: bool = Field(False, description="Whether it ends another kernel's matrix multiplication.")

    def holds(self, name: str, names_on_path: Sequence[str], path: str, dtypes: str) -> bool:
        """Whether an event with these is what the rule is about."""
        if self.path is not None and not re.search(self.path, path):
            return False
        if self.dtypes is not None and not re.search(self.dtypes, dtypes):
            return False
        if re.search(self.match, name):
            return True
        return self.dtypes is None and any(re.search(self.match, above) for above in names_on_path)


class Run(Strict):
    """What a run of plain operators is for."""

    category: Category | Literal["next"]
    holds: Pattern | None = None
    place: Literal["start", "end"] | None = None
    after: Category | None = None


class RuleSet(Strict):
    """The rules of one platform."""

    rules: list[Rule]
    plain: Pattern
    runs: list[Run]
    rescale: Pattern | None = None
    views: Pattern | None = None


@functools.cache
def rule_sets() -> dict[str, RuleSet]:
    """The built-in rules by platform."""
    content: dict[str, Any] = yaml.safe_load(RULES_FILE.read_text())
    return {platform: RuleSet.model_validate(part) for platform, part in content.items()}


def user_rules(rules: Sequence[Rule | Mapping[str, Any]]) -> list[Rule]:
    """A user's rules: mappings with match and category, and role, path or dtypes where wanted.

    Raises:
        UserError: a rule is none.
    """
    checked = []
    for number, rule in enumerate(rules, start=1):
        try:
            checked.append(rule if isinstance(rule, Rule) else Rule.model_validate(dict(rule)))
        except (ValidationError, TypeError, ValueError) as error:
            what = str(error)
            if isinstance(error, ValidationError):
                first = error.errors()[0]
                what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise UserError(
                f"rule {number} for operators: {what}",
                f"a rule is match: a regular expression, and category: one of {', '.join(CATEGORIES)}",
            ) from None
    return checked
