"""The record of a steps launch, which predictions read too."""

from rollout_bench.contracts.steps import StepRow, Steps

RECORD, ROWS = Steps, StepRow
