"""The load of an experiment: lengths, shared prefixes, data sets, arrivals, whose server it goes to, what is scored.

Part of the spec, and written the same way in the config.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from rollout_bench.contracts.fields import (
    Count,
    Name,
    Number,
    Strict,
    Text,
    Tokens,
    Variable,
    VariableText,
    absent,
    brackets,
)

KEPT_UP = 0.95
"""A server that delivers at least this share of the rate that is offered keeps up."""


PAUSE_S = 1.0
"""Seconds that a launch rests between two of its loads."""


class _Bounded(Strict):
    low: Tokens = Field(1, description="The shortest; what is drawn below it is drawn again.")
    high: Tokens = Field(description="The longest; what is drawn above it is drawn again.")

    @model_validator(mode="after")
    def _order(self) -> _Bounded:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


class Uniform(_Bounded):
    """Every length from low to high is as likely."""

    distribution: Literal["uniform"] = Field(description="Which distribution it is.")


class Normal(_Bounded):
    """Normally distributed lengths, rounded."""

    distribution: Literal["normal"] = Field(description="Which distribution it is.")
    mean: Annotated[Number, Field(gt=0, le=1e7)] = Field(description="Mean, before the bounds cut it.")
    std: Annotated[Number, Field(gt=0, le=1e7)] = Field(description="Standard deviation, before the bounds cut it.")


class LogNormal(_Bounded):
    """Lengths whose logarithm is normally distributed: many short ones and a long tail, as answers have it."""

    distribution: Literal["lognormal"] = Field(description="Which distribution it is.")
    median: Annotated[Number, Field(gt=0, le=1e7)] = Field(description="Median, before the bounds cut it.")
    sigma: Annotated[Number, Field(gt=0, le=10)] = Field(
        description="Standard deviation of the natural logarithm: 1 has one length in six beyond 2.7 times the median."
    )


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
"""A number of tokens, or how it is distributed."""


DISTRIBUTIONS = ("uniform", "normal", "lognormal")
"""What a length can be but a number."""


def longest(length: Length) -> int:
    """Return the most tokens that `length` can come to."""
    return length if isinstance(length, int) else length.high


class SharedPrefix(Strict):
    """Tokens that prompts begin with together, as they do with a system prompt or few-shot examples."""

    tokens: Tokens = Field(description="How many of a prompt's tokens are shared; each prompt has at least one more.")
    groups: Count = Field(1, description="How many different prefixes there are; prompts take them in turn.")


DatasetFormat = Annotated[
    Literal["trace", "prompts", "sharegpt"],
    Field(
        description=(
            "trace: JSON lines of prompt_tokens, output_tokens, perhaps arrival_s and prompt_group; prompts: JSON "
            "lines with a prompt, or one prompt a line; sharegpt: a JSON list of conversations."
        )
    ),
]


class DatasetSpec(Strict):
    """A file that lengths or prompts come from, named by its content."""

    format: DatasetFormat
    sha256: str = Field(description="SHA-256 of the file; where it lies is not part of the experiment.")


def _rate(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("is true or false, but a rate is wanted")
    if isinstance(value, float) and math.isinf(value) and value > 0:
        return "inf"
    if isinstance(value, str) and value not in ("inf", "trace"):
        try:
            return float(value)
        except ValueError:
            raise ValueError(f"{value!r} is neither a number of requests per second, nor inf, nor trace") from None
    return value


Rate = Annotated[Annotated[float, Field(gt=0, le=1e6)] | Literal["inf", "trace"], BeforeValidator(_rate)]
"""Requests per second; inf sends all at once, trace when the data set says."""


Duration = Annotated[Number, Field(gt=0, le=86_400)]


class LoadPoint(Strict):
    """How the requests of one pass are sent."""

    concurrency: Count | None = Field(
        None, description="Requests under way at once, at most: the next is sent when one ends. Null: no limit."
    )
    request_rate: Rate = Field(
        "inf",
        description=(
            "Requests sent per second, whether or not earlier ones have ended; inf: all at once, or as soon as "
            "concurrency lets them; trace: when the data set says."
        ),
    )
    duration_s: Duration | None = absent(
        "Seconds in which requests are sent, at a request_rate or with a concurrency. Null: until all requests of the "
        "workload are sent."
    )
    requests: Count | None = absent(
        "Requests that are sent, through the prompts of the workload in order, and from the first again. Null: each "
        "once, or as many as duration_s takes."
    )

    stage: Count | None = absent(
        "Its place among the loads of a launch, from 1. Null where these rise, so that each is told by what it is."
    )

    @property
    def label(self) -> str:
        """How tables name it: `all at once`, `8 at once`, `4 req/s`, `as traced`, `stage 2: 8 at once for 30 s`."""
        rate = {"inf": "", "trace": "as traced"}.get(str(self.request_rate), f"{self.request_rate} req/s")
        rate = rate.replace(".0 req/s", " req/s")
        limit = "" if self.concurrency is None else f"{self.concurrency} at once"
        lasting = "" if self.duration_s is None else f" for {self.duration_s:g} s"
        lasting += "" if self.requests is None else f" for {self.requests} requests"
        stage = "" if self.stage is None else f"stage {self.stage}: "
        return stage + (", ".join(filter(None, [rate, limit])) or "all at once") + lasting

    @property
    def weight(self) -> tuple[float, float]:
        """By what loads are sorted from the lightest on; what is sent at once comes last."""
        rate = self.request_rate if isinstance(self.request_rate, float) else math.inf
        return rate, math.inf if self.concurrency is None else self.concurrency

    @property
    def due_requests(self) -> int | None:
        """How many requests it sends; None where nothing says it but the workload, or how fast answers come."""
        if self.requests is not None:
            return self.requests
        if self.duration_s is None or not isinstance(self.request_rate, float):
            return None
        return max(1, round(self.request_rate * self.duration_s))

    @property
    def least_s(self) -> float:
        """Seconds that a pass of it takes at the least; 0 where nothing says it but how fast answers come."""
        if self.duration_s is not None:
            return self.duration_s
        due = self.due_requests
        return 0.0 if due is None or not isinstance(self.request_rate, float) else (due - 1) / self.request_rate


def _burstiness(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("is true or false, but a number is wanted")
    if value in ("inf", float("inf")):
        return "constant"
    if isinstance(value, str) and value != "constant":
        try:
            return float(value)
        except ValueError:
            raise ValueError(f"{value!r} is neither a number nor constant") from None
    return value


Burstiness = Annotated[Annotated[float, Field(gt=0, le=1e6)] | Literal["constant"], BeforeValidator(_burstiness)]

Harness = Annotated[
    Literal["rollout-bench", "guidellm", "vllm-bench"],
    Field(
        description=(
            "What sends the requests of online launches: rollout-bench itself, or a command, which needs prompts_as: "
            "text: vllm-bench, `vllm bench serve`; guidellm, `guidellm run`."
        )
    ),
]


def _by_default(value: str | None) -> str | None:
    return None if value == "completions" else value


Api = Annotated[Literal["completions", "chat"] | None, AfterValidator(_by_default)]


class Traffic(Strict):
    """How requests arrive at a server, at one load or at several, as far as config and spec say the same."""

    burstiness: Burstiness = Field(
        1.0,
        description=(
            "How uneven arrivals are at a request_rate: 1, a Poisson process; below 1, in bursts; above, more even "
            "(the shape of the gamma distribution of the gaps); constant, with even gaps."
        ),
    )
    api: Api = absent(
        "What is asked for. completions, or null: /v1/completions; chat: /v1/chat/completions, the prompt as text in "
        "one message of the user, to which the server's chat template adds."
    )


class LoadSpec(Traffic):
    """How requests arrive at a server, and who sends them."""

    points: tuple[LoadPoint, ...] = Field(min_length=1, description="Loads that a launch measures one after the other.")
    token_ids: bool = Field(description="Whether prompts are sent as token ids; else as text.")
    harness: Harness
    harness_version: str | None = absent("Version of the package that provides it. Null: rollout-bench itself.")


ENDPOINT_VOCABULARY = 32_000
"""Token ids of prompts are drawn below this number where an endpoint's tokenizer does not say how many there are."""


class EndpointSpec(Strict):
    """A server that somebody else started."""

    url: Text = Field(description="Base address of its OpenAI-compatible API, up to and with /v1.")
    model: Text = Field(description="The model's name there, as /v1/models lists it.")
    api_key_env: Variable | None = Field(
        None, description="Environment variable that holds its API key. The key itself stands nowhere."
    )
    verify_tls: bool = Field(True, description="false: accept any certificate.")
    headers: dict[str, VariableText] = Field(
        {}, description="Further headers. ${NAME} stands for an environment variable, which secrets have to be in."
    )
    tokenizer: Text | None = absent(
        "Folder or hub id of its model's tokenizer, which makes the text of prompts that travel as text, and reads "
        "data sets of text; token ids of prompts are those that it has. Null: a common word stands for each token, and "
        f"token ids are below {ENDPOINT_VOCABULARY}."
    )


class DriftSettings(Strict):
    """Which tokens launches in mode drift score, and how many sequences at once."""

    prompts: Annotated[Count, Field(ge=2, le=65_536)] = Field(
        64, description="Prompts of the workload that the reference continues, once each: sequences that are scored."
    )
    tokens: Annotated[Count, Field(le=65_536)] = Field(
        128, description="Tokens that it samples after each prompt, at most: fewer where max_model_len has no room."
    )
    reference: Name = Field(
        "bf16",
        description="The quantization that samples the tokens, under the default setting, and that the others' "
        "probabilities are held against.",
    )
    batch_sizes: Annotated[
        list[Annotated[Count, Field(le=65_536)]],
        BeforeValidator(brackets),
        AfterValidator(lambda values: sorted(set(values))),
        Field(max_length=16),
    ] = Field([1, 64], description="Sequences that are scored at once: all of them are, with each of these numbers.")


class DriftSpec(Strict):
    """Which tokens are scored, and how many sequences at once."""

    prompts: int = Field(ge=2, description="Sequences that are scored.")
    tokens: int = Field(ge=1, description="Tokens that are sampled after each prompt, at most.")
    batch_sizes: tuple[int, ...] = Field(min_length=1, description="Sequences that are scored at once.")
    reference: str | None = absent(
        "Folder of the experiment whose first launch sampled the tokens, which ends in the key of its spec. Null in the"
        " reference itself."
    )
