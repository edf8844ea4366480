"""The amounts of each measured iteration, which numbers are ratios of."""

from collections.abc import Sequence

from rollout_bench.contracts.modes import mode_of
from rollout_bench.contracts.record import Iteration, Record
from rollout_bench.contracts.spec import devices_of_rate
from rollout_bench.numbers.number import ONE
from rollout_bench.numbers.replicas import columns_of_replicas


def columns_of(record: Record) -> list[dict[str, float]]:
    """Return the columns of each measured iteration of `record`, as far as its own file has them."""
    measured = [iteration for iteration in record.iterations if not iteration.warmup]
    devices = devices_of_rate(record.spec)
    of_mode = mode_of(record.spec.mode).columns
    return [
        {
            ONE: 1,
            "elapsed_s": iteration.elapsed_s,
            "device_s": iteration.elapsed_s * devices,
            "output_tokens": iteration.output_tokens,
            "prompt_tokens": iteration.prompt_tokens,
            "total_tokens": iteration.prompt_tokens + iteration.output_tokens,
            "requests": iteration.requests,
            "sequences": iteration.sequences,
        }
        | columns_of_replicas(iteration)
        | (dict(of_mode.get()(iteration, record.spec)) if of_mode else {})
        | _drafted(iteration)
        | _in_graphs(iteration)
        | ({} if iteration.routed_bytes is None else {"routed_bytes": iteration.routed_bytes})
        | energy
        for iteration, energy in zip(measured, _energies(measured), strict=True)
    ]


def _drafted(iteration: Iteration) -> dict[str, float]:
    if (done := iteration.drafting) is None:
        return {}
    # The last draft of a sequence may be accepted beyond its last token, so the difference alone could be too small.
    steps = max(done.drafts, iteration.output_tokens - iteration.sequences - done.accepted_tokens)
    return {
        "drafts": done.drafts,
        "draft_tokens": done.draft_tokens,
        "accepted_tokens": done.accepted_tokens,
        "tokens_of_drafts": done.drafts + done.accepted_tokens,
        "sequence_steps": steps,
        "tokens_of_steps": steps + done.accepted_tokens,
    }


def _in_graphs(iteration: Iteration) -> dict[str, float]:
    if (done := iteration.graphs) is None:
        return {}
    return {
        "decode_steps": done.decode_steps,
        "graph_steps": done.in_graphs,
        "padded_tokens": done.padded_tokens,
        "padding_tokens": done.padded_tokens - done.tokens,
    }


def _energies(measured: Sequence[Iteration]) -> list[dict[str, float]]:
    """Return the energy of each iteration; nothing unless the energy of all is known and not zero."""
    nothing: list[dict[str, float]] = [{} for _ in measured]
    if any(not it.devices or None in [use.energy_j for use in it.devices] for it in measured):
        return nothing
    energies = [_energy(it) for it in measured]
    return energies if sum(each["energy_j"] for each in energies) else nothing


def _energy(iteration: Iteration) -> dict[str, float]:
    uses = iteration.devices or []
    energy = {
        "energy_j": sum(use.energy_j or 0 for use in uses),
        "window_s": sum(use.window_s or 0 for use in uses),
    }
    if all(use.power_limit_w for use in uses):
        energy["allowed_j"] = sum((use.power_limit_w or 0) * (use.window_s or 0) for use in uses)
    return energy
