"""Steps of an engine: the work that its scheduler put into each, and its time."""

from pydantic import Field

from rollout_bench.contracts.fields import Strict


class StepWork(Strict):
    """The work of one step: some sequences compute a part of their prompt, the others one token each."""

    prefills: int = Field(ge=0, description="Sequences that compute a part of their prompt.")
    prefill_tokens: int = Field(ge=0, description="Prompt tokens that are computed; cached ones are not.")
    prefill_pairs: int = Field(
        ge=0,
        description=(
            "Pairs of a computed prompt token and a token that it attends to, itself included: n (c + (n + 1) / 2) for "
            "n tokens after c earlier ones."
        ),
    )
    decodes: int = Field(ge=0, description="Sequences that compute one token.")
    context_tokens: int = Field(ge=0, description="Tokens in the KV cache that these attend to, their own included.")

    @property
    def tokens(self) -> int:
        """Computed tokens."""
        return self.prefill_tokens + self.decodes


class TimedStep(StepWork):
    """A measured step."""

    elapsed_s: float = Field(
        gt=0,
        description=(
            "From the end of the previous step, or from the beginning of scheduling if that is later, until the "
            "scheduler had processed the output, in seconds: these times do not overlap."
        ),
    )
