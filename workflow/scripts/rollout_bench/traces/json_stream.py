"""The events of a trace-event file, one after the other: the file may be larger than memory.

Format: "Trace Event Format" of the Chromium project; an object with `traceEvents`, or that array alone.
"""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from rollout_bench.errors import UserError

CHUNK_BYTES = 4 << 20
LONGEST = 64 << 20
"""Characters that one event, or one value beside the events, may have."""

REMEDY = "profile again: delete the record that it belongs to and run the same command"

_GZIP = b"\x1f\x8b"
_FILLER = re.compile(r"[\s,]*")
_SPACE = re.compile(r"\s*")


def trace_events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a trace, plain or gzip-compressed, in the file's order. What is no object is left out.

    Raises:
        UserError: the file can't be read, is empty, is cut off, is not JSON, or holds no trace events.
    """
    try:
        with path.open("rb") as file:
            head = file.read(2)
            if not head:
                raise UserError(f"{path}: is empty", REMEDY)
            file.seek(0)
            source = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if head == _GZIP else file
            yield from _Reader(path, source).events()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: is a damaged or cut off gzip file: {error}", REMEDY) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}", REMEDY) from None


class _Reader:
    """Looks at a file through a buffer of text that holds what is next."""

    def __init__(self, path: Path, source: BinaryIO) -> None:
        self._path = path
        self._source = source
        # A name may be cut in two by the profiler, in the middle of a character.
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._decode = json.JSONDecoder().raw_decode
        self._text = ""
        self._at = 0
        self._ended = False

    def events(self) -> Iterator[dict[str, Any]]:
        opening = self._peek(_SPACE)
        if opening == "[":
            yield from self._array()
        elif opening == "{":
            yield from self._object()
        else:
            raise self._error("is not JSON")

    def _object(self) -> Iterator[dict[str, Any]]:
        self._at += 1
        while (mark := self._peek(_FILLER)) != "}":
            if mark != '"':
                raise self._error("is not JSON" if mark else "ends in the middle")
            key = self._value()
            if self._peek(_SPACE) != ":":
                raise self._error("is not JSON")
            self._at += 1
            if key == "traceEvents" and self._peek(_SPACE) == "[":
                yield from self._array()
                return
            self._peek(_SPACE)
            self._value()
        raise UserError(f"{self._path}: is JSON without traceEvents, so no trace", REMEDY)

    def _array(self) -> Iterator[dict[str, Any]]:
        self._at += 1
        decode = self._decode
        while True:
            # Most events lie whole in the buffer: this is the loop in which the time goes.
            text, at = self._text, self._at
            skip = _FILLER.match
            try:
                while True:
                    start = cast("re.Match[str]", skip(text, at)).end()
                    event, at = decode(text, start)
                    if type(event) is dict:
                        yield event
            except ValueError:
                self._at = start
            except RecursionError:
                raise self._error("is not a trace: it nests too deep") from None
            mark = self._peek(_FILLER)
            if mark == "]":
                self._at += 1
                return
            if not mark:
                raise self._error("ends in the middle")
            event = self._value()
            if isinstance(event, dict):
                yield event

    def _value(self) -> Any:
        """The next value, which begins where the buffer stands."""
        while True:
            try:
                value, at = self._decode(self._text, self._at)
            except ValueError:
                if self._ended or len(self._text) - self._at > LONGEST:
                    raise self._error("ends in the middle or is not JSON") from None
                self._more()
                continue
            except RecursionError:
                raise self._error("is not a trace: it nests too deep") from None
            if at < len(self._text) or self._ended:  # a number could go on
                self._at = at
                return value
            self._more()

    def _peek(self, filler: re.Pattern[str]) -> str:
        """The next character that is no filler, "" at the end of the file."""
        while True:
            self._at = cast("re.Match[str]", filler.match(self._text, self._at)).end()
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._more()

    def _more(self) -> None:
        """Adds to the buffer and drops what was read; as much again as there is, so that long values stay linear."""
        piece = self._source.read(max(CHUNK_BYTES, len(self._text) - self._at))
        self._ended = not piece
        self._text = self._text[self._at :] + self._characters.decode(piece, final=self._ended)
        self._at = 0

    def _error(self, what: str) -> UserError:
        return UserError(f"{self._path}: {what}", REMEDY)
