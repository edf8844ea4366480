"""Files of the results claim through a pod that mounts it: `kubectl exec`, find and tar. It only reads there."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Set
from pathlib import Path
from typing import IO

from rollout_bench.errors import UserError
from rollout_bench.kubernetes.claim_files import launch_of
from rollout_bench.kubernetes.paths import DATA

_LIST = f"cd {DATA} && find . -type f \\( -path './results/*' -o -path './logs/*' \\) ! -name '.*' -print0"


def fetch(kubectl: list[str], pod: str, results: Path, into: Path) -> None:
    """Copies what `results` lacks of the launches on the claim to `into`, as results/ and logs/.

    Args:
        kubectl: the command, with the namespace and what else it needs.
        pod: name of a pod that mounts the claim at /data, and has sh, find and tar.
        results: the results folder at home: of launches that have a record there nothing is copied.

    Raises:
        UserError: kubectl is missing or fails, or what it delivers is cut off.
    """
    listed = _run([*kubectl, "exec", pod, "--", "sh", "-c", _LIST], b"").decode(errors="replace")
    names = {name for path in listed.split("\0") if _is_wanted(name := path.removeprefix("./"), results)}
    (into / "results").mkdir(parents=True)
    if not names:
        return
    archive = into / "claim.tar"
    with archive.open("wb") as file:
        tar = [*kubectl, "exec", "-i", pod, "--", "tar", "-C", DATA, "-cf", "-", "--null", "-T", "-"]
        _run(tar, "\0".join(sorted(names)).encode(), file)
    try:
        with tarfile.open(archive) as opened:
            for member in opened:
                _extract(opened, member, names, into)
    except tarfile.TarError as error:
        raise UserError(f"{pod}: what kubectl delivered is cut off: {error}", "collect again") from None
    except OSError as error:
        remedy = "free space where temporary files go (TMPDIR), or remove that file from the claim"
        raise UserError(f"{pod}: {error.filename}: can't be written: {error.strerror}", remedy) from None
    archive.unlink()


def _is_wanted(name: str, results: Path) -> bool:
    launch = launch_of(name)
    return launch is not None and not (results / f"{launch}.json").exists()


def _extract(opened: tarfile.TarFile, member: tarfile.TarInfo, wanted: Set[str], into: Path) -> None:
    """Writes a plain file that was asked for; whatever else an archive may hold is left out."""
    content = opened.extractfile(member) if member.isreg() and member.name in wanted else None
    if content is None:
        return
    target = into / member.name
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        shutil.copyfileobj(content, file, 1 << 20)


def _run(command: list[str], sent: bytes, out: IO[bytes] | None = None) -> bytes:
    try:
        done = subprocess.run(command, input=sent, stdout=out or subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    except OSError as error:
        raise UserError(f"{command[0]}: does not run: {error.strerror}", "install kubectl, or give a folder") from None
    if done.returncode != 0:
        said = (done.stderr.decode(errors="replace").strip().splitlines() or ["it says nothing"])[-1]
        raise UserError(
            f"kubectl exec failed: {said}",
            "is the pod there? kubectl apply -f results/manifests/collector, and wait until it runs",
        )
    return done.stdout or b""
