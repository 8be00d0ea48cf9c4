"""Walk through a model block by block: each block sees what the quantized blocks before it really give.

The hidden states of one block are kept and nothing else, so that a model that just fits can be calibrated.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from .calibration import Batch
from .folding import Edge, edges_in, weight_of


def decoder_blocks(model: nn.Module) -> dict[str, nn.Module]:
    """The repeated blocks of a decoder by name, in order: the longest list of modules with linear layers inside.

    Raises:
        ValueError: the model has no such list.
    """
    lists = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and any(isinstance(m, (nn.Linear, Conv1D)) for m in module.modules())
    }
    if not lists:
        raise ValueError("model: it has no list of blocks to calibrate one by one; use a method without calibration")
    name = max(lists, key=lambda name: len(lists[name]))
    return {f"{name}.{i}": block for i, block in enumerate(lists[name])}


@dataclass
class Flow:
    """The calibration data on its way through the blocks: the input of the next one, batch by batch."""

    hidden: list[torch.Tensor]  # (rows, width, hidden size)
    counted: list[torch.Tensor]  # bool (rows, width)
    calls: list[list[_Call]]  # for every batch, for every block

    def run(self, index: int, block: nn.Module, batch: int) -> torch.Tensor:
        """The output of block number `index` for one batch."""
        call = self.calls[batch][index]
        output = block(self.hidden[batch], *call.args, **call.kwargs)
        return output[0] if isinstance(output, tuple) else output

    def advance(self, index: int, block: nn.Module) -> None:
        """Put the outputs of the block in the place of its inputs."""
        for batch in range(len(self.hidden)):
            self.hidden[batch] = self.run(index, block, batch)


@dataclass(frozen=True)
class _Call:
    """What a block is called with besides its hidden states: masks and position embeddings."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@torch.no_grad()
def enter(model: PreTrainedModel, blocks: dict[str, nn.Module], batches: list[Batch]) -> Flow:
    """Run the model up to its first block, and note how it calls each block."""
    hidden: list[torch.Tensor] = []
    seen: dict[tuple[int, ...], list[_Call]] = {}  # one full pass for every shape of a batch
    calls: list[list[_Call]] = []

    def note(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not noted:
            hidden.append(args[0] if args else kwargs["hidden_states"])
        kwargs = {name: value for name, value in kwargs.items() if name != "hidden_states"}
        noted.append(_Call(args[1:], kwargs))
        if shape in seen:
            raise _Entered

    handles = [block.register_forward_pre_hook(note, with_kwargs=True) for block in blocks.values()]
    try:
        for batch in batches:
            noted: list[_Call] = []
            shape = tuple(batch.ids.shape)
            with suppress(_Entered):
                model(batch.ids.to(model.device), use_cache=False, logits_to_keep=1)
            calls.append(seen.setdefault(shape, noted))
    finally:
        for handle in handles:
            handle.remove()
    return Flow(hidden, [batch.counted.to(model.device) for batch in batches], calls)


@torch.no_grad()
def before_the_blocks(model: PreTrainedModel, first: nn.Module, names: list[str], batch: Batch) -> list[str]:
    """Those of the named layers that run before the first block."""
    ran: list[str] = []

    def enter(block: nn.Module, args: Any) -> None:
        raise _Entered

    def note(name: str) -> Any:
        return lambda layer, args: ran.append(name)

    handles = [model.get_submodule(name).register_forward_pre_hook(note(name)) for name in names]
    handles.append(first.register_forward_pre_hook(enter))
    try:
        model(batch.ids[:1].to(model.device), use_cache=False)
    except _Entered:
        return ran
    finally:
        for handle in handles:
            handle.remove()
    raise AssertionError("the model did not run its first block")


class _Entered(Exception):
    """The first block was reached and its input is known: the rest of the pass is not needed."""


def stages(flow: Flow, index: int, block: nn.Module, layers: dict[str, nn.Module]) -> list[list[str]]:
    """The layers of a block in the order in which they run; those that see one and the same input together.

    In a Llama block: q, k and v; then o; then gate and up; then down.
    """
    order: list[tuple[str, torch.Tensor]] = []  # the tensors are kept, so that an address is not used twice

    def note(name: str) -> Any:
        return lambda layer, args: order.append((name, args[0]))

    handles = [layer.register_forward_pre_hook(note(name)) for name, layer in layers.items()]
    try:
        flow.run(index, block, 0)
    finally:
        for handle in handles:
            handle.remove()
    found: list[list[str]] = []
    last: torch.Tensor | None = None
    for name, x in order:
        if found and last is not None and x.data_ptr() == last.data_ptr() and x.shape == last.shape:
            found[-1].append(name)
        else:
            found.append([name])
        last = x
    return found


class Statistic(Protocol):
    """What is remembered of the inputs of a layer: a `Hessian`, or `InputRanges`."""

    tokens: int

    def add(self, x: torch.Tensor) -> None: ...


S = TypeVar("S", bound=Statistic)


@contextmanager
def watched(layer: nn.Module, statistic: Statistic, counted: list[torch.Tensor]) -> Iterator[None]:
    """Collect the statistic of a layer's inputs while the batches pass in order; padding is not counted."""
    masks = iter(counted)

    def collect(layer: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        x, mask = args[0].flatten(0, -2), next(masks).reshape(-1)  # (tokens, in), (tokens,)
        statistic.add(x[mask] if len(mask) == len(x) else x)

    handle = layer.register_forward_pre_hook(collect)
    try:
        yield
    finally:
        handle.remove()


@dataclass(frozen=True)
class Place:
    """One block, what flows into it, and the arguments of its layers, by their names inside the block."""

    flow: Flow
    index: int
    block: nn.Module
    prefix: str
    arguments: dict[str, dict[str, Any]]

    def stages(self) -> list[list[str]]:
        """The layers that have arguments, in the order in which they run; those that see one input together."""
        layers = {name: self.block.get_submodule(name) for name in self.arguments}
        return stages(self.flow, self.index, self.block, layers) if layers else []

    def edges(self, names: Container[str]) -> list[tuple[Edge, list[str]]]:
        """Where scales can move to some of these layers, and to which of them."""
        found = [(edge, [name for name in edge.layers if name in names]) for edge in edges_in(self.block)]
        return [(edge, chosen) for edge, chosen in found if chosen]

    def collect(self, stages: list[list[str]], statistic: Callable[[int], S]) -> dict[str, S]:
        """A statistic of the inputs of some layers, from one pass; the layers of a stage share theirs."""
        seen: dict[str, S] = {}
        with ExitStack() as stack:
            for stage in stages:
                layer = self.block.get_submodule(stage[0])
                of_stage = statistic(weight_of(layer).shape[1])
                stack.enter_context(watched(layer, of_stage, self.flow.counted))
                seen |= dict.fromkeys(stage, of_stage)
            for batch in range(len(self.flow.hidden)):
                self.flow.run(self.index, self.block, batch)
        return seen
