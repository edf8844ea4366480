"""A conversation with a server: its next turn, which repeats the last one and its answer."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import msgspec

from rollout_bench.measure.server.stream import TEMPLATE_TOKENS, Prompt, Question, RequestOutcome, Target
from rollout_bench.workloads.requests import Request


def question_of(prompt: Prompt, output_tokens: int, target: Target, *, goes_on: bool = False) -> Question:
    """Return a request with its body; encoding a long prompt takes a millisecond, so it is done before it is due."""
    how = {"stream": True, "stream_options": {"include_usage": True}}
    body = msgspec.json.encode({**target.asking(prompt, output_tokens), **how})
    return Question(body, output_tokens, TEMPLATE_TOKENS * target.chat, goes_on)


class Conversation:
    """A request and its further turns; one without further turns ends with its answer.

    Args:
        request: its first turn.
        prompt: the prompt of that, as the server receives it.
        question: the same with its body.
        said: the user's part of each further turn.
        target: the server.
    """

    def __init__(
        self, request: Request, prompt: Prompt, question: Question, said: Sequence[Prompt], target: Target
    ) -> None:
        self._first, self._said, self._target = (request, prompt, question), said, target
        self.lock = asyncio.Lock()
        """Held by the turn that is under way."""
        self.round = -1
        """How often it has begun again."""
        self.begin()

    def begin(self) -> None:
        """Begin, perhaps again, with the first turn."""
        request, self._prompt, self.question = self._first
        self.turn = replace(request, turn=1)
        """The next turn."""
        self.ready_s, self.is_over = 0.0, False
        self.round += 1

    def take(self, outcome: RequestOutcome) -> None:
        """Make the next turn from the answer to the last one; without one, or without an answer, it is over."""
        request, _, _ = self._first
        place, number = (self.turn.turn or 1) - 1, (self.turn.turn or 1) + 1
        self.is_over = place == len(request.further) or not self._can_repeat(outcome)
        if request.further:  # its user thinks also before it begins again
            self.ready_s = (outcome.ended_s or 0.0) + request.further[min(place, len(request.further) - 1)].tool_s
        if self.is_over:
            return
        further = request.further[place]
        self._prompt = self._target.continued(self._prompt, outcome, self._said[place])
        # of a text, only the server knows the tokens: these are as many
        about = [*self.turn.prompt_token_ids, *([0] * outcome.output_tokens), *further.tool_token_ids]
        token_ids = self._prompt if isinstance(self._prompt, list) else about
        self.turn = replace(
            request, turn=number, prompt_token_ids=token_ids, output_tokens=further.output_tokens, further=()
        )
        goes_on = place + 1 < len(request.further)
        self.question = question_of(self._prompt, further.output_tokens, self._target, goes_on=goes_on)

    def _can_repeat(self, outcome: RequestOutcome) -> bool:
        """Return whether the next turn can repeat an answer; one without all its token ids fails."""
        came, has_ended = len(outcome.token_ids), outcome.error is None and outcome.ended_s is not None
        if has_ended and isinstance(self._prompt, list) and came != outcome.output_tokens:
            outcome.error = f"{came} token ids came with {outcome.output_tokens} tokens, and the next turn repeats them"
        return outcome.error is None and has_ended
