"""What may be a secret, by its name or by how it looks: it must stand in no config, spec, record or manifest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
"""The words of a name, however they are joined: HF_TOKEN, X-Api-Key, accessToken."""

_SECRET_WORD = re.compile(
    r"\w*(passw|passphrase|secret|cookie|credential)\w*|auth(?!or)\w*|(api|access|private|auth)?keys?|(api|access|auth)?tokens?"
)
"""Words that name secrets; no part of a longer word is meant: a monkey is no key, tiktoken and a tokenizer no token."""

_COUNTS = {"tokens", "threshold"}
"""Words of names that count tokens, where a number is no secret."""

_LOOKS_SECRET = re.compile(r"^(bearer|basic|token)\s|^sk-|^hf_[a-z0-9]{16}|://[^/@\s]*:[^/@\s]+@", re.IGNORECASE)
"""Values that are secrets whatever they are called: of an Authorization header, of a hub, a password in an address."""

_SWITCH = re.compile(r"[01]?|true|false", re.IGNORECASE)


def secret_words(name: str) -> set[str]:
    """Return the words of `name` that name secrets, in small letters; empty where it holds none."""
    return {word for word in _words(name) if _SECRET_WORD.fullmatch(word)}


def may_be_secret(name: str, value: str) -> bool:
    """Return whether `value` may be a secret where it is called `name`; switches and numbers of tokens are none."""
    secret = secret_words(name)
    if not secret:
        return _LOOKS_SECRET.search(value) is not None
    is_count = secret <= {"token", "tokens"} and bool(_COUNTS & set(_words(name))) and value.isdecimal()
    is_path = _words(name)[-1] in ("path", "dir", "base", "file") and value.startswith("/")
    return not is_count and not is_path and _SWITCH.fullmatch(value) is None


def secrets_in(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield the dotted names of all texts in `settings`, however deep, that may be secrets."""
    for name, value in settings.items():
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, Mapping):
                yield from (f"{name}.{below}" for below in secrets_in(inner))
            elif isinstance(inner, str) and may_be_secret(str(name), inner):
                yield str(name)


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORDS.findall(name)]
