"""Facts about verl's generation, from verl's own code: run by `make oracles` in an environment with verl, without vLLM.

For each draw of overrides, verl composes its config by hydra, and its own classes run as far as they can without a
device: trainer (prompts of a step), agent loop and client (requests), LLMServerManager (engines), vLLMReplica and
vLLMHttpServer (engine arguments, sleep level). In place of vLLM stands a package that accepts every import; a call
that would reach the engine keeps its arguments and ends there.

Not reached: Megatron, SGLang and TensorRT-LLM; the transfer of weights; turns with tools; processes and placement of
ray (a worker is a number here); the choice of a replica for a request; `validate_config`, which judges the training;
the recipes of other repositories, of which only the older trainer that they inherit runs.
"""

import asyncio
import contextlib
import copy
import dataclasses
import functools
import importlib
import importlib.metadata
import io
import itertools
import json
import logging
import random
import tempfile
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from oracle_table import refusal, write_table
from stand_ins import Anything, Kept, read_command_line, stand_in

VLLM = {"0.8": "0.12.0", "0.9": "0.24.0"}
"""verl -> a version of vLLM that it is made for."""

MODEL_LENGTH = 40_960
"""Longest sequence of the model in the draws, in tokens, as Qwen3-8B has it."""

LARGEST_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM accepts as max_lora_rank."""

DRAWS = 410


@dataclasses.dataclass
class AsyncEngineArgs(Anything):
    """vLLM's switches whose default is not False: verl writes them out if they are False."""

    enable_prefix_caching: bool | None = None
    enable_chunked_prefill: bool | None = None
    async_scheduling: bool | None = None


real_version = importlib.metadata.version
VERL = real_version("verl")
VERSION = ".".join(VERL.split(".")[:2])
importlib.metadata.version = lambda name: VLLM[VERSION] if name == "vllm" else real_version(name)
stand_in(
    ("vllm", "transfer_queue"), VLLM[VERSION], AsyncEngineArgs=AsyncEngineArgs, MaxLoRARanks=Literal[LARGEST_RANKS]
)
warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)

import ray  # noqa: E402
import torch  # noqa: E402
import verl.trainer.ppo.ray_trainer as older  # noqa: E402
import verl.workers.rollout.vllm_rollout.vllm_async_server as server_module  # noqa: E402
from hydra import compose, initialize_config_dir  # noqa: E402
from hydra._internal.config_loader_impl import ConfigLoaderImpl  # noqa: E402
from hydra.core.override_parser.overrides_parser import OverridesParser  # noqa: E402
from hydra.errors import HydraException  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402
from verl.experimental.agent_loop.agent_loop import AgentLoopWorker  # noqa: E402
from verl.workers.rollout.llm_server import LLMServerClient, LLMServerManager  # noqa: E402
from verl.workers.rollout.replica import RolloutMode  # noqa: E402

with contextlib.suppress(ImportError):  # verl 0.8 has only the older trainer
    import verl.trainer.ppo.v1.trainer_base as newer
    from verl.trainer.ppo.v1 import get_trainer_cls
    from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ

CONFIGS = Path(importlib.import_module("verl").__file__).parent / "trainer/config"
R = "actor_rollout_ref.rollout."


def keep(*arguments: Any, **named: Any) -> Any:
    """End verl's code, and keep the arguments of its call."""
    raise Kept(arguments, named)


class Engine:
    """vLLM's engine as far as sleep goes: keeps the level."""

    level: int | None = None

    async def sleep(self, level: int) -> None:
        self.level = level

    def __getattr__(self, _: str) -> type:
        return Anything


ray.get_runtime_context = lambda: types.SimpleNamespace(get_job_id=lambda: "0")
ray.util.get_node_ip_address = lambda: "127.0.0.1"
command_line = server_module.build_cli_args_from_config
server_module.build_cli_args_from_config = lambda arguments: keep(command_line(arguments))
server_module.SamplingParams = keep


class Replica(server_module.vLLMReplica):
    """A replica whose first server is in this process, and has no engine."""

    arguments: list[str]

    async def launch_servers(self) -> None:
        self._server_address, self._server_handle = f"engine-{self.replica_rank}", None
        if self.replica_rank:  # but for its seed, it is like the first
            return
        server = server_module.vLLMHttpServer(
            config=self.config,
            model_config=self.model_config,
            rollout_mode=self.rollout_mode,
            workers=self.workers,
            replica_rank=self.replica_rank,
            node_rank=0,
            gpus_per_node=self.gpus_per_replica_node,
            nnodes=self.nnodes,
            cuda_visible_devices="",
        )
        server.engine = Engine()
        self.servers = [server]
        try:
            await server.launch_server()
        except Kept as kept:
            self.arguments = kept.args[0][0]

    async def init_standalone(self) -> None:
        self.rollout_mode, self.workers = RolloutMode.STANDALONE, [None] * self.world_size
        await self.launch_servers()


class Manager(LLMServerManager):
    rollout_replica_class = Replica


async def engines(config: Any, apart: bool, start: int = 0) -> list[Replica]:
    """Return the engines on the trainer's devices, or those that stand apart."""
    devices = config.trainer.nnodes * config.trainer.n_gpus_per_node
    group = None if apart else types.SimpleNamespace(world_size=devices, workers=[None] * devices)
    manager = Manager(config, worker_group=group)
    await (manager._initialize_llm_servers(start) if start else manager._initialize_llm_servers())
    return manager.rollout_replicas


class Prompts(torch.utils.data.Dataset):
    """Data set of prompts that nobody reads."""

    def __len__(self) -> int:
        return 1 << 14

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"raw_prompt": [], "index": index, "dummy_tensor": torch.zeros(1)}


class Sent:
    """The agent loop's manager: keeps each batch that the trainer sends, or ends the trainer there."""

    def __init__(self, end: bool) -> None:
        self.end, self.batches = end, []

    def generate_sequences(self, batch: Any) -> None:
        self.batches.append(batch)
        if self.end:
            raise Kept


def newer_batches(config: Any) -> tuple[Any, list[Any], list[Any]]:
    """Return the client's class, and the batches that verl's v1 trainer sends before its first step and for a step."""
    newer.create_rl_dataset = lambda *_, **__: Prompts()
    newer.create_rl_sampler = lambda *_: torch.utils.data.SequentialSampler(Prompts())
    newer.SkipManager.init(config)
    trainer = get_trainer_cls(config.trainer.v1.trainer_mode)(config)
    trainer.tokenizer = trainer.processor = None
    trainer.global_steps, trainer.agent_loop_manager = 1, Sent(end=False)
    manager = types.SimpleNamespace(get_client=lambda client_cls=LLMServerClient, **_: client_cls)
    trainer.llm_server_manager = trainer.standalone_server_manager = manager
    trainer.current_mode = None  # of engines that also train, which take no part in what is sent
    trainer._init_dataloader()
    trainer.on_train_begin()
    before = len(trainer.agent_loop_manager.batches)
    trainer.prepare_step()
    batches = trainer.agent_loop_manager.batches
    return trainer.get_llm_client(), batches[:before], batches[before:]


def older_batches(config: Any) -> list[Any]:
    """Return the batch that the older trainer sends for a step; each of its rows is a request."""
    trainer = object.__new__(older.RayPPOTrainer)
    trainer.config = config
    trainer._create_dataloader(Prompts(), Prompts(), None, torch.utils.data.SequentialSampler(Prompts()))
    trainer._init_dump_executor() if hasattr(trainer, "_init_dump_executor") else None
    trainer.async_rollout_manager = Sent(end=True)
    trainer.actor_rollout_wg, trainer.checkpoint_manager = object(), Engine()
    trainer._load_checkpoint = trainer._start_profiling = lambda *_: None
    with contextlib.suppress(Kept):
        trainer.fit()
    return trainer.async_rollout_manager.batches


async def newer_requests(batch: Any, config: Any, validate: bool) -> list[dict[str, Any]]:
    """Return the parameters of each sample of a batch's first prompt, from verl's v1 agent loop."""
    worker = object.__new__(AgentLoopWorkerTQ.__ray_metadata__.modified_class)
    worker.config, worker.background_tasks = config, set()
    found: list[dict[str, Any]] = []

    async def run(parameters: dict[str, Any], **_: Any) -> None:
        found.append(parameters)

    worker._run_agent_loop = run
    first = batch[:1].copy()
    newer.tu.assign_non_tensor_data(first, "validate", validate)
    await worker.generate_sequences(first)
    await asyncio.gather(*worker.background_tasks)
    return found


async def older_requests(batch: Any, config: Any, validate: bool) -> list[dict[str, Any]]:
    """Return the parameters of each request of a batch, from the older trainer's agent loop."""
    worker = object.__new__(AgentLoopWorker)
    worker.config, worker.rollout_config = config, config.actor_rollout_ref.rollout
    found: list[dict[str, Any]] = []

    async def run(parameters: dict[str, Any], *_: Any, **__: Any) -> None:
        found.append(parameters)

    worker._run_agent_loop, worker._postprocess = run, lambda *_, **__: None
    batch.meta_info["validate"] = validate
    await worker.generate_sequences(batch)
    return found


async def sampling(client_class: type, config: Any, replica: Replica, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the SamplingParams of a request with the longest prompt."""

    handle = types.SimpleNamespace(generate=types.SimpleNamespace(remote=replica.servers[0].generate))

    class Client(client_class):
        async def _acquire_server(self, *_: Any, **__: Any) -> tuple[str, Any]:
            return "engine", handle

        def _release_server(self, *_: Any, **__: Any) -> None:
            pass

    prompt = [1] * config.actor_rollout_ref.rollout.prompt_length
    try:
        await Client(config).generate("request", prompt_ids=prompt, sampling_params=dict(parameters))
    except Kept as kept:
        return kept.args[1]
    raise AssertionError("the request has not reached vLLM")


async def facts(config: Any) -> dict[str, Any]:
    """Return what verl does about a step under its own config."""
    is_newer = bool(config.trainer.get("use_v1"))
    if is_newer:
        mode = config.trainer.v1.trainer_mode
        client, before, step = newer_batches(config)
        prompts = sum(map(len, step))
        requests = await newer_requests(step[0], config, validate=False)
        validation = await newer_requests(step[0], config, validate=True)
        sequences = prompts * len(requests)
        groups = [] if mode == "separate_async" and not config.actor_rollout_ref.hybrid_engine else [False]
        groups += [True] if mode == "separate_async" else []
    else:
        mode, client, before, groups = "sync", LLMServerClient, [], [False]
        (batch,) = older_batches(config)
        requests = await older_requests(batch, config, validate=False)
        validation = (await older_requests(batch, config, validate=True))[:1]
        prompts, sequences = len(set(batch.non_tensor_batch["index"].tolist())), len(batch)
    replicas: list[Replica] = []
    apart = 0
    for is_apart in groups:
        more = await engines(config, is_apart, len(replicas))
        apart += len(more) * is_apart
        replicas += more
    if not replicas:
        raise ValueError("the devices are too few for an engine")
    first = replicas[0]
    await first.servers[0].sleep()
    return {
        "trainer": f"v1 {mode}" if is_newer else "older",
        "prompts": prompts,
        "sequences": sequences,
        "prompts_before": sum(map(len, before)),
        "engines": len(replicas),
        "engines_apart": apart,
        "devices_of_an_engine": first.world_size,
        "prompt_tokens": config.actor_rollout_ref.rollout.prompt_length,
        "sleep_level": first.servers[0].engine.level,
        "arguments": read_command_line(first.arguments),
        "sampling": await sampling(client, config, first, requests[0]),
        "greedy": sum(one["temperature"] == 0 for one in requests) if not is_newer else 0,
        "validation": await sampling(client, config, first, validation[0]),
    }


LEFT_OUT = (
    "seed",
    "worker_extension_cls",
    "override_generation_config",
    "master_addr",
    "master_port",
    "data_parallel_address",
    "data_parallel_rpc_port",
)
"""Engine arguments that differ by machine, or only say what each request says itself."""


APART = (
    "trainer.v1.separate_async.parameter_sync_step=1",
    "actor_rollout_ref.actor.ppo_mini_batch_size=${data.train_batch_size}",
    f"{R}checkpoint_engine.backend=nccl",
)
"""What separate_async demands of the training."""


@functools.lru_cache
def defaults(model: Path) -> Any:
    """Return verl's defaults as hydra composes them, with a model of this machine."""
    with initialize_config_dir(str(CONFIGS), version_base=None):
        return compose(
            "ppo_trainer",
            [
                "data.dataloader_num_workers=0",
                "trainer.logger=[]",
                "trainer.val_before_train=false",
                "+actor_rollout_ref.model.load_tokenizer=false",
                f"actor_rollout_ref.model.path={model}",
            ],
        )


def composed(overrides: list[str], model: Path) -> Any:
    """Return verl's config with the overrides, laid over the defaults by hydra's own function."""
    config = copy.deepcopy(defaults(model))
    words = [word for word in overrides if "model.path=" not in word]
    words += APART if any("separate_async" in word for word in words) else ()
    ConfigLoaderImpl._apply_overrides_to_config(OverridesParser.create().parse_overrides(words), config)
    OmegaConf.set_struct(config, False)
    return config


REFUSALS = (AssertionError, ValueError, NotImplementedError, RuntimeError, dataclasses.FrozenInstanceError)
"""verl's refusals; another error is a fault of the stand-ins here."""


def recorded(overrides: list[str], model: Path) -> dict[str, Any]:
    """Return the facts for the overrides, or verl's refusal."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            found = asyncio.run(facts(composed(overrides, model)))
    except REFUSALS as error:
        return refusal(error)
    found["arguments"] = {name: value for name, value in found["arguments"].items() if name not in LEFT_OUT}
    return found


MODEL = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "num_hidden_layers": 2,
    "max_position_embeddings": MODEL_LENGTH,
}


SWITCH = [True, False]
VALUES: dict[str, list[Any]] = {
    "trainer.n_gpus_per_node": [4, 8],
    "trainer.nnodes": [1, 2],
    f"{R}nnodes": [0, 1, 2],
    f"{R}n_gpus_per_node": [4, 8],
    "data.train_batch_size": [8, 24, 32, 48],
    "data.gen_batch_size": [None, 1, 4, 8, 96],
    "trainer.use_v1": SWITCH,
    f"{R}n": [1, 2, 4, 5],
    "algorithm.adv_estimator": ["gae", "grpo", "remax", "rloo"],
    "data.max_prompt_length": [64, 300, 1024],
    "data.max_response_length": [32, 256, 2048],
    f"{R}prompt_length": [100, 512],
    f"{R}response_length": [16, 1000],
    f"{R}temperature": [0.6, 1.0, 1.3],
    f"{R}top_p": [0.7, 0.95, 1.0],
    f"{R}top_k": [-1, 20],
    "actor_rollout_ref.model.trust_remote_code": SWITCH,
    "actor_rollout_ref.model.lora_rank": [0, 16],
    "actor_rollout_ref.model.lora.rank": [0, 8],
    "actor_rollout_ref.model.lora.merge": SWITCH,
    f"{R}quantization": [None, "fp8", "'fp8'"],
    f"{R}tensor_model_parallel_size": [1, 2, 4],
    f"{R}expert_parallel_size": [1, 2, 4],
    f"{R}pipeline_model_parallel_size": [1],
    f"{R}gpu_memory_utilization": [0.4, 0.85, "6e-1"],
    f"{R}max_num_seqs": [64, 1024],
    f"{R}max_num_batched_tokens": [1024, 16384],
    f"{R}enforce_eager": SWITCH,
    f"{R}enable_chunked_prefill": SWITCH,
    f"{R}enable_prefix_caching": SWITCH,
    f"{R}logprobs_mode": ["raw_logprobs", "processed_logprobs", None],
    f"{R}scheduling_policy": ["fcfs", "priority", None],
    f"{R}dtype": ["bfloat16", "float16", "half", "auto"],
    f"{R}max_model_len": [None, 1500, 4096],
    f"{R}cudagraph_capture_sizes": [None, [1, 2, 4, 8]],
    f"{R}engine_kwargs.vllm": [
        {},
        {"kv_cache_dtype": "fp8", "async_scheduling": False},
        {"max_num_seqs": 33, "block_size": None},
        {"compilation_config": {"cudagraph_mode": "PIECEWISE"}},
        {"decode_context_parallel_size": 2},
        "{kv_cache_dtype:fp8,max_num_seqs:48,compilation_config:{cudagraph_mode:PIECEWISE}}",
    ],
    f"{R}free_cache_engine": SWITCH,
    f"{R}enable_sleep_mode": SWITCH,
    f"{R}ignore_eos": SWITCH,
    f"{R}calculate_log_probs": SWITCH,
    f"{R}data_parallel_size": [1, 2],
    "algorithm.filter_groups.enable": SWITCH,
    "trainer.v1.trainer_mode": ["sync", "sync", "colocate_async", "separate_async"],
    "actor_rollout_ref.hybrid_engine": SWITCH,
}
"""Key -> values that are drawn."""

ALWAYS = {
    "actor_rollout_ref.model.path": "Qwen/Qwen3-8B",
    f"{R}name": "vllm",
    "data.train_batch_size": 32,
}
"""Key -> value in every draw that does not draw the key."""

SPELT = (
    *("on", "off", "yes", "TRUE", "false", "Null", "None", "???"),
    *("1e-3", "1E3", "1.", "5e", "+1", "-1", "1_000", "0512", "0x10", "1:30", "10%", "inf"),
    *(
        "'a b'",
        '"x"',
        "'it\\'s'",
        "a b",
        " x ",
        "a,b",
        "a\\,b",
        "a'b",
        "x=y",
        "a:b",
        "a#b",
        "a;b",
        "~/x",
        "$HOME",
        "@x",
        "#x",
    ),
    *("[]", "[1,2]", "[[1,2],[3]]", "[a b, 'c d']", "['a','b']", "[1,", "{}", "{a:1}", "{a: 1}", "{a:1,b:{c:[x,y]}}"),
    *('{"a": 1}', "'{\"a\": 1}'", "${a.b}/c", "[${a},1]", "${oc.env:X}", "hdfs://a/b", "2026-11-22", "a{b", "(a)", ""),
)
"""Values of an override, as users write them."""

KEYS_OF_A_DRAW = 8


def draws(number: int, seed: int) -> list[dict[str, Any]]:
    """Return draws of values; with the default number each pair of keys is in one at least."""
    chance = random.Random(seed)
    values = {key: values for key, values in VALUES.items() if VERSION != "0.8" or "v1" not in key}
    pairs = set(itertools.combinations(values, 2))
    found = []
    while len(found) < number:
        keys = list(chance.choice(sorted(pairs))) if pairs else []
        keys += chance.sample([key for key in values if key not in keys], KEYS_OF_A_DRAW - len(keys))
        pairs -= {*itertools.combinations([key for key in values if key in keys], 2)}
        draw = ALWAYS | {key: chance.choice(values[key]) for key in keys}
        if draw.get(f"{R}expert_parallel_size", 1) > 1:  # verl accepts no other
            draw[f"{R}expert_parallel_size"] = draw.get(f"{R}tensor_model_parallel_size", 2) * draw.get(
                f"{R}data_parallel_size", 1
            )
        found.append(draw)
    return found


def word(key: str, value: Any) -> str:
    """Return an override in hydra's syntax, which is YAML, too."""
    return f"++{key}={_written(value)}"


def _written(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_written(inner)}" for name, inner in value.items()) + "}"
    return value if isinstance(value, str) else json.dumps(value)


def as_hydra_reads(written: str) -> dict[str, Any]:
    """Return the value of an override, or that hydra refuses it or runs a sweep."""
    try:
        override = OverridesParser.create().parse_override(f"++value={written}")
    except HydraException as error:
        return refusal(error)
    return {"refused": "a sweep"} if override.is_sweep_override() else {"value": override.value()}


def rows(number: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield how hydra reads each value of `SPELT`, then the row of each draw."""
    for written in SPELT:
        yield {"words": [f"++value={written}"], "written": written, **as_hydra_reads(written)}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(MODEL))
        for draw in (ALWAYS, *draws(number, seed)):
            words = [word(key, value) for key, value in draw.items()]
            yield {"words": words, **recorded(words, Path(folder))}


if __name__ == "__main__":
    write_table(__doc__, f"verl {VERL}", ("words",), DRAWS, rows)
