"""Settings of Kubernetes that a user can get wrong, and words that the two lines must hold."""

from __future__ import annotations

from bad_comparing import Bad


def _set(settings: str) -> str:
    return f"kubernetes: {{{settings}}}"


BAD_KUBERNETES = [
    Bad("key_misspelt", _set("imge: 'a:1'"), "kubernetes.imge: there is no such key", "did you mean 'image'?"),
    Bad("image_no_tag", _set("image: team/bench"), "has no tag", "docs/reference"),
    Bad("image_port_no_tag", _set("image: 'host:5000/bench'"), "write host:5000/bench:TAG", "docs/reference"),
    Bad("image_capitals", _set("image: 'Team/Bench:V1'"), "did you mean 'team/bench:V1'?", "docs/reference"),
    Bad("image_url", _set("image: 'https://h/bench:1'"), "is no image: write NAME:TAG", "docs/reference"),
    Bad("image_empty", _set("image: ''"), "kubernetes.image: is empty", "docs/reference"),
    Bad("namespace_capitals", _set("namespace: My_Team"), "did you mean 'my-team'?", "docs/reference"),
    Bad("claim_a_path", _set("results_claim: /data/results"), "did you mean 'data-results'?", "docs/reference"),
    Bad("claim_of_signs", _set("results_claim: '__'"), "write up to 253 of a-z, 0-9", "docs/reference"),
    Bad("secret_a_value", _set("secrets: {HF_TOKEN: hush}"), "secrets: a list of names of Secrets", "docs/reference"),
    Bad("secret_one", _set("secrets: hush"), "must not stand in a config", "docs/reference"),
    Bad("secret_no_name", _set("secrets: [hf_hush]"), "what stands there is no name of a Secret", "docs/reference"),
    Bad("size_no_unit", _set("memory: 16"), "16 has no unit: write 16Gi", "docs/reference"),
    Bad("size_bytes", _set("claim_size: 50GB"), "'50GB' is no size: did you mean '50Gi'?", "docs/reference"),
    Bad("size_a_word", _set("memory: plenty"), "'plenty' is no size: write 16Gi", "docs/reference"),
    Bad("cpus_of_none", _set("cpus: 0"), "kubernetes.cpus: 0", "docs/reference"),
    Bad("debug_a_time", _set("debug: 3600"), "kubernetes.debug: 3600", "docs/reference"),
    Bad("a_word", "kubernetes: on-prem", "kubernetes: 'on-prem'", "docs/reference"),
]
