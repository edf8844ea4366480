"""What a cluster calls the devices of a launch."""

from __future__ import annotations

from difflib import get_close_matches

from rollout_bench.errors import UserError, near_miss
from rollout_bench.plan.kubernetes import is_qualified
from rollout_bench.plan.spec import Platform

USUAL = {"cuda": "nvidia.com/gpu", "ascend": "huawei.com/Ascend910"}
"""Extended resource of a platform's devices: what NVIDIA's and Ascend's device plugins call them."""

KNOWN = (*USUAL.values(), "huawei.com/Ascend310P", "amd.com/gpu")


def device_resource(configured: str | None, platform: Platform) -> str | None:
    """The extended resource that launches ask for; None where devices are no resource: on cpu, of others' servers.

    Args:
        configured: `cluster.device_resource`.

    Raises:
        UserError: it is no name of an extended resource, or another spelling of a known one.
    """
    if configured is None:
        return USUAL.get(platform)
    where = f"config: cluster.device_resource: {configured!r}"
    if "/" not in configured:
        meant = USUAL.get(platform) or near_miss(configured, KNOWN) or "nvidia.com/gpu"
        raise UserError(f"{where} has no domain, and Kubernetes wants DOMAIN/NAME", f"did you mean '{meant}'?")
    domain, _, name = configured.partition("/")
    vendors = [known.partition("/")[0] for known in KNOWN]
    vendor = next(iter(get_close_matches(domain.lower(), vendors, n=1, cutoff=0.85)), domain)
    meant = next((known for known in KNOWN if known.lower() == f"{vendor}/{name}".lower()), f"{vendor}/{name}")
    if meant != configured:
        raise UserError(f"{where} is nothing that the known device plugins offer", f"did you mean '{meant}'?")
    if not is_qualified(configured):
        raise UserError(f"{where} is no resource: Kubernetes wants DOMAIN/NAME", f"for instance '{KNOWN[0]}'")
    return configured
