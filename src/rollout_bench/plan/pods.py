"""The part of the config that says how launches run on Kubernetes; it changes nothing about what they measure."""

from __future__ import annotations

import posixpath
import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from rollout_bench.contracts.fields import Index, Strict, Variable, VariableText

_NAME = r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"
_SIZE = r"[1-9][0-9]*([KMGTPE]i|[kMGTPE])"
_IMAGE = r"(?P<repository>[^\s@]+?)(?P<tag>:\w[\w.-]*)?(?P<digest>@\S+)?"


def _dns_name(value: str) -> str:
    if not re.fullmatch(_NAME, value):
        close = re.sub(r"[^a-z0-9.]+", "-", value.lower())[:253].strip("-.")
        meant = f"did you mean {close!r}?" if close else "write up to 253 of a-z, 0-9, '-' and '.'"
        raise ValueError(f"{value!r} is no name that Kubernetes takes: {meant}")
    return value


def _secret(value: str) -> str:
    if not re.fullmatch(_NAME, value):  # not shown: it may be what belongs into the Secret
        raise ValueError("what stands there is no name of a Secret: small letters, digits, '-' and '.'")
    return value


def _names(value: Any) -> Any:
    if not isinstance(value, list):
        raise ValueError("a list of names of Secrets is wanted: what is in them must not stand in a config")
    return value


def _size(value: Any) -> Any:
    if isinstance(value, int | float):
        raise ValueError(f"{value!r} has no unit: write {value}Gi")
    if isinstance(value, str) and not re.fullmatch(_SIZE, value):
        near = re.fullmatch(r"([1-9][0-9]*) ?([kKmMgGtT])i?[bB]?", value)
        raise ValueError(
            f"{value!r} is no size: " + (f"did you mean '{near[1]}{near[2].upper()}i'?" if near else "write 16Gi")
        )
    return value


def _image(value: str) -> str:
    found = re.fullmatch(_IMAGE, value)
    if found is None or "://" in value:
        raise ValueError(f"{value!r} is no image: write NAME:TAG, without a scheme or spaces")
    repository = found["repository"]
    if repository != repository.lower():
        raise ValueError(f"{value!r} is no image: did you mean {value.replace(repository, repository.lower(), 1)!r}?")
    if not found["tag"] and not found["digest"]:
        raise ValueError(f"{value!r} has no tag, so that each node may run another image: write {repository}:TAG")
    return value


_CONTAINERS_OWN = (
    "/bin", "/data", "/dev/shm", "/etc/rollout-bench", "/lib", "/lib32", "/lib64", "/proc", "/root", "/run", "/sbin",
    "/opt/rollout-bench/src", "/opt/rollout-bench/workflow/scripts", "/scratch", "/sys", "/tmp", "/usr/bin",
    "/usr/include", "/usr/lib/aarch64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/local/bin",
    "/usr/local/lib", "/usr/libexec", "/usr/sbin", "/usr/share", "/var/lib", "/var/run", "/var/tmp",
)  # fmt: skip
"""Folders of the image's system and of ours, which a mount at the same place, or above it, would hide."""


def _mountable(value: str) -> str:
    if not value.startswith("/") or ".." in value.split("/") or ":" in value:
        raise ValueError(f"{value!r} is no path that can be mounted: write it from / on, without '..' and ':'")
    path = PurePosixPath(f"/{posixpath.normpath(value).lstrip('/')}")
    hidden = next((own for own in _CONTAINERS_OWN if PurePosixPath(own).is_relative_to(path)), None)
    if hidden is not None:
        raise ValueError(f"{value!r} would hide {hidden} of the container: name the very folder that is wanted")
    return str(path)


DnsName = Annotated[str, AfterValidator(_dns_name)]
SecretName = Annotated[str, AfterValidator(_secret)]
Size = Annotated[str, BeforeValidator(_size)]
Image = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_image)]
MountPath = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_mountable)]


class Toleration(Strict):
    """A taint that pods tolerate."""

    key: str | None = Field(None, description="Key of the taint. Null: every key.")
    value: str | None = Field(None, description="Value of the taint. Null: every value.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="Effect of the taint. Null: every effect."
    )


class NewClaim(Strict):
    """A PersistentVolumeClaim that is made with the manifests."""

    size: Size = Field(description="How much it holds: 50Gi, ...")
    storage_class: DnsName | None = Field(
        None, description="Storage class, one that several nodes can write to. Null: the cluster's default."
    )


class KubernetesSettings(Strict):
    """What the manifests of `snakemake kubernetes_manifests` say beside the command and its devices."""

    image: Image | None = Field(
        None, description="Image with rollout-bench and the engine, as containers/ builds it, with its tag or digest."
    )
    namespace: DnsName = Field("default", description="Namespace of everything that is made.")
    results_claim: DnsName = Field(
        "rollout-bench",
        description="PersistentVolumeClaim that takes results and logs, and holds data sets in its folder datasets/.",
    )
    make_claim: NewClaim | None = Field(
        None, description="Make results_claim, so large and of that storage class. Null: it is there."
    )
    models_claim: DnsName | None = Field(
        None, description="PersistentVolumeClaim with the weights, mounted read-only. Null: none has to be there."
    )
    models_path: MountPath = Field(
        "/models", description="Where it is mounted: what model_base is on the machine that plans."
    )
    secrets: Annotated[list[SecretName], BeforeValidator(_names)] = Field(
        [],
        description="Names of Secrets whose keys become environment variables: HF_TOKEN, or what api_key_env names.",
    )
    environment: dict[Variable, VariableText] = Field(
        {},
        description=(
            "Environment variables of whatever measures, HTTPS_PROXY for instance; no secrets, and of what changes "
            "how an engine runs, rather engine.environment, which is part of the experiment."
        ),
    )
    image_pull_secrets: Annotated[list[SecretName], BeforeValidator(_names)] = Field(
        [], description="Names of Secrets that the image is pulled with."
    )
    service_account: DnsName | None = Field(
        None, description="Service account of the pods; none of them gets its token. Null: the namespace's default."
    )
    scheduler: DnsName | None = Field(
        None, description="Scheduler that places the pods: volcano, ... Null: the cluster's default."
    )
    queue: DnsName | None = Field(
        None, description="Local queue of Kueue that lets the Jobs begin. Null: each begins as soon as it can."
    )
    node_selector: dict[str, str] = Field({}, description="Labels that a node must have.")
    tolerations: list[Toleration] = Field([], description="Taints that the pods tolerate.")
    host_paths: list[MountPath] = Field(
        [],
        description=(
            "Paths of the node that are mounted read-only at the same place: Ascend's driver, where no Ascend runtime "
            "mounts it."
        ),
    )
    shared_memory: Size = Field(
        "16Gi", description="Size of /dev/shm, which workers exchange through; it counts as memory of the pod."
    )
    scratch: Size | None = Field(
        None, description="Limit of the node's disk for caches and what is built. Null: what the node allows."
    )
    user_id: Index | None = Field(
        1000,
        description="User and group that a launch runs as, and that may write its volumes. Null: the image's own.",
    )
    keep_finished_s: Index = Field(
        86_400, description="Seconds after which the cluster removes a Job that has ended; its results stay."
    )
    debug: bool = Field(
        False,
        description=(
            "Have the pods of manifests wait instead of measure, until their time limit ends or the Job is deleted, so "
            "that they can be looked into: the command is in their variable LAUNCH."
        ),
    )
