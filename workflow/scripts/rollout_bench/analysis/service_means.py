"""How well an online experiment was served: means over its launches."""

from __future__ import annotations

from rollout_bench.analysis.rows import Row
from rollout_bench.analysis.statistics import mean

MEANS = (
    "requests_per_s",
    "ttft_s",
    "tpot_s",
    "itl_s",
    "e2el_s",
    "ntpot_s",
    "goodput_requests_per_s",
    "in_flight",
    "offered_per_s",
    "kept_up",
    "send_delay_s",
    "tokens_per_piece",
)
"""Fields of `analysis.service.Service` of which the mean over launches is taken."""

_NAMES = {
    "requests_per_s": "completed_requests_per_s",
    "ttft_s": "ttft_mean_s",
    "tpot_s": "tpot_mean_s",
    "itl_s": "itl_mean_s",
    "e2el_s": "e2el_mean_s",
    "ntpot_s": "ntpot_mean_s",
    "offered_per_s": "offered_requests_per_s",
    "kept_up": "kept_up_share",
}

SERVICE_COLUMNS: dict[str, str] = {
    "request_rate": "string",
    "concurrency": "Int64",
    **{_NAMES.get(field, field): "Float64" for field in MEANS},
    "failed_share": "Float64",
    "in_flight_most": "Int64",
    "send_delay_most_s": "Float64",
}
"""Columns of the table, with their types; `request_rate` is a number, inf or trace."""


def load_line(row: Row) -> dict[str, object]:
    """Those values of `SERVICE_COLUMNS` that say under which load a row with launches was measured; none offline."""
    point = row.experiment.records[0].iterations[0].point
    return {} if point is None else {"request_rate": str(point.request_rate), "concurrency": point.concurrency}


def service_line(row: Row) -> dict[str, object]:
    """The other values of `SERVICE_COLUMNS`; none where no valid launch tells of its requests."""
    services = [launch.service for launch in row.used if launch.service is not None]
    if not services:
        return {}
    line: dict[str, object] = {}
    for field in MEANS:
        known = [value for service in services if (value := getattr(service, field)) is not None]
        line[_NAMES.get(field, field)] = mean(known) if known else None
    delays = [service.send_delay_most_s for service in services if service.send_delay_most_s is not None]
    return line | {
        "failed_share": sum(service.failed for service in services) / sum(service.requests for service in services),
        "in_flight_most": max(service.in_flight_most for service in services),
        "send_delay_most_s": max(delays, default=None),
    }
