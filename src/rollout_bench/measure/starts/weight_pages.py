"""The pages of weight files in the machine's memory: dropped or read before an engine starts, and counted."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rollout_bench.contracts.record import Flag
from rollout_bench.contracts.spec import Spec, is_local
from rollout_bench.contracts.starts import PageState

WEIGHT_FILES = ("*.safetensors", "*.bin", "*.pt", "*.gguf")
"""As vLLM looks for them: of those that there are, it reads the first kind."""

CHUNK = 1 << 24
"""Bytes that are read at once."""

COLD_SHARE, WARM_SHARE = 0.01, 0.99
"""Up to which share of resident pages files are cold, and from which on they are warm."""


@dataclass(frozen=True)
class WeightPages:
    """The weight files when an engine is about to start.

    Attributes:
        size: bytes of all files.
        resident_share: share of their pages that are in memory; None where the system does not say.
    """

    size: int
    resident_share: float | None


def prepare_pages(spec: Spec, model: str) -> WeightPages | None:
    """Bring the weight files of `model` to the state that `spec` wants, as far as that can be.

    Returns:
        What they are then; None where the spec wants nothing, or nobody knows where the files are.
    """
    if spec.startup is None or spec.startup.pages is None:
        return None
    files = weight_files(model)
    if not files:
        return None
    for file in files:
        with contextlib.suppress(OSError):
            (drop if spec.startup.pages == "cold" else read)(file)
    return WeightPages(sum(file.stat().st_size for file in files), resident_share(files))


def weight_files(model: str) -> list[Path]:
    """Return the files that hold the weights of a folder or, where it is in the cache of the hub's client, of an id."""
    folder = Path(model).expanduser() if is_local(model) else _in_hub_cache(model)
    if folder is None:
        return []
    found = ([file for file in sorted(folder.glob(pattern)) if file.is_file()] for pattern in WEIGHT_FILES)
    return next(filter(None, found), [])


def _in_hub_cache(model: str) -> Path | None:
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(model, local_files_only=True))
    except Exception:  # not installed, or not there yet: then nobody knows the files
        return None


def drop(file: Path) -> None:
    """Ask the system to forget the pages of `file`; those that a process has mapped stay."""
    with _opened(file) as descriptor:
        os.fsync(descriptor)  # a page that is not written yet is never dropped
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def read(file: Path) -> None:
    """Read `file`, so that its pages are in memory."""
    with file.open("rb", buffering=0) as content:
        while content.read(CHUNK):
            pass


def resident_share(files: Iterable[Path]) -> float | None:
    """Return the share of pages in memory of `files` together, by mincore(2); None where the system does not say.

    Of files that a user neither owns nor may write, Linux tells nothing, and says that all are.
    """
    files = list(files)
    if not all(_may_know(file) for file in files):
        return None
    resident = pages = 0
    try:
        for file in files:
            here, of = _resident(file)
            resident, pages = resident + here, pages + of
    except (OSError, AttributeError, ValueError):
        return None
    return resident / pages if pages else None


def _may_know(file: Path) -> bool:
    try:
        return file.stat().st_uid == os.geteuid() or os.access(file, os.W_OK)
    except OSError:
        return False


def _resident(file: Path) -> tuple[int, int]:
    """Return how many pages of `file` are in memory, and how many it has."""
    size = file.stat().st_size
    if not size:
        return 0, 0
    pages = -(-size // mmap.PAGESIZE)
    vector = (ctypes.c_ubyte * pages)()
    with (
        _opened(file) as descriptor,
        mmap.mmap(descriptor, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as mapped,
    ):
        start = ctypes.c_char.from_buffer(mapped)
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.mincore(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(size), vector) != 0:
                raise OSError(ctypes.get_errno(), "mincore")
        finally:
            del start  # or the mapping could not be closed
    return sum(each & 1 for each in bytes(vector)), pages


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[int]:
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def page_flags(wanted: PageState | None, pages: WeightPages | None) -> list[Flag]:
    """Return a flag where the weight files were not as `wanted`, or where nobody can say."""
    if wanted is None:
        return []
    share = None if pages is None else pages.resident_share
    if share is None:
        sentence = (
            f"pages: {wanted} was asked for, and nobody can say whether the weight files were: "
            + ("they were not found" if pages is None else "this system does not tell which pages are in memory")
            + "."
        )
        return [Flag(code="pages_unknown", severity="warning", sentence=sentence)]
    if share <= COLD_SHARE if wanted == "cold" else share >= WARM_SHARE:
        return []
    why = (
        "a process has them open, or the file system keeps them"
        if wanted == "cold"
        else "the memory does not hold them all"
    )
    sentence = (
        f"pages: {wanted} was asked for, and {100 * share:.0f} % of the weight files' pages were in memory when the "
        f"engine started: {why}."
    )
    return [Flag(code="pages_not_as_asked", severity="invalid", sentence=sentence)]
