"""The plan of profiles: steps that can be traced."""

import re
from typing import Any

from rollout_bench.contracts.load import LoadPoint, LoadSpec, longest
from rollout_bench.contracts.spec import Platform
from rollout_bench.core.errors import UserError
from rollout_bench.modes.profile.settings import ProfileSettings
from rollout_bench.plan.config import Config
from rollout_bench.plan.engine import InstalledEngine
from rollout_bench.plan.planning import Planning

WINDOWS_SINCE = (0, 32)
"""First vLLM version whose server accepts a window with /start_profile: present in the source of 0.32, not of 0.23."""


class ProfilePlanning(Planning):
    """The plan of profiles."""

    def mode_spec(self, config: Config, args: dict[str, Any], platform: Platform) -> ProfileSettings:
        """Return the traced steps."""
        return config.of(ProfileSettings)

    def load(self, config: Config) -> LoadSpec | None:
        """Return the arrival of requests if a server is profiled, which receives all immediately, as offline."""
        if config.of(ProfileSettings).through != "server":
            return None
        return LoadSpec(points=(LoadPoint(),), token_ids=True, harness="rollout-bench")

    def check(self, config: Config, engine: InstalledEngine) -> None:
        """Check that there are steps to trace, and that traces have a limit."""
        release = tuple(int(part) for part in re.findall(r"\d+", engine.version)[:2])
        if config.of(ProfileSettings).through == "server" and release < WINDOWS_SINCE:
            raise UserError(
                f"config: profile.through: vLLM {engine.version} cannot limit the number of steps in "
                "/start_profile, so the trace would have no limit",
                "set profile.through: engine, or use vLLM 0.32 or later",
            )
        for name in config.workloads:
            if longest(config.workload_settings[name].output_tokens) < 2:
                raise UserError(
                    f"config: workload_settings.{name}.output_tokens: a profile has no decode steps to trace: "
                    f"{name} generates one token",
                    "ask for more output_tokens, or leave profile out of modes",
                )


PLANNING = ProfilePlanning()
