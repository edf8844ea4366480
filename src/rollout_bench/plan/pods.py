"""The config's settings for launches on Kubernetes; they do not change the measurement."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from rollout_bench.contracts.fields import Count, Strict, Text

_NAME = r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"
_SIZE = r"[1-9][0-9]*([KMGTPE]i|[kMGTPE])"
_IMAGE = r"(?P<repository>[^\s@]+?)(?P<tag>:\w[\w.-]*)?(?P<digest>@\S+)?"


def _dns_name(value: str) -> str:
    if not re.fullmatch(_NAME, value):
        close = re.sub(r"[^a-z0-9.]+", "-", value.lower())[:253].strip("-.")
        meant = f"did you mean {close!r}?" if close else "write up to 253 of a-z, 0-9, '-' and '.'"
        raise ValueError(f"{value!r} is not a valid Kubernetes name: {meant}")
    return value


def _secret(value: str) -> str:
    if not re.fullmatch(_NAME, value):  # not shown: it may be the secret itself
        raise ValueError("contains an invalid Secret name: use small letters, digits, '-' and '.'")
    return value


def _names(value: Any) -> Any:
    if not isinstance(value, list):
        raise ValueError("must be a list of Secret names: a config must not contain the secrets themselves")
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
        raise ValueError(f"{value!r} has no tag, so nodes may run different images: write {repository}:TAG")
    return value


DnsName = Annotated[str, AfterValidator(_dns_name)]
SecretName = Annotated[str, AfterValidator(_secret)]
Size = Annotated[str, BeforeValidator(_size)]
Image = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_image)]


class KubernetesSettings(Strict):
    """Properties of the Job of `rollout-bench kubernetes`; all are variables of its template."""

    image: Image | None = Field(
        None, description="Image with rollout-bench and the engine, as built by containers/, with its tag or digest."
    )
    namespace: DnsName = Field("default", description="Namespace of all created objects.")
    results_claim: DnsName = Field(
        "rollout-bench",
        description="PersistentVolumeClaim for results and logs; its folder datasets/ holds data sets.",
    )
    claim_size: Size | None = Field(None, description="Create results_claim with this size: 50Gi. Null: it exists.")
    models_claim: DnsName | None = Field(
        None, description="PersistentVolumeClaim with the weights, mounted read-only as model_base. Null: none."
    )
    secrets: Annotated[list[SecretName], BeforeValidator(_names)] = Field(
        [],
        description="Names of Secrets whose keys become environment variables: HF_TOKEN, or api_key_env's variable.",
    )
    cpus: Count = Field(8, description="Cores of the pod.")
    memory: Size = Field("32Gi", description="Memory of the pod, /dev/shm included.")
    debug: bool = Field(False, description="Let the pod wait instead of measuring, so that it can be inspected.")
    template: Text | None = Field(
        None, description="A custom Jinja template for everything else. Null: src/rollout_bench/cluster/job.yaml.j2."
    )
