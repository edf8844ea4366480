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
    Bad("path_relative", _set("models_path: models"), "'models' is no path that can be mounted", "docs/reference"),
    Bad("path_root", _set("host_paths: [/]"), "host_paths.0: '/' would hide /bin of the container", "docs/reference"),
    Bad("path_system", _set("host_paths: [/etc]"), "'/etc' would hide /etc/rollout-bench of the", "docs/reference"),
    Bad("path_slashes", _set("host_paths: ['//usr/./']"), "'//usr/./' would hide /usr/bin of the", "docs/reference"),
    Bad("path_of_models", _set("models_path: /data/"), "models_path: '/data/' would hide /data of", "docs/reference"),
    Bad("path_upwards", _set("host_paths: [/usr/../etc]"), "host_paths.0: '/usr/../etc' is no path", "docs/reference"),
    Bad("size_no_unit", _set("shared_memory: 16"), "16 has no unit: write 16Gi", "docs/reference"),
    Bad("size_bytes", _set("shared_memory: 16GB"), "'16GB' is no size: did you mean '16Gi'?", "docs/reference"),
    Bad("size_small_letters", _set("scratch: 200gi"), "did you mean '200Gi'?", "docs/reference"),
    Bad("size_a_word", _set("scratch: plenty"), "'plenty' is no size: write 16Gi", "docs/reference"),
    Bad("secret_a_value", _set("secrets: {HF_TOKEN: hush}"), "secrets: a list of names of Secrets", "docs/reference"),
    Bad("secret_one", _set("secrets: hush"), "must not stand in a config", "docs/reference"),
    Bad("secret_no_name", _set("secrets: [hf_hush]"), "what stands there is no name of a Secret", "docs/reference"),
    Bad("pull_secret", _set("image_pull_secrets: [Hush]"), "image_pull_secrets.0: what stands there", "docs/reference"),
    Bad(
        "label_true",
        _set("node_selector: {gpu: true}"),
        "node_selector.gpu: True should be a valid string",
        "docs/reference",
    ),
    Bad("effect", _set("tolerations: [{effect: NoScheduel}]"), "'NoScheduel' is not known", "mean 'NoSchedule'?"),
    Bad("taint_key", _set("tolerations: [{kye: a}]"), "tolerations.0.kye: there is no such key", "did you mean 'key'?"),
    Bad("queue", _set("queue: Team_Queue"), "did you mean 'team-queue'?", "docs/reference"),
    Bad("account", _set("service_account: Bench"), "did you mean 'bench'?", "docs/reference"),
    Bad("user_a_word", _set("user_id: root"), "kubernetes.user_id: 'root'", "docs/reference"),
    Bad("user_negative", _set("user_id: -1"), "kubernetes.user_id: -1", "docs/reference"),
    Bad("keep_negative", _set("keep_finished_s: -1"), "kubernetes.keep_finished_s: -1", "docs/reference"),
    Bad("claim_no_size", _set("make_claim: {}"), "kubernetes.make_claim.size: is missing", "set it in config.yaml"),
    Bad("claim_size", _set("make_claim: {size: 50GB}"), "'50GB' is no size: did you mean '50Gi'?", "docs/reference"),
    Bad("claim_class", _set("make_claim: {size: 1Gi, storage_class: A_b}"), "did you mean 'a-b'?", "docs/reference"),
    Bad("claim_key", _set("make_claim: {sice: 1Gi}"), "make_claim.sice: there is no such key", "did you mean 'size'?"),
    Bad("variable_secret", _set("environment: {HF_TOKEN: hush}"), "environment.HF_TOKEN: may be", "kubernetes.secrets"),
    Bad("variable_name", _set("environment: {A-B: c}"), "kubernetes.environment.A-B is no name", "use letters"),
    Bad(
        "variable_own",
        _set("environment: {PATH: /bin}"),
        "kubernetes.environment.PATH: is not for a config",
        "image set it",
    ),
    Bad("variable_of_pods", _set("environment: {HOME: /x}"), "environment.HOME: is not for a config", "leave it out"),
    Bad(
        "variable_proxy", _set("environment: {HTTPS_PROXY: 'http://u:hush@p'}"), "may be a secret", "kubernetes.secrets"
    ),
    Bad("debug_a_time", _set("debug: 3600"), "kubernetes.debug: 3600", "docs/reference"),
    Bad("a_word", "kubernetes: on-prem", "kubernetes: 'on-prem'", "docs/reference"),
]

BAD_WHEN_WRITTEN = [
    Bad("no_image", "{}", "kubernetes.image: is not set", "docs/how-to/kubernetes.md"),
    Bad(
        "device_of_slurm",
        "{platform: ascend, cluster: {device_resource: 'npu'}}",
        "cluster.device_resource: 'npu' has no domain",
        "did you mean 'huawei.com/Ascend910'?",
    ),
    Bad(
        "device_in_small_letters",
        "{platform: ascend, cluster: {device_resource: huawei.com/ascend910}}",
        "cluster.device_resource: 'huawei.com/ascend910'",
        "did you mean 'huawei.com/Ascend910'?",
    ),
    Bad(
        "domain_misspelt",
        "{platform: cuda, cluster: {device_resource: nvidea.com/gpu}}",
        "cluster.device_resource: 'nvidea.com/gpu'",
        "did you mean 'nvidia.com/gpu'?",
    ),
    Bad(
        "weights_without_claim",
        "{models: [own], quants: [bf16], model_settings: {own: {weights: {bf16: own}}}}",
        "kubernetes.models_claim: is not set, and own has its weights in the folder own",
        "hub:<owner>/<name>",
    ),
    Bad(
        "weights_elsewhere",
        "{models: [own], quants: [bf16], model_settings: {own: {weights: {bf16: /mnt/own}}},"
        " kubernetes: {models_claim: weights}}",
        "model_settings.own.weights: /mnt/own does not lie below kubernetes.models_path, /models",
        "relative to model_base",
    ),
    Bad(
        "weights_at_home",
        "{models: [own], quants: [bf16], model_settings: {own: {weights: {bf16: ~/own}}},"
        " kubernetes: {models_claim: weights}}",
        "model_settings.own.weights: ~/own does not lie below",
        "relative to model_base",
    ),
]
"""What can be told only when manifests are written, since other ways to run don't need it."""
