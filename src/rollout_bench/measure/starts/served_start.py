"""The start of vLLM's server, from its process to a first token over HTTP, as whoever waits for it sees it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollout_bench.contracts.record import SequenceRow
from rollout_bench.contracts.spec import Spec
from rollout_bench.measure.server.server import Server
from rollout_bench.measure.server.session import (
    Connection,
    Opened,
    check_answer,
    connection_to,
    opened_own,
    reaching,
    served_alone,
    vocabulary_behind,
)
from rollout_bench.measure.server.stream import ServingFailed, parsed
from rollout_bench.measure.starts import noted_server
from rollout_bench.measure.starts.start_notes import StartNote, read_notes
from rollout_bench.measure.starts.start_phases import StartSpan, noted_spans
from rollout_bench.workloads.requests import Request

FRONT_END = ("Supported tasks:", "Starting vLLM server on")
"""Lines that the server logs once it has its engine; the first one that there is counts."""

LOOK_S = 0.02
"""How often the notes are looked at: a short file, so that nothing is taken from the start."""

KNOCK_S = 0.005
"""How often a server is asked that is about to listen."""

FIRST_TOKEN_S = 1800.0
"""How long the first token may take, which some engines compile for; the launch has limits of its own."""

LOOKS = 25
"""Looks at the notes between two questions whether it listens all the same: that goes through its descriptors."""


@dataclass(frozen=True)
class ServedStart:
    """A server that has started, and its first token. Times are on the monotonic clock, in seconds.

    Attributes:
        opened: the server.
        spans: its phases, which may overlap.
        notes: what its processes noted.
        began: when its process was started, or had the word.
        imports: when it began to import the engine.
        import_s: how long that took; 0 where it had done so before it had the word.
        constructing: when all was imported, and it had the word.
        up: when it answered that it is healthy.
        sent: when the request was sent.
        token: when its answer was back.
        row: what came of the request.
    """

    opened: Opened
    spans: list[StartSpan]
    notes: list[StartNote]
    began: float
    imports: float
    import_s: float
    constructing: float
    up: float
    sent: float
    token: float
    row: SequenceRow


class StartingServer:
    """A server whose start is to be looked at.

    Args:
        spec: what is started.
        model: folder or hub id of the weights.
        more: arguments of the engine besides those of `spec`.
        notes: the file that its processes note in.
        waits: whether it is to import everything, and begin with the word.
    """

    def __init__(self, spec: Spec, model: str, more: dict[str, Any], notes: Path, waits: bool) -> None:
        self._spec, self._model, self._notes, self._waits = served_alone(spec), model, notes, waits
        os.environ.pop(noted_server.WAITS, None)
        if waits:
            os.environ[noted_server.WAITS] = "1"
        self.began = time.monotonic()
        self._server = Server(self._spec, model, more, noted_server.__name__, waits)
        if waits:
            self.wait_until_imported()

    def wait_until_imported(self) -> None:
        """Wait until it has imported everything; raise `ServingFailed` where it ends."""
        while self._at(noted_server.IMPORTED) is None:
            self._server.check()
            time.sleep(LOOK_S)

    def begin(self) -> None:
        """Give the word to a server that waits."""
        if self._waits:
            self.began = time.monotonic()
            self._server.begin()

    def first_token(self, request_for: Callable[[int], Request]) -> ServedStart:
        """Wait until it is up, and have it generate a token.

        Args:
            request_for: returns the request, of the model's number of token ids.

        Raises:
            ServingFailed: it ended, or answers nothing.
        """
        connection = connection_to(self._spec, self._model, self._server, self._port())
        with reaching("the server"):
            while connection.ask("GET", "/health")[0] != 200:
                self._server.check()
                time.sleep(KNOCK_S)
            up = time.monotonic()
            request = request_for(vocabulary_behind(connection))
            sent = time.monotonic()
            path = connection.target.asked_at.removeprefix(connection.target.root)
            asked = connection.target.asking(request.prompt_token_ids, 1)
            status, text = connection.ask("POST", path, asked, FIRST_TOKEN_S)
            token = time.monotonic()
            check_answer(status, text, connection.target)
        row = _row(request, connection, text, token - sent)
        opened = opened_own(self._spec, self._model, self._server, connection)
        notes = read_notes(self._notes)
        times = {text: at for text in _OWN if (at := _first(notes, text)) is not None}
        imported = times.get(noted_server.IMPORTED, self.began)
        began = max(imported, self.began)
        configured = times.get(noted_server.CONFIGURED, began)
        ready = next((at for text in FRONT_END if (at := _first(notes, text, configured)) is not None), up)
        spans = [
            StartSpan(name="import", began=times.get(noted_server.IMPORTS, self.began), ended=imported),
            StartSpan(
                name="platform",
                began=times.get(noted_server.ASKS, imported),
                ended=times.get(noted_server.ANSWERED, imported),
            ),
            StartSpan(name="config", began=began, ended=configured),
            *noted_spans(notes, configured, ready),
            StartSpan(name="server_up", began=ready, ended=up),
            # Between the two lies what making the request took, which is ours and no part of a start.
            StartSpan(name="first_token", began=up, ended=up + token - sent),
        ]
        return ServedStart(
            opened=opened,
            spans=spans,
            notes=notes,
            began=self.began,
            imports=spans[0].began,
            import_s=0.0 if self._waits else imported - spans[0].began,
            constructing=began,
            up=up,
            sent=sent,
            token=token,
            row=row,
        )

    def _port(self) -> int:
        """Wait until it listens, and return where; whoever calls has a limit of its own."""
        looks, near = 0, False
        while True:
            near = near or any(self._at(text) is not None for text in FRONT_END)
            looks += 1
            if near or not looks % LOOKS:
                port = self._server.port()
                if port is not None:
                    return port
            self._server.check()
            time.sleep(KNOCK_S if near else LOOK_S)

    def _at(self, text: str) -> float | None:
        return _first(read_notes(self._notes), text)


_OWN = (
    noted_server.IMPORTS,
    noted_server.ASKS,
    noted_server.ANSWERED,
    noted_server.IMPORTED,
    noted_server.CONFIGURED,
)


def _first(notes: Sequence[StartNote], text: str, since: float = 0.0) -> float | None:
    return next((note.at for note in notes if note.at >= since and note.text.startswith(text)), None)


def _row(request: Request, connection: Connection, text: str, elapsed_s: float) -> SequenceRow:
    """Return what came of the request, sent at second 0; raise `ServingFailed` where that is no completion."""
    content = parsed(text)
    try:
        (choice,), counted = content["choices"], int(content["usage"]["prompt_tokens"])
        tokens, reason = len(choice["token_ids"]), str(choice["finish_reason"])
    except (KeyError, TypeError, ValueError):
        cause = f"the server answers no completion: {connection.target.quoted(text, 200)}"
        raise ServingFailed("request_refused", cause, "read the end of the log") from None
    return SequenceRow(
        iteration=0,
        prompt=request.prompt,
        sample=request.sample,
        prompt_tokens=counted,
        output_tokens=tokens,
        finish_reason=reason,
        first_token_s=round(elapsed_s, 6),
        last_token_s=round(elapsed_s, 6),
    )
