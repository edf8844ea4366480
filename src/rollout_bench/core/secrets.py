"""Detection of possible secrets by name or form. Configs, specs, records and manifests must not contain secrets."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

LEFT_OUT: Final = "(left out: may be a secret)"
"""Replacement for a text that may be a secret."""

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
"""The words of a name in any style: HF_TOKEN, X-Api-Key, accessToken."""

_SECRET_WORD = re.compile(
    r"\w*(passw|pwd|passphrase|secret|cookie|credential)\w*|auth(?!or(?!iz))\w*"
    r"|(api|access|private|auth|(open)?ai)?keys?|(api|access|auth|hf|hub|git(hub|lab)?)?tokens?"
    r"|(pg|db)?pass|creds?|pat|pw|jwt|bearer|sig(nature)?"
)
"""Words that name secrets. Most must match whole words: `monkey` is no key, and `tokenizer` is no token."""

_COUNTS = {"tokens", "threshold"}
"""Words in names of token counts, whose numbers are no secrets."""

_SPECIAL = {"bos", "eos", "pad", "unk", "mask", "stop"}
"""Words in names of a tokenizer's special tokens."""

_COLUMNS = {"prompt", "response", "reward", "image", "video", "messages", "tools", "label", "sort"}
"""Words in names of settings whose value is a column of a data set, such as verl's `data.prompt_key`."""

_LOOKS_SECRET = re.compile(
    r"(?i:^(bearer|basic|token)\s+(?!\$)\S+$|\b(authorization|api-key)[\"']?\s*[:=]\s*[\"']?(?!\$)\S)"
    r"|://(?!git@)[^/@\s]+@|^[^\s/:@]+:[^\s/@]+@(?!sha\d+:)[\w.-]+[:/]|-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|(?<![\w-])sk-[\w-]*[A-Za-z0-9]{16}"
    r"|\b(gh[opusr]_\w{8}|github_pat_\w{8}|gl(pat|[dfr]t|cbt|ptt|imt|agent|oas|soat|ffct)-[\w-]{8}|xox[a-z]-\w{8}"
    r"|(AKIA|ASIA)[A-Z0-9]{12}|eyJ[\w-]{8,}\.[\w-]{16}|npm_\w{30}|pypi-AgE|[sr]k_(live|test)_\w{8}|SG\.[\w-]{16}"
    r"|AIza[\w-]{30}|hf_[A-Za-z0-9]{16}|nvapi-[\w-]{16}|gsk_\w{16}|r8_\w{16}|dckr_pat_[\w-]{8}|ya29\.[\w-]{8})"
)
"""Values that are secrets under any name: Authorization headers, API keys of hubs, forges and clouds, and a user or a
password in a URL or before a registry. Keys match with fewer letters than in detect-secrets."""

_NAMED_INSIDE = re.compile(r"(?:(?<!\S)--?([\w.-]+)[=\s]\s*|\b([A-Za-z_]\w*)=)(?![$-])([^\s&,;]{4,})")
"""Names and values inside a text: options of a command, variables before a command, the query of a URL.

A value that begins with - is the next option. A value under four characters (`tokens=4k`) is too short for a secret."""

_SWITCH = re.compile(r"[01]?|true|false", re.IGNORECASE)


def secret_words(name: str) -> set[str]:
    """Return the words of `name` that name secrets, in lower case."""
    return {word for word in _words(name) if _SECRET_WORD.fullmatch(word)}


def looks_secret(value: str) -> bool:
    """Return whether `value` has the form of a secret, or contains one by name, such as an option of a command."""
    if _LOOKS_SECRET.search(value):
        return True
    inside = _NAMED_INSIDE.findall(value)
    return any(_named_secret(option or variable, text) for option, variable, text in inside)


def may_be_secret(name: str, value: str) -> bool:
    """Return whether `value` with the name `name` may be a secret; switches and token counts are no secrets."""
    return _named_secret(name, value) or looks_secret(value)


def of_config(name: str, value: str) -> bool:
    """Return whether a value of a config may be a secret; `api_key_env` and `kubernetes.secrets` name variables."""
    return looks_secret(value) if name in ("api_key_env", "secrets") else may_be_secret(name, value)


def _named_secret(name: str, value: str) -> bool:
    secret, words = secret_words(name), set(_words(name))
    if not secret:
        return False
    of_text = secret <= {"token", "tokens"}
    harmless = (
        of_text and words & _COUNTS and re.fullmatch(r"(?i)\d+[km]?|auto", value),
        of_text and (words & _SPECIAL or re.fullmatch(r"<\S+>", value)),
        secret == {"key"} and words & _COLUMNS and value.isidentifier(),
        name == "key" and re.fullmatch(r"[0-9a-f]{8}", value),  # the key of an experiment
        _words(name)[-1] in ("path", "dir", "base", "file") and value.startswith("/"),
        _SWITCH.fullmatch(value),
    )
    return not any(harmless)


def without_secrets(
    content: Any, is_secret: Callable[[str, str], bool] = may_be_secret, place: str = "", name: str = ""
) -> tuple[Any, list[str]]:
    """Return `content` with `LEFT_OUT` for each text that may be a secret, and the dotted names of these texts.

    Args:
        content: the nested content of a file.
        is_secret: returns whether a text is a secret, from its name and the text.
        place: dotted name of `content`, in which `LEFT_OUT` replaces keys that may be secrets.
        name: the last part of `place`.
    """
    if isinstance(content, Mapping):
        kept: dict[Any, Any] = {}
        left: list[str] = []
        for key, value in content.items():
            hidden = isinstance(key, str) and is_secret("", key)
            shown, inner = (LEFT_OUT, LEFT_OUT) if hidden else (key, value)
            kept[shown], of_value = without_secrets(inner, is_secret, f"{place}.{shown}".lstrip("."), str(key))
            left += [*of_value, *([place] if hidden else [])]
        return kept, left
    if isinstance(content, list | tuple):
        if all(isinstance(value, str) for value in content) and is_secret(name, " ".join(content)):
            return [LEFT_OUT], [place]
        parts = [without_secrets(value, is_secret, f"{place}.{at}", name) for at, value in enumerate(content)]
        return [value for value, _ in parts], [at for _, of_value in parts for at in of_value]
    secret = isinstance(content, str) and is_secret(name, content)
    return (LEFT_OUT, [place]) if secret else (content, [])


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORDS.findall(name)]
