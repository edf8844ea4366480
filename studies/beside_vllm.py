"""Which packages of an environment that has vLLM would an installation of rollout-bench change?

For each version of vLLM, its packages are resolved alone, then together with those of rollout-bench. Nothing is
installed. Needs the package index. `python studies/beside_vllm.py 0.23.0 0.28.0 0.33.0`
"""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

from rollout_bench.commands.environment import as_pip

PYTHON = Path(sys.executable)
OURS = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]["dependencies"]


def resolved(requirements: list[str]) -> dict[str, str]:
    """Return name -> version of all packages that `requirements` bring into an environment of vLLM's image."""
    uv = [PYTHON.with_name("uv"), "pip", "compile", "--quiet", "--no-annotate", "--no-header", "-"]
    target = ["--python-version", "3.12", "--python-platform", "x86_64-manylinux_2_34"]
    environment = as_pip(PYTHON, os.environ)
    done = subprocess.run(
        uv + target, input="\n".join(requirements), env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return dict(line.split("==") for line in done.stdout.splitlines() if "==" in line)


def main() -> None:
    """Print a line for each version."""
    for version in sys.argv[1:]:
        alone = resolved([f"vllm=={version}"])
        both = resolved([f"vllm=={version}", *OURS])
        changed = [f"{name} {old} -> {both[name]}" for name, old in alone.items() if both[name] != old]
        print(f"vLLM {version}: {len(alone)} packages, {len(both) - len(alone)} added, changed: {', '.join(changed)}")


if __name__ == "__main__":
    main()
