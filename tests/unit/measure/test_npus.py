"""What `npu-smi info` prints, in its published layout. No NPU has run this."""

from __future__ import annotations

from rollout_bench.contracts.record import Iteration
from rollout_bench.measure.machine.gpus import used
from rollout_bench.measure.machine.npus import Npus, holders_by_npu
from rollout_bench.measure.machine.readings import device_flags

PRINTED = """\
+------------------------------------------------------------------------------------------------+
| npu-smi 24.1.rc2                 Version: 24.1.rc2                                             |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     910B3               | OK            | 93.8        47                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          3348 / 65536         |
+===========================+===============+====================================================+
| 1     910B3               | OK            | 301.2       63                0    / 0             |
| 0                         | 0000:01:00.0  | 98          0    / 0          58210/ 65536         |
+===========================+===============+====================================================+
+---------------------------+---------------+----------------------------------------------------+
| NPU     Chip              | Process id    | Process name             | Process memory(MB)      |
+===========================+===============+====================================================+
| No running processes found in NPU 0                                                            |
+===========================+===============+====================================================+
| 1       0                 | 4711          | python                   | 54000                   |
| 1       0                 | 815           | someone                  | 900                     |
+===========================+===============+====================================================+
"""


def test_devices_are_read_by_number_with_temperature_and_who_holds_memory() -> None:
    first, second = Npus(2, {}, lambda: PRINTED).read()
    assert (first.device, first.temperature_c, first.holders) == ("NPU 0", 47, {})
    assert (second.temperature_c, second.holders) == (63, {4711: 54000 << 20, 815: 900 << 20})
    assert holders_by_npu(PRINTED) == {1: second.holders}


def test_only_visible_devices_are_read() -> None:
    (only,) = Npus(1, {"ASCEND_RT_VISIBLE_DEVICES": "1,0"}, lambda: PRINTED).read()
    assert only.device == "NPU 1"


def test_another_process_on_the_device_is_flagged() -> None:
    (device,) = Npus(1, {"ASCEND_RT_VISIBLE_DEVICES": "1"}, lambda: PRINTED).read()
    iteration = Iteration(
        index=1, warmup=False, elapsed_s=1, requests=1, sequences=1, prompt_tokens=1, output_tokens=1,
        devices=[used(device, device, {4711})],
    )  # fmt: skip
    (flag,) = device_flags([iteration])
    assert flag.code == "device_shared"
    assert "1 others held 0.9 GiB of NPU 1" in flag.sentence
