"""The parts of the config that only online mode has: arrivals, servers of others, limits, and what good service is."""

from __future__ import annotations

import itertools
import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from rollout_bench.contracts.fields import Count, Folder, Name, Number, Strict, brackets
from rollout_bench.contracts.load import DatasetFormat, EndpointSpec, LoadPoint, Pacing, Rate, Traffic
from rollout_bench.core.secrets import may_be_secret

Milliseconds = Annotated[Number, Field(gt=0, le=1e9)]


def _url(value: str) -> str:
    if "@" in value:  # first, and without the value: it may hold a secret
        raise ValueError(
            "holds a user or password: put the key into an environment variable and name it in api_key_env"
        )
    if "?" in value or "#" in value:
        raise ValueError("has more than a path: write the address up to and with /v1")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{value!r} is no address: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or re.search(r"\s", value):
        raise ValueError(f"{value!r} is no address: write http://HOST:PORT/v1 or https://HOST/v1")
    if not parts.path.rstrip("/").endswith("/v1"):
        above = re.sub(r"(/v1)?(/chat)?(/completions|/models)?/?$", "", value)
        raise ValueError(f"{value!r} does not end in /v1: did you mean {above}/v1?")
    return value.rstrip("/")


def _rising(values: list[Any]) -> list[Any]:
    numbers = [float(value) for value in values if value != "trace"]
    if "trace" in values or any(a >= b for a, b in itertools.pairwise(numbers)):
        raise ValueError(f"{values} does not rise: write each once, the lowest first")
    return values


class LoadStage(Pacing):
    """One of the loads that follow each other: `request_rate`, `concurrency` or both, and for how long."""


class OnlineLoad(Traffic, Pacing):
    """How requests arrive at a server: `concurrency`, `request_rate`, both, or a sweep over one of them."""

    concurrencies: Annotated[list[Count], BeforeValidator(brackets), AfterValidator(_rising)] | None = Field(
        None, description="A sweep: each of these concurrencies in turn, behind one server launch."
    )
    request_rates: Annotated[list[Rate], BeforeValidator(brackets), AfterValidator(_rising)] | None = Field(
        None, description="A sweep: each of these rates in turn, behind one server launch."
    )
    stages: Annotated[list[LoadStage], BeforeValidator(brackets), Field(max_length=1000)] | None = Field(
        None,
        description=(
            "Loads that follow each other behind one server launch, in this order: each has a request_rate, a "
            "concurrency or both, and a duration_s."
        ),
    )
    prompts_as: Literal["token_ids", "text"] = Field(
        "token_ids",
        description="token_ids: lengths are exact. text: decoded first, for servers that take nothing else; flagged.",
    )

    @property
    def as_text(self) -> bool:
        """Whether prompts travel as text: messages of a chat always do."""
        return self.prompts_as == "text" or self.api == "chat"

    @property
    def points(self) -> tuple[LoadPoint, ...]:
        """The loads that are measured one after the other."""
        if self.stages is not None:
            return tuple(stage.to(LoadPoint, stage=number) for number, stage in enumerate(self.stages, 1))
        if self.concurrencies is not None:
            return tuple(self.to(LoadPoint, concurrency=concurrency) for concurrency in self.concurrencies)
        if self.request_rates is not None:
            return tuple(self.to(LoadPoint, request_rate=rate) for rate in self.request_rates)
        return (self.to(LoadPoint),)

    @field_validator("concurrency", "request_rate", mode="before")
    @classmethod
    def _one_value(cls, value: Any) -> Any:
        if isinstance(value, list):
            raise ValueError("is a list, which makes a sweep: write it as concurrencies or request_rates")
        return value

    @model_validator(mode="after")
    def _one_sweep(self) -> OnlineLoad:
        sweeps = [name for name in ("concurrencies", "request_rates", "stages") if getattr(self, name) is not None]
        if len(sweeps) > 1:
            raise ValueError(f"has {' and '.join(sweeps)}, but sweeps over one of them: keep one")
        if self.stages is not None and self.to(Pacing) != Pacing():
            raise ValueError(
                "has stages, each of which says how its requests are sent: put request_rate, concurrency, "
                "duration_s and requests into them"
            )
        if self.concurrencies is not None and self.concurrency is not None:
            raise ValueError("has concurrency and concurrencies: keep one")
        if self.request_rates is not None and self.request_rate != "inf":
            raise ValueError("has request_rate and request_rates: keep one")
        if self.burstiness != 1.0 and all(not isinstance(point.request_rate, float) for point in self.points):
            raise ValueError(
                "burstiness shapes arrivals at a request_rate, and there is none: give one, or leave it out"
            )
        for point in self.points:
            if point.duration_s is not None and point.request_rate == "inf" and point.concurrency is None:
                raise ValueError(
                    "duration_s says for how long requests are sent, and all are sent at once: give a request_rate or "
                    "a concurrency"
                )
        if any(point.duration_s is not None and point.requests is not None for point in self.points):
            raise ValueError("has duration_s and requests, each of which says when sending ends: keep one")
        return self


class Dataset(Strict):
    """A file that lengths or prompts come from. Its content becomes part of the experiment, its place does not."""

    format: DatasetFormat
    path: Folder = Field(description="The file, relative to the folder that snakemake runs in.")


class Slo(Strict):
    """What a request must keep to count as good. Null: no limit."""

    ttft_ms: Milliseconds | None = Field(None, description="Longest time to the first token, in milliseconds.")
    tpot_ms: Milliseconds | None = Field(None, description="Longest time per output token after it, in milliseconds.")
    e2el_ms: Milliseconds | None = Field(None, description="Longest end-to-end latency, in milliseconds.")

    @property
    def named(self) -> dict[str, float]:
        """The limits there are, in milliseconds, by their name."""
        return self.model_dump(exclude_none=True)


class Endpoint(EndpointSpec):
    """A server that is up already. It is measured as it is: nothing is started, stopped or proven."""

    quant: Name = Field(
        "unknown",
        description="What to call its quantization in tables; nobody proves it. Name the baseline's to have speed-ups.",
    )
    model_name: Name | None = Field(
        None, description="What to call its model in tables; endpoints of one name are compared. Null: the endpoint's."
    )

    _address = field_validator("url")(_url)

    @model_validator(mode="after")
    def _no_secrets(self) -> Endpoint:
        for name, value in self.headers.items():
            if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
                raise ValueError(f"headers: {name!r} is no name of a header")
            filled, variables = re.subn(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}", "", value)
            if "${" in filled:
                raise ValueError(f"headers: {name} has a ${{ that begins no variable: write ${{VARIABLE}}")
            if not variables and may_be_secret(name, value):
                raise ValueError(f"headers: {name} may be a secret: put it into a variable and write ${{VARIABLE}}")
        return self
