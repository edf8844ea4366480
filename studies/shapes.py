"""How large are well-known models, and what does their KV cache hold? Judged by transformers and vLLM.

For each config in shapes.yaml, transformers builds the model on the meta device, which has no weights, and counts its
parameters. vLLM builds it there, too, and says what each layer caches: the bytes of a token, and its window. Both are
without this package. tests/unit/plan/test_shapes.py holds the package's own formulas to these numbers.
`python studies/shapes.py`, where vLLM is installed (on a CPU), writes results/shapes.json in some minutes.
"""

import argparse
import json
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from kept import REPOSITORY, RESULTS

CONFIGS = REPOSITORY / "studies" / "shapes.yaml"


def of_transformers(config: Any) -> dict[str, Any]:
    """Return how many parameters a model has, and of these its embeddings and its head."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    ends = {id(part.weight): part.weight for part in (model.get_input_embeddings(), model.get_output_embeddings())}
    return {
        "parameters": sum(each.numel() for each in model.parameters()),
        "ends": sum(each.numel() for each in ends.values()),
        "architecture": type(model).__name__,
    }


def of_vllm(folder: Path) -> list[list[Any]]:
    """Return what layers cache: kind, bytes of a token in bf16, window in tokens, and the number of such layers."""
    import torch
    from vllm.config import set_current_vllm_config
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.model_loader.utils import initialize_model

    config = EngineArgs(
        model=str(folder), skip_tokenizer_init=True, load_format="dummy", dtype="bfloat16", enforce_eager=True
    ).create_engine_config()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with set_current_vllm_config(config), torch.device("meta"):
            initialize_model(config)
    finally:
        torch.set_default_dtype(torch.float32)
    layers = config.compilation_config.static_forward_context.values()
    specs = [layer.get_kv_cache_spec(config) for layer in layers if hasattr(layer, "get_kv_cache_spec")]
    found = Counter(
        (type(spec).__name__, spec.page_size_bytes / spec.block_size, getattr(spec, "sliding_window", None))
        for spec in specs
        if spec is not None
    )
    return [[*kind, count] for kind, count in found.items()]


def judged(content: dict[str, Any]) -> dict[str, Any]:
    """Return what both say of a config; of one that does not build it, why."""
    from transformers import AutoConfig
    from vllm.config import VllmConfig, set_current_vllm_config

    config = AutoConfig.for_model(**content)
    with set_current_vllm_config(VllmConfig()):  # vLLM replaces some activations of transformers by its own
        found = of_transformers(config)
    with tempfile.TemporaryDirectory() as name:
        whole = {**config.to_dict(), "architectures": [found["architecture"]], "dtype": "bfloat16"}
        (Path(name) / "config.json").write_text(json.dumps(whole, default=str))
        try:
            cached: Any = of_vllm(Path(name))
        except Exception as error:  # it says why
            cached = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:160]
    return {**found, "cached": cached}


def main() -> None:
    """Ask for all configs, and write the answers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="judge names that contain this, and write nothing")
    only = parser.parse_args().only
    os.environ.update(HF_HUB_OFFLINE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="29512", VLLM_LOGGING_LEVEL="ERROR")
    import vllm
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.distributed import init_distributed_environment, initialize_model_parallel

    with set_current_vllm_config(VllmConfig()):
        init_distributed_environment(1, 0, backend="gloo")
        initialize_model_parallel()
    import transformers

    configs = {name: each for name, each in yaml.safe_load(CONFIGS.read_text()).items() if only in name}
    models = {}
    for name, content in configs.items():
        try:
            models[name] = judged(content)
        except Exception as error:
            models[name] = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(name, models[name], flush=True)
    if not only:
        versions = {"transformers": transformers.__version__, "vllm": vllm.__version__}
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(each)}" for name, each in models.items())
        (RESULTS / "shapes.json").write_text(f'{{"versions": {json.dumps(versions)}, "models": {{\n{lines}\n}}}}\n')


if __name__ == "__main__":
    main()
