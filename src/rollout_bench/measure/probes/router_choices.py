"""What the routers of a mixture of experts choose, noted inside vLLM's worker, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Choices = NDArray[np.int32]
"""Experts that a layer's router chose for each token [tokens, experts per token]."""


class RouterChoices:
    """Notes what each router of `model` chooses, from `begin` to `end`.

    vLLM calls a router's `capture_fn` with what it chose, before it balances experts over devices. It does so from
    Python: what replays a captured graph, or was compiled before, is not noted, and then `end` returns nothing of it.

    Args:
        model: a loaded model.
        uncompiled: run the model as Python meanwhile, so that there is something to note. It is slower, and rounds
            otherwise than what was compiled.
    """

    def __init__(self, model: Any, uncompiled: bool = False) -> None:
        self._routers = routers_of(model)
        # vLLM's own switch: where it is True, the compiled code is passed by
        held = model.modules() if uncompiled and self._routers else ()
        self._compiled = [module for module in held if getattr(module, "do_not_compile", None) is False]
        self._noted: list[list[Choices]] = []
        self._before: list[Any] = []

    @property
    def layers(self) -> int:
        """How many routers there are."""
        return len(self._routers)

    def begin(self) -> None:
        """Note from now on, and forget what was noted; twice is as once."""
        self.end()
        self._noted = [[] for _ in self._routers]
        self._before = [getattr(router, "capture_fn", None) for router in self._routers]
        for layer, router in enumerate(self._routers):
            router.set_capture_fn(partial(self._note, layer))
        self._compile(False)

    def taken(self) -> list[Choices]:
        """Return what each router chose since it was last asked; an empty array where nothing was noted of it."""
        noted, self._noted = self._noted, [[] for _ in self._routers]
        return [np.concatenate(each) if each else np.zeros((0, 0), np.int32) for each in noted]

    def end(self) -> list[Choices]:
        """As `taken`, and note no more."""
        for router, before in zip(self._routers, self._before, strict=False):
            router.set_capture_fn(before)
        self._before = []
        self._compile(True)
        return self.taken()

    def _compile(self, wanted: bool) -> None:
        for module in self._compiled:
            module.do_not_compile = not wanted

    def _note(self, layer: int, chosen: Any) -> None:
        self._noted[layer].append(np.array(chosen.detach().cpu().numpy(), dtype=np.int32))
        before: Callable[[Any], None] | None = self._before[layer]
        if before is not None:
            before(chosen)


def routers_of(model: Any) -> list[Any]:
    """Return the routers of `model` in the order of the layers, each once; none for a dense model."""
    held = (getattr(module, "router", None) for module in model.modules())
    # up to 0.23 vLLM's layer and the runner within it both hold the layer's router
    return list({id(router): router for router in held if hasattr(router, "set_capture_fn")}.values())
