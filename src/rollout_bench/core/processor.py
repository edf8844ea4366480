"""The processor of this machine."""

import re
from pathlib import Path


def emulates_bf16(facts: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether this is an x86 processor without AVX-512, on which bf16 is computed in float32.

    vLLM and oneDNN have no faster way there: a step takes some ten times as long. `facts` are the kernel's.
    """
    try:
        flags = re.search(r"^flags\s*:(.*)$", facts.read_text(), re.MULTILINE)
    except OSError:
        return False
    return flags is not None and "avx512f" not in flags[1].split()
