"""What a record keeps of each replica, where a launch has several engines that are released together."""

from __future__ import annotations

from pydantic import Field

from rollout_bench.plan.strict import Strict


class ReplicaPass(Strict):
    """One replica's part of an iteration."""

    start_offset_s: float = Field(
        ge=0, description="When it began, in seconds after the release, which is when the first of them began."
    )
    elapsed_s: float = Field(
        gt=0, description="From handing over its first request until its last token was back, in seconds."
    )
    requests: int = Field(ge=0, description="Requests handed to it.")
    sequences: int = Field(ge=0, description="Sequences that came back.")
    prompt_tokens: int = Field(ge=0, description="Prompt tokens of all its sequences.")
    cached_prompt_tokens: int | None = Field(
        None, ge=0, description="Prompt tokens that it took from its prefix cache. Null where it does not say."
    )
    output_tokens: int = Field(ge=0, description="Tokens that it generated.")

    @property
    def end_s(self) -> float:
        """When its last token was back, in seconds after the release."""
        return self.start_offset_s + self.elapsed_s


class ReplicaStart(Strict):
    """What one replica's start took; they start side by side."""

    import_s: float = Field(ge=0, description="Importing the engine, in seconds.")
    init_s: float = Field(ge=0, description="Constructing the engine until it takes requests, in seconds.")
    kv_cache_tokens: int | None = Field(None, description="Tokens that fit into its KV cache. Null where unknown.")
