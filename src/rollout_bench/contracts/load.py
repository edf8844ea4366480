"""The load of an experiment: lengths, shared prefixes, data sets, arrivals, endpoints and scored tokens.

It is part of the spec and has the same form in the config.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from rollout_bench.contracts.fields import (
    Count,
    Number,
    Strict,
    Text,
    Tokens,
    Variable,
    VariableText,
    absent,
)

KEPT_UP = 0.95
"""A server keeps up if it delivers at least this share of the offered rate."""


PAUSE_S = 1.0
"""Pause of a launch between two of its loads, in seconds, if nothing else is set."""


class _Bounded(Strict):
    low: Tokens = Field(1, description="Minimum length; shorter draws are repeated, unless beyond says otherwise.")
    high: Tokens = Field(description="Maximum length; longer draws are repeated, unless beyond says otherwise.")

    @model_validator(mode="after")
    def _order(self) -> "_Bounded":
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


class Uniform(_Bounded):
    """Uniformly distributed lengths from low to high."""

    distribution: Literal["uniform"] = Field(description="Name of the distribution.")


class _Bell(_Bounded):
    beyond: Literal["clipped"] | None = absent(
        "clipped: draws beyond the bounds become the bound itself, as in load generators. Null: they are repeated."
    )


class Normal(_Bell):
    """Normally distributed lengths, rounded."""

    distribution: Literal["normal"] = Field(description="Name of the distribution.")
    mean: Annotated[Number, Field(gt=0, le=1e7)] = Field(description="Mean, before truncation to the bounds.")
    std: Annotated[Number, Field(gt=0, le=1e7)] = Field(
        description="Standard deviation, before truncation to the bounds."
    )


class LogNormal(_Bell):
    """Log-normally distributed lengths: many short ones and a long tail, as in real answers."""

    distribution: Literal["lognormal"] = Field(description="Name of the distribution.")
    median: Annotated[Number, Field(gt=0, le=1e7)] = Field(description="Median, before truncation to the bounds.")
    sigma: Annotated[Number, Field(gt=0, le=10)] = Field(
        description=(
            "Standard deviation of the natural logarithm: with 1, one length in six is above 2.7 times the median."
        )
    )
    offset: Tokens | None = absent(
        "Length at which the distribution begins, as behind a shared prefix: median and sigma are of the tokens beyond "
        "it, low and high of all. Null: 0."
    )

    @model_validator(mode="after")
    def _begins_below(self) -> "LogNormal":
        if self.offset is not None and self.low <= self.offset:
            raise ValueError(f"low {self.low} is not above offset {self.offset}")
        return self


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("distribution", ""))
    return str(value.distribution) if isinstance(value, _Bounded) else "fixed"  # type: ignore[attr-defined]


Length = Annotated[
    Annotated[Tokens, Tag("fixed")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[Normal, Tag("normal")]
    | Annotated[LogNormal, Tag("lognormal")],
    Discriminator(_kind),
]
"""A number of tokens, or its distribution."""


LENGTHS: dict[str, type[_Bounded]] = {"uniform": Uniform, "normal": Normal, "lognormal": LogNormal}
"""Distribution of lengths -> its keys."""

DISTRIBUTIONS = tuple(LENGTHS)


def longest(length: Length) -> int:
    """Return the maximum number of tokens of `length`."""
    return length if isinstance(length, int) else length.high


def _few(count: Length) -> Length:
    if longest(count) > MOST_TURNS:
        raise ValueError(f"asks for up to {longest(count)} turns, but {MOST_TURNS} is the maximum")
    return count


MOST_TURNS = 1_000
"""Maximum number of turns of a sequence."""


class Turns(Strict):
    """Turns of each sequence: after every answer but the last, a tool or a user takes time and adds to the context."""

    count: Annotated[Length, AfterValidator(_few)] = Field(
        description="Answers of a sequence, each of output_tokens: a number, or a distribution."
    )
    tool_ms: Length = Field(
        description=(
            "Milliseconds from an answer until the tool's result, or the user's next words, while the sequence needs "
            "no engine: a number, or a distribution, with its bounds in milliseconds."
        )
    )
    tool_tokens: Length = Field(
        description="Tokens of the tool's result, or of the user's words: a number, or a distribution."
    )


class SharedPrefix(Strict):
    """Tokens at the beginning of several prompts, as in system prompts or few-shot examples."""

    tokens: Tokens = Field(
        description="Shared tokens at the beginning of a prompt; each prompt has at least one more token."
    )
    groups: Count = Field(1, description="Number of different prefixes; prompts use them alternately.")


DatasetFormat = Annotated[
    Literal["trace", "prompts", "messages", "sharegpt"],
    Field(
        description=(
            "JSON lines, or a JSON list. trace: prompt_tokens, output_tokens, perhaps arrival_s, "
            "prompt_group, or turns; prompts: a prompt, or plain text with one a line; messages: role and content, "
            "for the model's chat template; sharegpt: conversations, as a JSON list or JSON lines."
        )
    ),
]


OUTPUT_LENGTHS = (
    "workload: answers have the workload's output_tokens, whatever the file says. Null: lengths or answers in the file "
    "set them, if it has any."
)


class DatasetSpec(Strict):
    """A file with lengths or prompts, identified by its content."""

    format: DatasetFormat
    output_lengths: Literal["workload"] | None = absent(OUTPUT_LENGTHS)
    sha256: str = Field(description="SHA-256 of the file; its path is not part of the experiment.")


def _number_or(*words: str) -> BeforeValidator:
    """Return a validator of a number, also as text, or one of `words`, of which the first means infinite."""

    def read(value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("is true or false, but must be a number")
        if isinstance(value, str) and value not in words:
            try:
                value = float(value)
            except ValueError:
                raise ValueError(f"{value!r} is neither a number nor {' nor '.join(words)}") from None
        return words[0] if value == math.inf else value

    return BeforeValidator(read)


Rate = Annotated[Annotated[float, Field(gt=0, le=1e6)] | Literal["inf", "trace"], _number_or("inf", "trace")]
"""Requests per second; inf sends all immediately, trace uses the arrival times of the data set."""


Duration = Annotated[Number, Field(gt=0, le=86_400)]


ROTATING = (
    "rotating: all conversations of the workload are open, and their next turns are due one after the other, as in "
    "inference-perf; concurrency, request_rate and requests count turns, and a conversation begins again after its "
    "end. Null: they count conversations, each of which goes on as soon as its user has thought."
)


class LoadPoint(Strict):
    """Arrival of the requests of one iteration."""

    concurrency: Count | None = Field(
        None, description="Maximum number of simultaneous requests: the next is sent when one ends. Null: no limit."
    )
    request_rate: Rate = Field(
        "inf",
        description=(
            "Requests sent per second, whether or not earlier ones have ended; inf: all immediately, or as soon "
            "as concurrency permits; trace: at the arrival times of the data set."
        ),
    )
    duration_s: Duration | None = absent(
        "Seconds during which requests are sent, at a request_rate or with a concurrency. Null: until all "
        "requests of the workload are sent."
    )
    requests: Count | None = absent(
        "Number of requests to send, in the order of the workload, which must have as many sequences. "
        "Null: each once, or as many as fit into duration_s."
    )
    conversations: Literal["rotating"] | None = absent(ROTATING)

    stage: Count | None = absent(
        "Position among the loads of a launch, from 1. Null if the loads rise, so that their values identify them."
    )

    @property
    def label(self) -> str:
        """Name in tables: `all at once`, `8 at once`, `4 req/s`, `as traced`, `stage 2: 8 at once for 30 s`.

        Only a stage says how long it lasts: other loads differ in rate or concurrency.
        """
        return self._pace if self.stage is None else f"stage {self.stage}: {self.asked}"

    @property
    def asked(self) -> str:
        """The load with its length: `4 req/s for 30 s`, `8 at once for 100 requests`."""
        lasting = "" if self.duration_s is None else f" for {self.duration_s:g} s"
        lasting += "" if self.requests is None else f" for {self.requests} requests"
        return self._pace + lasting

    @property
    def _pace(self) -> str:
        rate = {"inf": "", "trace": "as traced"}.get(str(self.request_rate), f"{self.request_rate} req/s")
        rate = rate.replace(".0 req/s", " req/s")
        limit = "" if self.concurrency is None else f"{self.concurrency} at once"
        return ", ".join(filter(None, [rate, limit])) or "all at once"

    @property
    def weight(self) -> tuple[float, float]:
        """Sort key of loads, the lightest first; loads that send all requests immediately come last."""
        rate = self.request_rate if isinstance(self.request_rate, float) else math.inf
        return rate, math.inf if self.concurrency is None else self.concurrency

    @property
    def due_requests(self) -> int | None:
        """Number of requests; None if it depends on the workload or on the speed of the answers."""
        if self.requests is not None:
            return self.requests
        if self.duration_s is None or not isinstance(self.request_rate, float):
            return None
        return max(1, round(self.request_rate * self.duration_s))

    @property
    def least_s(self) -> float:
        """Minimum duration of an iteration, in seconds; 0 if it depends on the speed of the answers."""
        if self.duration_s is not None:
            return self.duration_s
        due = self.due_requests
        return 0.0 if due is None or not isinstance(self.request_rate, float) else (due - 1) / self.request_rate


Burstiness = Annotated[Annotated[float, Field(gt=0, le=1e6)] | Literal["constant"], _number_or("constant")]

Harness = Annotated[
    Literal["rollout-bench", "guidellm", "vllm-bench", "inference-perf"],
    Field(
        description=(
            "Sender of the requests of online launches: rollout-bench itself, or a command, which needs prompts_as: "
            "text: vllm-bench, `vllm bench serve`; guidellm, `guidellm run`; inference-perf."
        )
    ),
]


Api = Annotated[
    Literal["completions", "chat"] | None, AfterValidator(lambda value: None if value == "completions" else value)
]


class Traffic(Strict):
    """Arrival of requests at a server, at one load or several: the settings that config and spec share."""

    burstiness: Burstiness = Field(
        1.0,
        description=(
            "Unevenness of arrivals at a request_rate: 1, a Poisson process; below 1, in bursts; above 1, more "
            "even (the shape of the gamma distribution of the gaps); constant, with even gaps."
        ),
    )
    api: Api = absent(
        "Requested endpoint. completions, or null: /v1/completions; chat: /v1/chat/completions, with the "
        "prompt as text in one message of the user, to which the server's chat template adds."
    )
    request_timeout_s: Duration | None = absent(
        "Seconds after which a request is given up that has no whole answer; it has failed. Null: none is given up."
    )
    pause_s: Annotated[Number, Field(ge=0, le=86_400)] | None = absent(
        f"Seconds from the end of a load to the start of the next one. Null: {PAUSE_S:g}."
    )

    @property
    def between_loads_s(self) -> float:
        """Pause of a launch between two of its loads, in seconds."""
        return PAUSE_S if self.pause_s is None else self.pause_s


class LoadSpec(Traffic):
    """Arrival of requests at a server, and their sender."""

    points: tuple[LoadPoint, ...] = Field(min_length=1, description="Loads that a launch measures one after the other.")
    token_ids: bool = Field(description="Whether prompts are sent as token ids; else as text.")
    harness: Harness
    harness_version: str | None = absent("Version of the harness's package. Null: rollout-bench itself.")

    @property
    def rotates(self) -> bool:
        """Whether loads count turns, as all conversations are open."""
        return any(point.conversations is not None for point in self.points)


ENDPOINT_VOCABULARY = 8_000
"""Upper limit of prompts' token ids for an endpoint whose tokenizer does not give the size of its vocabulary.

Small models have fewer ids than large ones, and a server without a tokenizer can end on an id that its model lacks.
"""


class EndpointSpec(Strict):
    """A server that was started outside of rollout-bench."""

    url: Text = Field(description="Base address of its OpenAI-compatible API, up to and with /v1.")
    model: Text = Field(description="The model's name there, as /v1/models lists it.")
    api_key_env: Variable | None = Field(
        None, description="Environment variable that holds its API key. The key itself is not stored."
    )
    verify_tls: bool = Field(True, description="false: accept any certificate.")
    headers: dict[str, VariableText] = Field(
        {}, description="Further headers. ${NAME} is replaced by an environment variable, which secrets must use."
    )
    tokenizer: Text | None = absent(
        "Folder or hub id of its model's tokenizer, for prompts that are sent as text, for "
        "data sets of text, and for the range of token ids. Null: prompts as text have a common word per token, and "
        f"token ids are below {ENDPOINT_VOCABULARY}."
    )


class Places(Strict):
    """What a run needs from elsewhere: servers, and hub ids of models."""

    endpoints: tuple[EndpointSpec, ...] = ()
    hub: tuple[str, ...] = ()
