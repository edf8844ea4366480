"""The config made from a trainer's settings, and the account: a text that lists the treatment of each key."""

import json
import textwrap
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import yaml

from rollout_bench.core.errors import printable
from rollout_bench.trainers.settings import Influence, TrainerFile

WIDTH = 118
"""Characters of a line of the account. With the comment mark, this is the line length of this project."""

LONGEST_VALUE = 60

TIMEOUT_S = 14_400
"""Time limit of a launch of a trainer's step, in seconds. One pass may take many minutes."""

MOST_TOLD = 1 << 20
"""Maximum characters of an account, equal to the maximum size of a settings file."""


@dataclass(frozen=True)
class MadeConfig:
    """A config made from a trainer's settings.

    Attributes:
        head: lines that describe the training step, and the part of it that the config measures.
        config: the keys that replace those of config.yaml.
        account: the treatment of each key, as text.
        trace: lines of the data set that the config names; empty if it names none.
    """

    head: tuple[str, ...]
    config: dict[str, Any]
    account: str
    trace: tuple[dict[str, int], ...] = ()

    @property
    def told(self) -> str:
        """The whole explanation: head and account."""
        return printable("\n".join([*self.head, "", self.account]), MOST_TOLD)

    def yaml(self, command: str) -> str:
        """Return the YAML file: the explanation as comments, then the config."""
        lines = f"Made by: {printable(command, MOST_TOLD)}\n{self.told}".splitlines()
        comments = "".join(f"# {line}".rstrip() + "\n" for line in lines)
        content = {**self.config, "timeout_s": TIMEOUT_S}
        config = yaml.dump(content, Dumper=_BriefFlow, sort_keys=False, default_flow_style=False, width=WIDTH)
        return comments + config


class _BriefFlow(yaml.SafeDumper):
    """YAML dumper that writes short lists and mappings on one line."""

    def represent_data(self, data: Any) -> yaml.Node:
        node = super().represent_data(data)
        if isinstance(node, yaml.CollectionNode):
            node.flow_style = len(repr(data)) <= LONGEST_VALUE
        return node


def account(settings: TrainerFile, unread: Collection[str] = ()) -> str:
    """Return the treatment of each key in the settings, and of each missing key whose default affects generation.

    Args:
        settings: the trainer's settings.
        unread: keys that this run does not read, though other runs do.

    Raises:
        UserError: if a key that affects generation can't be resolved, or has an invalid value.
    """
    groups: dict[Influence, dict[str, list[str]]] = {influence: defaultdict(list) for influence in Influence}
    entries = [(path, settings.registry.find(path)) for path in settings.leaves]
    below = Counter(key.path for path, key in entries if key.path.endswith(".*") and key.path != f"{path}.*")
    for path, key in entries:
        # names without values, because a trainer's file may contain secrets
        if key.influence in (Influence.NEUTRAL, Influence.UNKNOWN) and key.path not in below:
            groups[key.influence][key.says].append(path)
    for path, count in below.items():
        groups[Influence.NEUTRAL][settings.registry.keys[path].says].append(f"{path} ({count})")
    for key in settings.registry.keys.values():
        written = settings.has(key.path)
        if key.influence is Influence.NEUTRAL or (key.path in unread and not written):
            continue
        value = None if key.path in unread else settings.get(key.path)
        influence = Influence.NEUTRAL if key.path in unread or value in key.unless else key.influence
        if influence is not Influence.NEUTRAL and (written or key.default not in (None, {})):
            default = "" if written else " (default)"
            groups[influence][key.says].append(f"{key.path} = {_shown(value)}{default}")
        elif influence is Influence.NEUTRAL and written:
            reason = "read by other runs than this one" if key.path in unread else "switched off, or as it is measured"
            groups[influence][reason].append(key.path)
    return "\n".join(_section(influence, entries) for influence, entries in groups.items() if any(entries.values()))


def _section(influence: Influence, entries: dict[str, list[str]]) -> str:
    lines = [f"{influence.value}:"]
    for says, paths in entries.items():
        if influence in (Influence.HONOURED, Influence.UNSUPPORTED):
            lines += [f"  {path}: {says}" for path in paths]
        else:
            listed = textwrap.fill(", ".join(paths), WIDTH, initial_indent="    ", subsequent_indent="    ",
                                   break_long_words=False, break_on_hyphens=False)  # fmt: skip
            lines += [f"  {says}:", listed]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    words = printable(json.dumps(value, default=repr))
    return words if len(words) <= LONGEST_VALUE else f"{words[: LONGEST_VALUE - 3]}..."
