"""On the machine without a network: check and unpack the parts beside this file, then measure.

`python3 kit.py --minutes 30` measures what fits into the time. The same command goes on where it ended. It leaves
results.tar.xz beside this file: bring it back, and read it with `rollout-bench collect results.tar.xz`.
Only the standard library is imported.
"""

import hashlib
import os
import platform
import re
import sys
import tarfile
import zlib
from pathlib import Path

SUMS = "SHA256SUMS"
"""File with the checksum of each part, as sha256sum writes it."""


def parts_of(folder: Path) -> list[Path]:
    """Return the parts of the kit in `folder`, in order; end the program if one is missing or damaged."""
    if not (folder / SUMS).is_file():
        sys.exit(f"{folder}: {SUMS} is missing\n  -> bring it from the folder of the kit")
    parts, lines = [], [*filter(str.strip, (folder / SUMS).read_text(errors="replace").splitlines())]
    for line in lines or [""]:
        if not (listed := re.fullmatch(r"([0-9a-f]{64})  (kit\.\d+)", line)):
            sys.exit(f"{folder / SUMS}: is damaged\n  -> bring it again")
        wanted, part = listed[1], folder / listed[2]
        checksum = hashlib.sha256(part.read_bytes()).hexdigest() if part.is_file() else ""
        if checksum != wanted:
            sys.exit(f"{part}: is {'damaged' if checksum else 'missing'}\n  -> bring this part again")
        parts.append(part)
    return parts


def site_of(python: str, machine: str) -> str:
    """Return the folder's name of packages that serve one version of Python on one kind of processor only."""
    return f"site-python{python}-{machine}"


def unpack(folder: Path, tree: Path) -> None:
    """Unpack the parts in `folder`, so that `tree` is whole or does not exist."""
    half = folder / "unfinished"
    half.mkdir(exist_ok=True)
    archive = half / "kit.tar.gz"
    with archive.open("wb") as whole:
        whole.writelines(part.read_bytes() for part in parts_of(folder))
    with tarfile.open(archive) as file:
        if hasattr(tarfile, "data_filter"):  # Python 3.11.4; 3.12 warns without a filter
            file.extraction_filter = tarfile.data_filter
        file.extractall(half)
    archive.unlink()
    (half / "tree").rename(tree)


def main() -> None:
    """Unpack the kit once, then run `rollout-bench kit run` with the arguments."""
    folder = Path(__file__).resolve().parent
    tree = folder / "tree"
    if not tree.exists():
        print(f"kit: unpacks into {tree}", flush=True)
        try:
            unpack(folder, tree)
        except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
            cause = str(error).partition("\n")[0].rstrip(":")  # tarfile adds a line for each kind of compression
            sys.exit(f"{folder}: can't be unpacked: {cause}\n  -> bring the kit again, into an empty folder")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    site = site_of(python, platform.machine())
    for packed in tree.glob("site-*"):
        if packed.name != site:
            problem = f"{folder}: has packages of {packed.name[5:]}, and this is {site[5:]}"
            sys.exit(f"{problem}\n  -> start it with that Python, or make another one: kit pack --python {python}")
    paths = [str(tree / "src"), str(tree / site), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    os.execv(sys.executable, [sys.executable, "-m", "rollout_bench", "kit", "run", str(folder), *sys.argv[1:]])


if __name__ == "__main__":
    main()
