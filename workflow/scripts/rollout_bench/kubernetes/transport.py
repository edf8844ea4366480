"""Files of the results claim through a pod that mounts it: `kubectl exec`, find and tar. It only reads there."""

from __future__ import annotations

import re
import subprocess
import tarfile
from pathlib import Path, PurePosixPath
from typing import IO

from rollout_bench.errors import UserError
from rollout_bench.kubernetes.paths import DATA

_LAUNCH = re.compile(r"(results/failures|results|logs)/([^/]+/[^/]+/launch-\d+)\.(.+)")

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
    names = [name for path in listed.split("\0") if _is_wanted(name := path.removeprefix("./"), results)]
    (into / "results").mkdir(parents=True)
    if not names:
        return
    archive = into / "claim.tar"
    with archive.open("wb") as file:
        tar = [*kubectl, "exec", "-i", pod, "--", "tar", "-C", DATA, "-cf", "-", "--null", "-T", "-"]
        _run(tar, "\0".join(names).encode(), file)
    try:
        with tarfile.open(archive) as opened:
            for member in opened:
                _extract(opened, member, into)
    except tarfile.TarError as error:
        raise UserError(f"{pod}: what kubectl delivered is cut off: {error}", "collect again") from None
    archive.unlink()


def _is_wanted(name: str, results: Path) -> bool:
    match = _LAUNCH.fullmatch(name)
    return match is not None and not (results / f"{match[2]}.json").exists()


def _extract(opened: tarfile.TarFile, member: tarfile.TarInfo, into: Path) -> None:
    """Writes a plain file that lies below results/ or logs/; whatever else an archive may hold is left out."""
    path = PurePosixPath(member.name)
    content = opened.extractfile(member) if member.isreg() else None
    if content is None or path.is_absolute() or ".." in path.parts or path.parts[0] not in ("results", "logs"):
        return
    target = into / path
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        while piece := content.read(1 << 20):
            file.write(piece)


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
