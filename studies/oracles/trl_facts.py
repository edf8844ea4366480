"""Facts about TRL's generation, from TRL's own code: run by `make oracles` in an environment with TRL, without vLLM.

For each draw of settings, TrlParser reads them as a file, GRPOConfig or RLOOConfig checks them, and the trainer's own
constructor builds its data loader and its vLLM engine or client, for a model of a few parameters. Each process takes
its batch from the data loader, and the first one generates. For a server, TRL's own `vllm-serve` builds its engine or
its command line. In place of vLLM stand classes that keep their arguments; accelerate is given a number of processes,
of which only this one exists, so what the others would gather is handed over.

Not reached: the model's own loading (dtype, quantization by bitsandbytes, adapters); DeepSpeed and FSDP; the transfer
of weights to a server; turns with tools; the distribution of requests inside vLLM.
"""

import contextlib
import importlib.metadata
import io
import itertools
import logging
import os
import random
import tempfile
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from oracle_table import refusal, write_table
from stand_ins import Kept, read_command_line, stand_in

TRL = importlib.metadata.version("trl")
NEWEST = TRL.split(".")[1] != "0"
VLLM = "0.24.0" if NEWEST else "0.17.0"
DRAWS = 300


class SamplingParams:
    def __init__(self, **named: Any) -> None:
        self.named = named


class StructuredOutputsParams:
    def __init__(self, **named: Any) -> None:
        self.named = named


class LLM:
    """vLLM's engine: keeps its arguments, and what it is told to do, in turn."""

    def __init__(self, **named: Any) -> None:
        self.named, self.events, self.generated = named, [], None
        made.append(self)
        self.llm_engine = types.SimpleNamespace(
            model_config=types.SimpleNamespace(max_model_len=None),
            model_executor=types.SimpleNamespace(
                driver_worker=types.SimpleNamespace(
                    model_runner=types.SimpleNamespace(
                        model=types.SimpleNamespace(load_weights=lambda _: self.tell("weights"))
                    )
                )
            ),
        )

    def tell(self, event: str) -> None:
        if self.events[-1:] != [event]:
            self.events.append(event)

    def sleep(self, level: int = 1) -> None:
        self.tell(f"sleep {level}")

    def wake_up(self, tags: list[str] | None = None) -> None:
        self.tell(f"wake {' '.join(tags or [])}")

    def collective_rpc(self, method: str, **_: Any) -> None:
        self.tell(method)

    def reset_prefix_cache(self) -> None:
        self.tell("reset")

    def generate(self, prompts: list[Any], sampling_params: SamplingParams, **_: Any) -> list[Any]:
        self.tell("generate")
        self.generated = [prompt["prompt_token_ids"] for prompt in prompts], sampling_params.named
        token = types.SimpleNamespace(rank=1, logprob=0.0)
        output = types.SimpleNamespace(token_ids=[1], logprobs=[{1: token}])
        return [types.SimpleNamespace(prompt_token_ids=ids, outputs=[output]) for ids in self.generated[0]]


made: list[LLM] = []


stand_in(("vllm",), VLLM, LLM=LLM, SamplingParams=SamplingParams, StructuredOutputsParams=StructuredOutputsParams)
warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "CUDA_VISIBLE_DEVICES": ""}

import torch  # noqa: E402
import trl.generation.vllm_client as client_module  # noqa: E402
import trl.generation.vllm_generation as generation_module  # noqa: E402
import trl.scripts.vllm_serve as serve_module  # noqa: E402
import yaml  # noqa: E402
from accelerate.state import AcceleratorState, PartialState  # noqa: E402
from datasets import Dataset  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM  # noqa: E402
from trl import GRPOConfig, GRPOTrainer, ModelConfig, RLOOConfig, RLOOTrainer, TrlParser  # noqa: E402

TRAINERS = {"grpo": (GRPOConfig, GRPOTrainer), "rloo": (RLOOConfig, RLOOTrainer)}
PROMPTS = 1024


def model_and_tokenizer() -> tuple[Any, Any]:
    """Return a model of a few parameters, and a tokenizer with a token for each prompt."""
    vocabulary = {str(number): number for number in range(PROMPTS)} | {"<end>": PROMPTS}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<end>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    shape = Qwen2Config(
        vocab_size=PROMPTS + 1, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, eos_token_id=PROMPTS, pad_token_id=PROMPTS,
    )  # fmt: skip
    return Qwen2ForCausalLM(shape), PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>", unk_token="<end>"
    )


MODEL, TOKENIZER = model_and_tokenizer()
DATA = Dataset.from_dict({"prompt": [str(number) for number in range(PROMPTS)]})


processes = 1
made_state = PartialState.__init__


def one_of_many(state: PartialState, *arguments: Any, **named: Any) -> None:
    """Make accelerate's state as if this process were the first of `processes`."""
    made_state(state, *arguments, **named)
    state.num_processes = processes


PartialState.__init__ = one_of_many


class Client(client_module.VLLMClient):
    """TRL's client without a server: keeps what it posts."""

    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        self.session.post = self._post

    def check_server(self, *_: Any, **__: Any) -> None:
        pass

    def init_communicator(self, *_: Any, **__: Any) -> None:
        pass

    def update_named_params(self, *_: Any, **__: Any) -> None:
        pass

    update_named_param = reset_prefix_cache = update_named_params

    def get_server_info(self) -> dict[str, Any]:
        return {"model_config": {"logprobs_mode": "processed_logprobs"}}

    def _get(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {"data": [{"id": "model"}]}

    def _post(self, _: str, json: dict[str, Any], **__: Any) -> dict[str, Any]:
        raise Kept(json)


generation_module.VLLMClient = Client


def trained(kind: str, settings: dict[str, Any], folder: Path) -> Any:
    """Return TRL's trainer for settings that TrlParser reads as its file."""
    config, trainer = TRAINERS[kind]
    file = folder / "settings.yaml"
    file.write_text(
        yaml.safe_dump({"use_cpu": True, "output_dir": str(folder), "report_to": "none", "beta": 0.0, **settings})
    )
    # like TRL's script: names that no dataclass has are left alone
    arguments, model, *_ = TrlParser((config, ModelConfig)).parse_args_and_config(
        ["--config", str(file)], fail_with_unknown_args=False
    )
    MODEL.name_or_path = model.model_name_or_path
    return trainer(
        model=MODEL, reward_funcs=lambda completions, **_: [0.0] * len(completions), args=arguments,
        train_dataset=DATA, processing_class=TOKENIZER,
    )  # fmt: skip


def batches(trainer: Any) -> list[list[dict[str, Any]]]:
    """Return the rows that each process gets from TRL's data loader for its first generation."""
    found = []
    for process in range(processes):
        for state in (PartialState, AcceleratorState):
            state._shared_state["process_index"] = process
        found.append(next(iter(trainer.get_train_dataloader())))
    for state in (PartialState, AcceleratorState):
        state._shared_state["process_index"] = 0
    return found


def request(trainer: Any, rows: list[list[dict[str, Any]]]) -> None:
    """Let the first process generate. Other processes' prompts come from `rows`."""
    prompts = [[TOKENIZER(row["prompt"])["input_ids"] for row in part] for part in rows]
    tensor = trainer.args.vllm_tensor_parallel_size

    def gather_in_group(into: list[Any], mine: Any, group: Any = None) -> None:
        into[:] = prompts[:tensor] if mine and isinstance(mine[0], list) else [mine] * tensor

    def gather(mine: list[Any]) -> list[Any]:
        return list(itertools.chain(*prompts)) if mine and isinstance(mine[0], list) else mine * len(prompts)

    torch.distributed.all_gather_object = gather_in_group
    torch.distributed.get_rank = lambda group=None: 0
    generation_module.gather_object = gather
    generate = trainer.vllm_generation.generate

    def and_end(*arguments: Any, **named: Any) -> None:
        generate(*arguments, **named)
        raise Kept

    trainer.vllm_generation.generate = and_end
    trainer.state.global_step = 0
    trainer.model.train()
    trainer._prepare_inputs(rows[0])


torch.cuda.current_device = lambda: 0
torch.distributed.barrier = torch.cuda.synchronize = lambda *_, **__: None
torch.distributed.new_subgroups_by_enumeration = lambda groups: (None, groups)


def served(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the engine arguments of TRL's server, and that of `vllm serve` as {argument: value}."""
    kept = {name.removeprefix("server."): value for name, value in settings.items() if name.startswith("server.")}
    file = Path(tempfile.mkdtemp()) / "server.yaml"
    file.write_text(yaml.safe_dump({"model": settings.get("model_name_or_path"), **kept}))
    (script, *_) = TrlParser(serve_module.ScriptArguments).parse_args_and_config(["--config", str(file)])
    if hasattr(serve_module, "build_command"):
        words = serve_module.build_command(script)
        return {"command": read_command_line(words[words.index(script.model) + 1 :]), "of": "vllm serve"}
    made.clear()
    connection = types.SimpleNamespace(send=lambda _: None, recv=lambda: {"type": "shutdown"})
    serve_module.llm_worker(script, 0, 0, connection)
    return {"command": {**made.pop().named, "data_parallel_size": script.data_parallel_size}, "of": "LLM"}


def plain(value: Any) -> Any:
    """Return a value of arguments as JSON has it."""
    return value.named if isinstance(value, StructuredOutputsParams) else value


def facts(kind: str, settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return what TRL does about a generation under these settings."""
    global processes
    processes = settings["num_processes"]
    made.clear()
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):  # TRL sets them for vLLM; accelerate would wait for the others
        os.environ.pop(name, None)
    settings_of_trainer = {name: value for name, value in settings.items() if not name.startswith("server.")}
    del settings_of_trainer["num_processes"]
    trainer = trained(kind, settings_of_trainer, folder)
    arguments, rows = trainer.args, batches(trainer)
    posted: dict[str, Any] = {}
    try:
        request(trainer, rows)
    except Kept as kept:
        posted = kept.args[0] if kept.args else {}
    drawn = [row["prompt"] for part in rows for row in part]
    found = {
        "mode": trainer.vllm_mode,
        "prompts": len(set(drawn)),
        "sequences": len(drawn),
        "steps_per_generation": arguments.steps_per_generation,
        "num_iterations": arguments.num_iterations,
    }
    if trainer.vllm_mode == "colocate":
        (engine,) = made
        ids, sampling = engine.generated
        tensor = arguments.vllm_tensor_parallel_size
        engines = [rows[start : start + tensor] for start in range(0, processes, tensor)]
        parts = [{row["prompt"] for part in group for row in part} for group in engines]
        return found | {
            "engines": len(engines),
            "sequences_of_an_engine": len(ids),
            "torn": sum(map(len, parts)) > found["prompts"],
            "arguments": engine.named,
            "sampling": {name: plain(value) for name, value in sampling.items()},
            "events": engine.events,
        }
    prompts = posted.pop("prompt", None) or posted.pop("prompts")
    assert len(prompts) * arguments.num_generations == len(drawn), "the server gets each prompt once"
    server = served(settings)
    return found | {
        "engines": server["command"].pop("data_parallel_size"),
        "server": server["of"],
        "arguments": server["command"],
        "sampling": {
            name: value
            for name, value in posted.items()
            if name not in ("model", "return_token_ids", "return_tokens_as_token_ids", "images", "generation_kwargs")
        }
        | (posted.get("generation_kwargs") or {}),
    }


SWITCH = [True, False]
BOTH: dict[str, list[Any]] = {
    "num_processes": [1, 2, 4, 8],
    "per_device_train_batch_size": [1, 2, 4, 6],
    "gradient_accumulation_steps": [1, 2, 4, 8],
    "steps_per_generation": [None, 1, 2, 6],
    "generation_batch_size": [None, 16, 48, 64],
    "num_generations": [2, 3, 4, 8],
    "num_iterations": [1, 2],
    "max_completion_length": [64, 300, 2048],
    "temperature": [0.6, 1.0, 1.3],
    "top_p": [0.7, 0.95, 1.0],
    "top_k": [0, -1, 20],
    "min_p": [None, 0.0, 0.1],
    "repetition_penalty": [1.0, 1.1],
    "generation_kwargs": [
        None,
        {},
        {"max_tokens": 100, "temperature": 0.2},
        {"top_p": 0.5, "top_k": 7},
        {"min_p": 0.2, "seed": 3},
        {"repetition_penalty": 1.2},
        {"stop": ["a"], "min_tokens": 4},
        {"temperature": 1, "n": 1},
        '{"max_tokens": 50}',
    ],
    "vllm_structured_outputs_regex": [None, "a+"],
    "vllm_mode": ["colocate", "server"],
}
"""Key -> values that are drawn, of keys of every run."""

OF_A_MODE: dict[str, list[Any]] = {
    "vllm_tensor_parallel_size": [1, 2, 4],
    "vllm_gpu_memory_utilization": [0.3, 0.55],
    "vllm_max_model_length": [None, 4096],
    "vllm_enable_sleep_mode": SWITCH,
    "vllm_model_impl": ["vllm", "transformers"],
    "trust_remote_code": SWITCH,
    "server.tensor_parallel_size": [1, 2],
    "server.data_parallel_size": [1, 2, 3],
    "server.gpu_memory_utilization": [0.9, 0.6],
    "server.max_model_len": [None, 4096],
    "server.enable_prefix_caching": [None, *SWITCH],
    "server.enforce_eager": SWITCH,
    "server.dtype": ["auto", "bfloat16", "float16"],
    "server.kv_cache_dtype": ["auto", "fp8"],
    "server.vllm_model_impl": ["vllm", "transformers"],
    "server.trust_remote_code": SWITCH,
    "server.speculative_config": [None, '{"method": "ngram"}'],
}
"""The same, of keys that only one mode reads, if any."""

ALWAYS = {"model_name_or_path": "Qwen/Qwen3-8B", "use_vllm": True, "num_processes": 4, "max_prompt_length": 512}
KEYS_OF_A_DRAW = 8
REFUSALS = (ValueError, TypeError, SystemExit)
"""TRL's refusals; another error is a fault of the stand-ins here."""


def draws(number: int, seed: int) -> list[dict[str, Any]]:
    """Return draws of values. With the default number, each pair of keys is in one at least."""
    chance = random.Random(seed)
    values = BOTH | OF_A_MODE
    if not NEWEST:
        del values["server.speculative_config"]
    pairs = set(itertools.combinations(values, 2))
    found: list[dict[str, Any]] = []
    while len(found) < number:
        keys = list(chance.choice(sorted(pairs))) if pairs else []
        keys += chance.sample([key for key in values if key not in keys], KEYS_OF_A_DRAW - len(keys))
        pairs -= {*itertools.combinations([key for key in values if key in keys], 2)}
        draw = ALWAYS | {key: chance.choice(values[key]) for key in keys}
        if any(key.startswith("server.") for key in keys):  # in TRL they are another command's
            draw.setdefault("vllm_mode", chance.choice(values["vllm_mode"]))
        found.append(draw)
    assert number < DRAWS or not pairs, f"{len(pairs)} pairs are in no draw"
    return found


def recorded(kind: str, draw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the facts for a draw, or TRL's refusal."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return facts(kind, draw, folder)
    except REFUSALS as error:
        return refusal(error)


def rows(number: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield the row of each draw."""
    with tempfile.TemporaryDirectory() as folder:
        for place, draw in enumerate([ALWAYS, ALWAYS, *draws(number, seed)]):
            kind = "rloo" if place % 4 == 1 else "grpo"
            yield {"trainer": kind, "settings": draw, **recorded(kind, draw, Path(folder))}


if __name__ == "__main__":
    write_table(__doc__, f"TRL {TRL}", ("trainer", "settings"), DRAWS, rows)
