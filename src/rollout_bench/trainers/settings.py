"""A trainer's settings: its known keys, as its YAML file and README.md have them, and a file with overrides.

The account of a file is a text that lists the treatment of each key.
"""

import difflib
import json
import re
import sys
import textwrap
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError, MissingMandatoryValue, OmegaConfBaseException
from omegaconf.grammar_parser import parse
from omegaconf.grammar_visitor import GrammarVisitor

from rollout_bench.contracts.lora import LAYER_NAME
from rollout_bench.core.errors import UserError, did_you_mean, near_miss, printable, value_text
from rollout_bench.core.readers import Reader, count, finite, index, number, or_none, share, switch, text
from rollout_bench.core.yaml_files import packaged, read_mapping, value_in

TABLES: dict[str, Any] = {
    trainer: packaged(Path(__file__).with_name(f"{trainer.lower()}.yaml")) for trainer in ("verl", "TRL")
}
"""Trainer -> what README.md explains; `versions` are newest first."""


class Influence(Enum):
    """The treatment of a key."""

    HONOURED = "honoured"
    UNSUPPORTED = "not supported"
    NEUTRAL = "without influence on generation"
    UNKNOWN = "unknown"


def top_k(value: Any) -> int:
    """Return the number of candidates; -1 keeps all. Trainers also write 0 or null for -1."""
    found = finite(-1 if value is None else value)
    if found is None or not found.is_integer() or found < -1:
        raise ValueError("a whole number from 1 up, or -1 for all")
    return int(found or -1)


def mapping(value: Any) -> dict[str, Any]:
    """Return a mapping, empty for null."""
    if value is not None and not isinstance(value, dict):
        raise ValueError("a mapping")
    return {str(key): inner for key, inner in (value or {}).items()}


def other_sampling(value: Any) -> dict[str, Any]:
    """Return the sampling parameters of a mapping without those that have rows of their own, and without the seed."""
    known = ("max_tokens", "temperature", "top_p", "top_k", "n", "seed")
    return {name: inner for name, inner in mapping(value).items() if name not in known}


def numbers(value: Any) -> list[int] | None:
    """Return a list of whole numbers, or None for null."""
    if value is not None and not isinstance(value, list):
        raise ValueError("a list of whole numbers")
    return None if value is None else [count(one) for one in value]


_LAYERS = {
    "linear_qkv": ["q_proj", "k_proj", "v_proj"],
    "linear_proj": ["o_proj"],
    "linear_fc1": ["gate_proj", "up_proj"],
    "linear_fc2": ["down_proj"],
    "linear_q": ["q_proj"],  # from here on those of type canonical_lora
    "linear_k": ["k_proj"],
    "linear_v": ["v_proj"],
    "linear_fc1_gate": ["gate_proj"],
    "linear_fc1_up": ["up_proj"],
}
"""Megatron's name of layers -> their names in transformers."""


def targets(value: Any) -> str | list[str]:
    """Return layers with an adapter: all-linear, which null is too, or the last parts of their names."""
    if value in (None, "all-linear", ["all-linear"]):
        return "all-linear"
    if not isinstance(value, list) or not all(re.fullmatch(LAYER_NAME, str(one)) for one in value):
        raise ValueError("all-linear or a list of names of layers, such as [q_proj, v_proj]")
    found = sorted({name for one in value for name in _LAYERS.get(one, [one])})
    return "all-linear" if found == sorted({name for names in _LAYERS.values() for name in names}) else found


READERS: dict[str, Reader[Any]] = {
    "count": count,
    "index": index,
    "mapping": mapping,
    "number": number,
    "numbers": numbers,
    "other_sampling": other_sampling,
    "share": share,
    "switch": switch,
    "targets": targets,
    "text": text,
    "top_k": top_k,
}
"""Name in a file -> reader; with ` or null`, it also accepts null."""


@dataclass(frozen=True)
class TrainerKey:
    """One key of a trainer's settings, or a key with all keys below it.

    Attributes:
        path: dotted path; `.*` at its end means the key and all keys below it.
        influence: treatment of the key.
        says: explanation for the user: its use in the config, why it has no effect, or the effect of ignoring it.
        read: name of the reader that checks and converts the value, or the supported values.
        default: the trainer's default value.
        argument: the engine argument that receives the value unchanged, if any.
        left_out: values with which this argument is left out, besides null.
        run: the only kind of run that reads the key; empty: all do.
        unless: values with which an unsupported key has no effect.
        remedy: what the user should do about a wrong value.
    """

    path: str
    influence: Influence
    says: str = ""
    read: str | list[Any] | None = None
    default: Any = None
    argument: str | None = None
    left_out: Sequence[Any] = ()
    run: str = ""
    unless: Sequence[Any] = ()
    remedy: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether a value may be a mapping, whose keys have no entries of their own."""
        return self.is_inert or self.read in ("mapping", "other_sampling")

    @property
    def is_inert(self) -> bool:
        """Whether no value of the key has an effect here."""
        return self.influence is Influence.NEUTRAL and self.read is None

    def value(self, written: Any, where: str) -> Any:
        """Return a written value, converted by the reader.

        Raises:
            UserError: if the value is not valid. The error names the file `where`.
        """
        if isinstance(self.read, list) and written not in self.read:
            words = [str(word) for word in self.read if word is not None]
            problem, remedy = f"measured here, only {', '.join(words)}", did_you_mean(str(written), words)
        elif not isinstance(self.read, str):
            return written
        else:
            name, _, nullable = self.read.partition(" or ")
            try:
                return (or_none(READERS[name]) if nullable else READERS[name])(written)
            except ValueError as error:
                problem, remedy = str(error), f"correct it there, or add {self.path}=VALUE to the command"
        raise UserError(f"{where}: {self.path}: {value_text(written)} is not {problem}", self.remedy or remedy)


ALIKE = 0.85
"""Minimum similarity of a misspelt key to a known key. It is high, because users' scripts add other keys."""


@dataclass(frozen=True)
class KeyRegistry:
    """All known keys of a trainer.

    Attributes:
        trainer: the trainer's name in messages.
        keys: path -> key.
        shared: paths that other trainers have, too, so that they do not identify the trainer of a file.
        foreign: another trainer -> keys that only its settings have.
        parts: group of hydra's files ("": files at the top) -> the trainer's own, which have the defaults of `keys`.
    """

    trainer: str
    keys: Mapping[str, TrainerKey]
    shared: Collection[str] = ()
    foreign: Mapping[str, Sequence[str]] = field(default_factory=dict)
    parts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, trainer: str, version: str) -> "KeyRegistry":
        """Return the keys of a trainer, with the defaults of one of its versions or kinds."""
        content = TABLES[trainer]
        groups = {"honoured": Influence.HONOURED, "unsupported": Influence.UNSUPPORTED, "deciding": Influence.NEUTRAL}
        keys = [
            TrainerKey(
                path, influence, **{"says": f"engine argument {row['argument']}" if "argument" in row else "", **row}
            )
            for group, influence in groups.items()
            for path, row in content.get(group, {}).items()
        ]
        keys += [
            TrainerKey(path, Influence.NEUTRAL, says) for says, paths in content["neutral"].items() for path in paths
        ]
        found = {key.path: key for key in keys}
        assert len(found) == len(keys), "a key has two entries"
        for path, row in content["versions"][version].items():
            found[path] = replace(found[path], **(row if isinstance(row, dict) else {"default": row}))
        return cls(trainer, found, content.get("shared", ()), content["foreign"], content.get("parts", {}))

    def check_own(self, name: str, paths: Collection[str]) -> None:
        """Raise `UserError` if one of the paths, of the settings `name`, is a key that only another trainer has."""
        for other, foreign_keys in self.foreign.items():
            begins = tuple(f"{key}." for key in foreign_keys)
            if path := next((path for path in paths if f"{path}.".startswith(begins)), None):
                more = f", or run rollout-bench from-{other.lower()}" if other in TABLES else ""
                raise UserError(f"{name}: {path}: is a key of {other}", f"give settings of {self.title}{more}")

    def read_value(self, written: str) -> Any:
        """Return the value of an override as the trainer reads it: verl through hydra, TRL as YAML."""
        return hydra_value(written) if self.trainer == "verl" else value_in(written) if written else ""

    @property
    def title(self) -> str:
        """The trainer in words, with its kinds."""
        return "TRL's GRPO or RLOO" if self.trainer == "TRL" else self.trainer

    def find(self, path: str) -> TrainerKey:
        """Return the entry for `path`, or the nearest one above it for all keys below; else an unknown key."""
        parts = path.split(".")
        for above in (".".join(parts[:length]) for length in range(len(parts), 0, -1)):
            exact = self.keys.get(above)
            if exact is not None and (above == path or exact.is_whole):
                return exact
            if f"{above}.*" in self.keys:
                return self.keys[f"{above}.*"]
        return TrainerKey(path, Influence.UNKNOWN, f"{self.trainer}'s versions that are known here lack it")

    def below(self, path: str) -> set[Influence]:
        """Return the treatments of the known keys below `path`."""
        return {key.influence for known, key in self.keys.items() if known.startswith(f"{path}.")}

    def misspelt(self, path: str, written: Collection[str] = ()) -> str | None:
        """Return the key that `path` probably misspells, among keys that affect generation and are not in `written`."""
        if path in self.keys:
            return None
        parent, _, name = path.rpartition(".")
        if meant := self.in_short(path):
            return meant if meant not in written else None
        beside = [key.path for key in self.keys.values() if key.influence is not Influence.NEUTRAL]
        known = {key.rpartition(".")[2]: key for key in beside if key.rpartition(".")[0] == parent}
        close = difflib.get_close_matches(name, known, n=1, cutoff=ALIKE)
        return known[close[0]] if close and known[close[0]] not in written else None

    def in_short(self, path: str) -> str | None:
        """Return the key whose last parts are `path`, or that others call so; None for other paths."""
        telling = [
            key.path for key in self.keys.values() if key.influence not in (Influence.NEUTRAL, Influence.UNKNOWN)
        ]
        if meant := OTHERS.get(self.trainer, {}).get(path):
            return meant
        ends = [key for key in telling if key.endswith(f".{path}") and not key.startswith("critic.")]
        return ends[0] if len(ends) == 1 and ("." in path or path not in self.keys) else None


OTHERS = {
    "verl": {
        **dict.fromkeys(("batch_size", "num_prompts", "prompts"), "data.train_batch_size"),
        **dict.fromkeys(("n", "n_resp", "n_samples", "num_generations", "rollout_n"), "actor_rollout_ref.rollout.n"),
        **dict.fromkeys(("model", "model_path"), "actor_rollout_ref.model.path"),
        **dict.fromkeys(("tp", "tensor_parallel_size"), "actor_rollout_ref.rollout.tensor_model_parallel_size"),
        **dict.fromkeys(("gpus", "n_gpus", "n_gpus_per_node", "num_gpus"), "trainer.n_gpus_per_node"),
        "temperature": "actor_rollout_ref.rollout.temperature",
    },
    "TRL": {
        **dict.fromkeys(("n", "n_samples", "rollout_n", "samples"), "num_generations"),
        **dict.fromkeys(("model", "model_path"), "model_name_or_path"),
        **dict.fromkeys(("tensor_parallel_size", "tp", "vllm_tp"), "vllm_tensor_parallel_size"),
        **dict.fromkeys(("gpus", "n_gpus", "num_gpus"), "num_processes"),
    },
}
"""Trainer -> short names for some of its keys."""

OVERRIDE = re.compile(r"(?P<sign>\+\+|\+|~)?(?P<path>[^=+~\s][^=\s]*)(?P<equals>=)?(?P<value>.*)", re.DOTALL)
"""An override in hydra's syntax: `a.b=1` changes, `+a.b=1` adds, `++a.b=1` changes or adds, `~a.b` removes."""

COMMAND_LINE = "the command line"
"""Name in messages for settings that come only from overrides."""

NOT_THERE = object()
"""Value of a key that is missing, or written as `???`. None can't be used, because null is a value."""


def _read_yaml(path: Path, trainer: str) -> dict[str, Any]:
    """Return the settings in a YAML file. TRL takes the last value of a duplicate key, with a warning here."""
    twice: list[str] | None = [] if trainer == "TRL" else None
    remedy = f"give the YAML that {trainer} is started with"
    if path.suffix == ".py":
        raise UserError(f"{path}: is Python, which is not read", f"{remedy}, or the shell script that starts it")
    content = read_mapping(path, f"settings of {trainer}", remedy, twice=twice)
    if twice:
        print(
            f"{path}: warning: the last one holds, as {trainer} reads it, of keys that stand twice: {', '.join(twice)}",
            file=sys.stderr,
        )
    return content


def _check_parts(name: str, content: Mapping[str, Any], registry: KeyRegistry) -> None:
    """Raise `UserError` if hydra lays the file over one that is not the trainer's own."""
    listed = content.get("defaults")
    entries = [one if isinstance(one, dict) else {"": one} for one in (listed if isinstance(listed, list) else ())]
    for group, part in (item for entry in entries for item in entry.items()):
        parts = registry.parts.get(str(group).strip("/").partition("@")[0])
        if parts is not None and part not in parts:
            raise UserError(
                f"{name}: defaults: lays the file over {part}, which is none of {registry.trainer}'s own",
                f"add --cfg job to {registry.trainer}'s command, and use the YAML that it prints",
            )


def _plain(content: Any) -> Any:
    """Return YAML content without dates, which OmegaConf and hydra lack."""
    return json.loads(json.dumps(content, default=str))


class _Written(GrammarVisitor):
    """Reads a value in the grammar that hydra and OmegaConf share; interpolations stay as they are written."""

    def visitInterpolation(self, ctx: Any) -> str:  # noqa: N802
        return str(ctx.getText())


def hydra_value(written: str) -> Any:
    """Return the value of an override as hydra reads it: `on`, `yes` and `0512` are texts, `1e-3` is a number.

    Raises:
        GrammarParseError: if hydra reads no value there. A sweep (`1,2`) or a function (`int(x)`) is none here.
    """
    if not written.strip():
        return ""
    tree = parse(written.strip(), parser_rule="singleElement", lexer_mode="VALUE_MODE")
    return _Written(None, None, None).visit(tree)


def _lay_over(tree: Any, override: str, registry: KeyRegistry) -> None:
    """Apply an override to a tree of OmegaConf's, as hydra does.

    Raises:
        UserError: if the override has an invalid form, or names an unknown key.
    """
    found = OVERRIDE.fullmatch(override)
    if found is None or not (found["equals"] or found["sign"] == "~"):
        meant = re.sub(r"\s*=\s*", "=", override) if "=" in override else f"{override}=VALUE"
        remedy = f"write {meant}" if OVERRIDE.fullmatch(meant) else "write KEY=VALUE, +KEY=VALUE or ~KEY"
        raise UserError(f"{override}: is not an override", remedy)
    path, trainer = found["path"], registry.trainer
    if "/" in path or "@" in path:
        raise UserError(
            f"{override}: chooses one of {trainer}'s files, which rollout-bench cannot read",
            f"add --cfg job to {trainer}'s command, and use the YAML that it prints",
        )
    is_there = OmegaConf.select(tree, path, throw_on_resolution_failure=False, default=NOT_THERE) is not NOT_THERE
    if found["sign"] == "~":
        if not is_there:
            _check_removed(override, path, registry)
            return
        above, _, name = path.rpartition(".")
        del (OmegaConf.select(tree, above) if above else tree)[name]
        return
    key = registry.find(path)
    is_known = key.influence is not Influence.UNKNOWN or registry.below(path)
    misspelt = registry.in_short(path) or registry.misspelt(path)
    adds_in_vain = "." in path and misspelt is not None and misspelt.endswith(f".{path}")
    if not is_there and ((not found["sign"] and (misspelt or not is_known)) or adds_in_vain):
        near = misspelt or near_miss(path, [key for key in registry.keys if not key.endswith("*")])
        near = near if near and (misspelt or near_miss(path.rpartition(".")[2], [near.rpartition(".")[2]])) else None
        remedy = f"did you mean '{near}'?" if near else f"if your own code reads it, write +{path}=VALUE"
        raise UserError(f"{override}: {trainer} has no key {path}", remedy)
    try:
        value = _plain(registry.read_value(found["value"]))
    except (yaml.YAMLError, ValueError, GrammarParseError) as error:
        problem = getattr(error, "problem", None) or str(error).strip().splitlines()[0]
        if not key.is_inert:
            likeness = "in a YAML file" if trainer == "TRL" else "hydra reads it: [a, b] is a list, '...' a text"
            remedy = f"write it as {likeness}"
            if trainer != "TRL" and str(found["value"]).startswith("~"):
                problem = "the shell leaves ~ as it is behind a key with dots, and hydra reads none"
                remedy = f"write {path}=$HOME{found['value'][1:]}"
            raise UserError(f"{override}: its value can't be read: {problem}", remedy) from None
        value = found["value"]
    OmegaConf.update(tree, path, value)


def _check_removed(override: str, path: str, registry: KeyRegistry) -> None:
    """Check that a key that the file does not have may be removed: then the trainer's own default counts.

    Raises:
        UserError: if the trainer has no such key, or none that it may lack.
    """
    if registry.trainer == "TRL":  # which knows no removal: it is of the file
        raise UserError(f"{override}: {path} cannot be removed because the file does not contain it", "leave it out")
    key = registry.find(path)
    if key.influence is Influence.UNKNOWN and not registry.below(path):
        near = registry.in_short(path) or registry.misspelt(path)
        problem = f"{override}: {registry.trainer} has no key {path} by default, and the file does not contain it"
        raise UserError(problem, f"did you mean '~{near}'?" if near else "leave it out")
    if key.influence is Influence.HONOURED and key.default is None:
        problem = f"{override}: without {path} only {registry.trainer}'s own classes know its value"
        raise UserError(problem, f"write {path}=VALUE in its place")
    if not key.is_inert:
        default = f"{path} = {_shown(key.default)}" if key.path == path else path
        print(f"{override}: the default of {registry.trainer}'s own counts: {default}", file=sys.stderr)


@dataclass(frozen=True)
class TrainerFile:
    """A trainer's settings. Interpolations are resolved when a value is read.

    Attributes:
        name: name of the settings in messages.
        registry: the known keys.
        tree: the settings as an OmegaConf object.
        starts_main: whether they come from a command that starts the trainer's own program, not a recipe's.
        added: keys that the user's own overrides set, which neither the file nor its script has.
    """

    name: str
    registry: KeyRegistry
    tree: Any
    starts_main: bool = False
    added: frozenset[str] = frozenset()

    @classmethod
    def read(cls, words: Sequence[str], registry: KeyRegistry, foreign: str | None) -> "TrainerFile":
        """Return the settings that the words of a command line give.

        Args:
            words: a file and overrides, or only overrides.
            registry: the known keys.
            foreign: remedy for a file without any key of this trainer; None accepts such a file.

        Raises:
            UserError: if the file can't be read, an override is wrong, or a key is misspelt.
        """
        name, *overrides = words
        if "=" in name and OVERRIDE.fullmatch(name) and not Path(name).exists():
            name, content, overrides = COMMAND_LINE, {}, [*words]
        else:
            content = _read_yaml(Path(name), registry.trainer)
            _check_parts(name, content, registry)
            paths = [path for path, _ in _leaves(content)]
            registry.check_own(name, paths)
            keys = [registry.find(path) for path in paths]
            known = {key.path for key in keys if key.influence in (Influence.HONOURED, Influence.UNSUPPORTED)}
            if foreign and known.issubset(registry.shared):
                raise UserError(f"{name}: has no key for {registry.trainer}'s generation", foreign)
        laid = filter(None, map(OVERRIDE.fullmatch, overrides))
        registry.check_own(name, [word["path"] for word in laid if word["sign"] != "~"])
        place = name
        try:
            found = cls(name, registry, OmegaConf.create(_plain(content)))
            for place in overrides:
                _lay_over(found.tree, place, registry)
        except OmegaConfBaseException as error:
            cause = str(error).strip().splitlines()[0]
            raise UserError(f"{place}: OmegaConf can't read it: {cause}", "correct it") from None
        found._check()
        return found

    def _check(self) -> None:
        """Raise `UserError` for a value in place of a section, or a key that is probably misspelt."""
        leaves = self.leaves
        for path, value in leaves.items():
            # {a:1}, which hydra's own grammar reads as {a: 1}
            if value is None and ":" in path and not self.registry.find(path).is_inert:
                problem = f"{self.name}: {path}: has no value, because YAML reads it as one word"
                raise UserError(problem, "write a space after each colon")
            is_section = path not in self.registry.keys and self.registry.below(path) - {Influence.NEUTRAL}
            if is_section and value is not None and not isinstance(value, dict) and "${" not in str(value):
                below = f"write its keys below it, as {self.registry.trainer} does"
                raise UserError(f"{self.name}: {path}: is no mapping", below)
            if meant := self.registry.misspelt(path, leaves):
                raise UserError(f"{self.name}: {path}: there is no such key", f"did you mean '{meant}'?")

    @property
    def leaves(self) -> dict[str, Any]:
        """Path -> value of all values in the settings, with unresolved interpolations."""
        return dict(_leaves(OmegaConf.to_container(self.tree)))

    def has_section(self, name: str) -> bool:
        """Return whether the settings have a mapping `name` at their top."""
        return OmegaConf.is_dict(self.tree.get(name))

    def written(self, path: str, *, needed: bool = False) -> Any:
        """Return the value at `path` with resolved interpolations, or `NOT_THERE` if there is none.

        Raises:
            UserError: if an interpolation can't be resolved, or if the value is `needed` and written as `???`.
        """
        try:
            found = OmegaConf.select(self.tree, path, default=NOT_THERE, throw_on_missing=needed)
            return OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found
        except MissingMandatoryValue:
            raise self._missing(path) from None
        except OmegaConfBaseException as error:
            cause = str(error).strip().splitlines()[0]
            raise UserError(
                f"{self.name}: {path}: its interpolation can't be resolved: {cause}",
                f"add {path}=VALUE to the command, or give the whole of {self.registry.trainer}'s YAML",
            ) from None

    def has(self, path: str) -> bool:
        """Return whether the settings have a value at `path`; null counts as a value."""
        return self.written(path) is not NOT_THERE

    def get(self, path: str, *, needed: bool = False) -> Any:
        """Return the value of a registered key, or the trainer's default if the key is missing.

        Raises:
            UserError: if the value can't be resolved or is invalid, or if it is `needed` and there is none.
        """
        key, value = self.registry.keys[path], self.written(path, needed=needed)
        found = key.default if value is NOT_THERE else key.value(value, self.name)
        if needed and found is None:
            raise self._missing(path)
        return found

    def _missing(self, path: str) -> UserError:
        return UserError(f"{self.name}: {path}: is missing", self.registry.keys[path].remedy)

    def require(self, *paths: str) -> None:
        """Check that registered keys have values; raise `UserError` that names all that have none."""
        lacking = [
            path for path in paths if self.written(path) is NOT_THERE and self.registry.keys[path].default is None
        ]
        if len(lacking) > 1:
            remedies = dict.fromkeys(self.registry.keys[path].remedy for path in lacking)
            raise UserError(f"{self.name}: {', '.join(lacking)}: are missing", "; ".join(remedies))

    def engine_args(self, unread: Collection[str] = ()) -> dict[str, Any]:
        """Return the engine arguments that receive keys unchanged, without the keys that the run does not read."""
        passed_on = [key for key in self.registry.keys.values() if key.argument and key.path not in unread]
        found = [(key, self.get(key.path)) for key in passed_on]
        return {str(key.argument): value for key, value in found if value not in (None, *key.left_out)}


def _leaves(content: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        path = f"{above}{name}"
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value


WIDTH = 118
"""Characters of a line of the account. With the comment mark, this is the line length of this project."""

LONGEST_VALUE = 60


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
    for path, number_of in below.items():
        groups[Influence.NEUTRAL][settings.registry.keys[path].says].append(f"{path} ({number_of})")
    for key in settings.registry.keys.values():
        if key.influence is Influence.NEUTRAL:
            continue
        written = settings.has(key.path)
        if key.path in unread and not written:
            continue
        value = None if key.path in unread else settings.get(key.path)
        influence = Influence.NEUTRAL if key.path in unread or value in key.unless else key.influence
        if influence is not Influence.NEUTRAL and (written or key.default not in (None, {})):
            default = "" if written else " (default)"
            groups[influence][key.says].append(f"{key.path} = {_shown(value)}{default}")
        elif influence is Influence.NEUTRAL and written:
            reason = "not read with these settings" if key.path in unread else "switched off, or as it is measured"
            groups[influence][reason].append(key.path)
    return "\n".join(_group_text(influence, entries) for influence, entries in groups.items() if any(entries.values()))


def _group_text(influence: Influence, entries: dict[str, list[str]]) -> str:
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
