"""The worker extension of an engine whose EAGLE3 head has made-up weights: the head keeps an output layer of its own.

vLLM lets a head use its target's output layer unless a checkpoint of the head has one, and made-up weights have no
checkpoint. Trained heads have one for a part of the vocabulary. The target's is several times as large, and each
drafted token would cost too much. Only workers import this module, before they load a model.
"""

from vllm.model_executor.models.llama_eagle3 import Eagle3LlamaForCausalLM

from rollout_bench.measure.probes.loaded_weights import WeightCensus

Eagle3LlamaForCausalLM.has_own_lm_head = True


class CensusOfHeads(WeightCensus):
    """`WeightCensus`, as vLLM's `worker_extension_cls`."""
