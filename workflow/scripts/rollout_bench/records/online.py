"""What only online records hold: what sending cost, and what the server said of itself and of each pass."""

from __future__ import annotations

from pydantic import Field

from rollout_bench.plan.strict import Strict


class Served(Strict):
    """What a server said of itself."""

    model: str = Field(description="The model's name in /v1/models.")
    version: str | None = Field(description="What /version says. Null where there is no such thing.")
    max_model_len: int | None = Field(description="What /v1/models says. Null where it does not.")
    owned_by: str | None = Field(None, description="What /v1/models says of the model's owner: vllm, llamacpp, ...")
    token_ids: bool = Field(True, description="Whether it takes prompts as token ids.")
    counts_tokens: bool = Field(True, description="Whether its answers let every token be counted.")


class ClientUse(Strict):
    """What it cost to send the requests of one pass and to receive the answers."""

    cpu_share: float = Field(
        ge=0, description="CPU time of the process that sends, over the pass's: 1 is a core. The busiest of several."
    )
    loop_delay_median_s: float | None = Field(
        None, ge=0, description="By how much the event loop was late, in seconds, half of the time."
    )
    loop_delay_p99_s: float | None = Field(None, ge=0, description="As above, 99 % of the time.")
    loop_delay_max_s: float | None = Field(None, ge=0, description="As above, at worst.")


class ServerUse(Strict):
    """What the server's counters and histograms rose by in one pass; means are sums over counts."""

    round_trip_s: float | None = Field(None, ge=0, description="Median time of a request that does nothing, before it.")
    requests: int | None = Field(None, ge=0, description="Requests that ended well.")
    prompt_tokens: int | None = Field(None, ge=0, description="Prompt tokens it counted.")
    output_tokens: int | None = Field(None, ge=0, description="Tokens it generated.")
    ttft_mean_s: float | None = Field(None, ge=0, description="Mean time to first token, as the server sees it.")
    itl_mean_s: float | None = Field(None, ge=0, description="Mean time between two tokens.")
    e2el_mean_s: float | None = Field(None, ge=0, description="Mean end-to-end latency.")
    queue_mean_s: float | None = Field(None, ge=0, description="Mean time a request waited to be scheduled.")
    preemptions: int | None = Field(None, ge=0, description="Preemptions.")
    prefix_cache_queries: int | None = Field(None, ge=0, description="Prompt tokens looked up in the prefix cache.")
    prefix_cache_hits: int | None = Field(None, ge=0, description="Of these, found.")


class ServerSample(Strict):
    """The server's metrics at one moment: a line of the side file. Counters are since the server began."""

    iteration: int = Field(ge=0, description="Index of the iteration.")
    at_s: float = Field(description="When, in seconds after the iteration began.")
    running: float | None = Field(None, description="Requests being computed.")
    waiting: float | None = Field(None, description="Requests waiting.")
    kv_cache_use: float | None = Field(None, description="Share of the KV cache in use, 0 to 1.")
    preemptions: float | None = Field(None, description="Preemptions so far.")
    prefix_cache_queries: float | None = Field(None, description="Prompt tokens looked up so far.")
    prefix_cache_hits: float | None = Field(None, description="Of these, found.")
    queue_sum_s: float | None = Field(None, description="Time that requests waited so far, summed.")
    queue_count: float | None = Field(None, description="Requests in that sum.")
    output_tokens: float | None = Field(None, description="Tokens generated so far.")
