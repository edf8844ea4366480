"""What may be a secret, by its name or by how it looks: it must stand in no config, spec, record or manifest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

SECRET_NAME = re.compile(r"(?P<always>auth|key|secret|cookie|passw|credential)|token(?!i[sz])", re.IGNORECASE)
"""Names of variables, headers and arguments that hold secrets; a tokenizer is none."""

_LOOKS_SECRET = re.compile(r"^(bearer|basic|token)\s|^sk-|^hf_[a-z0-9]{16}|://[^/@\s]*:[^/@\s]+@", re.IGNORECASE)
"""Values that are secrets whatever they are called: of an Authorization header, of a hub, a password in an address."""

_SWITCH = re.compile(r"[01]?|true|false", re.IGNORECASE)


def may_be_secret(name: str, value: str) -> bool:
    """Whether `value` may be a secret where it is called `name`; switches and numbers of tokens are none."""
    found = SECRET_NAME.search(name)
    if found is None:
        return _LOOKS_SECRET.search(value) is not None
    is_count = found["always"] is None and value.isdecimal()
    return not is_count and _SWITCH.fullmatch(value) is None


def secrets_in(settings: Mapping[str, Any]) -> Iterator[str]:
    """The dotted names of all texts in `settings`, however deep, that may be secrets."""
    for name, value in settings.items():
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, Mapping):
                yield from (f"{name}.{below}" for below in secrets_in(inner))
            elif isinstance(inner, str) and may_be_secret(str(name), inner):
                yield str(name)
