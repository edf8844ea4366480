"""Whether a processor computes in bf16."""

from pathlib import Path

import pytest

from rollout_bench.core.processor import emulates_bf16


@pytest.mark.parametrize(
    ("facts", "emulates"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_bf16\n", False),
        ("flags\t\t: fpu avx2 avx512_vnni_only\nvmx flags\t: avx512f\n", True),
        ("Features\t: fp asimd bf16\n", False),
    ],
    ids=["with AVX-512", "without", "Arm"],
)
def test_a_processor_without_avx_512_emulates_bf16(tmp_path: Path, facts: str, emulates: bool) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{facts}")
    assert emulates_bf16(tmp_path / "cpuinfo") == emulates
