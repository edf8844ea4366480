"""Base classes of the models in a mode's folder: its own settings in a spec, and its own fields in an iteration."""

from typing import Any, ClassVar

from rollout_bench.contracts.fields import Strict


class ModeSpec(Strict):
    """The settings of a spec that only its mode has; the defaults are those of modes without any."""

    replicas_key: ClassVar[str] = "data_parallel_size"
    """Key of the config for the number of engines."""

    devices_key: ClassVar[str] = ""
    """Key of the config for the number of devices; empty if the engine's arguments set it."""

    def follows(self, experiment: str) -> str | None:
        """Return the experiment whose first launch must come before those of `experiment`; None if there is none."""
        return None

    @property
    def devices_shared(self) -> int | None:
        """Devices that the launch divides among its processes itself; None if the engine's arguments do."""
        return None

    @property
    def generations(self) -> int:
        """Generations of an iteration, one after the other."""
        return 1

    def other_work(self, other: "ModeSpec", platform: str) -> str:
        """Return why launches with these and with `other` settings do not do the same work; empty if they do."""
        return ""

    @property
    def unpredictable(self) -> str:
        """Key of the config with work that no calibration predicts; empty if there is none."""
        return ""

    @property
    def router_policy(self) -> str:
        """Policy that distributes sequences among several engines."""
        return "least_in_flight"

    def beside_engines(self) -> dict[str, dict[str, Any]]:
        """Return the settings of each component beside the engines, by its name."""
        return {}

    def engines_on(self, devices: int) -> int | None:
        """Return the number of engines with this many devices each; None if the engine's arguments set it."""
        return None


class ModePart(Strict):
    """What only one mode's iterations have; the defaults are those of iterations that do nothing but generate."""

    def whole_s(self, generating_s: float) -> float:
        """Return the seconds of the whole iteration, of which the engine generated for `generating_s`."""
        return generating_s

    def slept(self) -> dict[str, float]:
        """Return `sleep_s` and `wake_s` of an engine that slept, and bytes of a device if known: `before`, `asleep`."""
        return {}

    @property
    def judged_s(self) -> float | None:
        """Seconds by which iterations are compared with each other; None for those of generation."""
        return None
