"""One copy of a model on a GPU, or on several that share it: whether it fits, how long its steps take, what it serves.

An EC2 instance holds as many replicas as its GPUs allow, and each serves its own share of the requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property, lru_cache

from ..assumptions import assumed, check
from ..fits import Fit, fits
from ..hardware import Gpu
from ..kv import KV_BITS
from ..memory import memory
from ..serving.engine import Engine, Floor, estimate, floor, seldom
from ..serving.simulation import StepTime
from ..serving.workloads import Target, Workload
from ..shapes import ModelSpec
from ..speed.efficiency import origins, stack
from ..speed.phases import Phase, forward, pairs
from ..speed.scheme import Scheme
from .support import missing

LATE = 0.6  # of the limit
BATCHING = ("server", "vllm", "tensorrt-llm", "datasheet")  # stacks that batch continuously
_FAR = 10**9  # cached tokens, or pairs, by which the time of one is measured: rounding does not count then


@dataclass(frozen=True)
class Assumptions:
    """What a plan takes for granted. `fields(Assumptions)` has the unit and the meaning of each.

    Raises:
        TypeError, ValueError: a value of the wrong kind or out of range.
    """

    gpu_memory_utilization: float = assumed(0.92, "share", "of visible GPU memory; vLLM's default", 0.1, 1)
    overhead_gb: float = assumed(1.5, "GB", "set aside on each GPU for activations, CUDA context and waste", 0, 100)
    kv_bits: int = assumed(16, "bits", "of a number in the KV cache", among=KV_BITS)
    max_batch: int = assumed(256, "requests", "in the batch at most", 1, 100_000)
    prefill_budget: int = assumed(2048, "tokens", "of prompts in one step at most; vLLM's default", 1, 1_000_000)
    percentile: float = assumed(95.0, "percent", "of the requests that are to stay below the limits", 1, 99.9)
    kernels: str = assumed("server", "name", f"of the software stack: {', '.join(BATCHING)}", among=BATCHING)
    seed: int = assumed(0, "number", "of the simulated requests", 0)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Replica:
    """A model in some precision on `gpus` GPUs of one kind, for requests of one workload."""

    model: ModelSpec
    scheme: Scheme
    gpu: Gpu
    gpus: int
    workload: Workload
    target: Target
    given: Assumptions

    @cached_property
    def fit(self) -> Fit:
        """What is left for the cache beside the weights; `fits` says whether one request of the longest kind fits.

        Raises ValueError for a workload that is too long for the model.
        """
        breakdown = memory(
            self.model, self.scheme.weights, batch=1, context=self.workload.longest, kv_bits=self.given.kv_bits,
            tensor_parallel=self.gpus,
        )  # fmt: skip
        given = self.given
        return fits(breakdown, self.gpu, utilization=given.gpu_memory_utilization, overhead_gb=given.overhead_gb)

    @cached_property
    def obstacles(self) -> tuple[str, ...]:
        """Why the model cannot run here at all, in words; empty if it can."""
        found = []
        if not self.fit.fits:
            lacking = (self.fit.breakdown.kv_cache - self.fit.budget) / 1e9
            what = "the weights do not fit" if self.fit.budget < 0 else "the longest request does not fit"
            each = f" on each of {self.gpus} GPUs" if self.gpus > 1 else ""
            found.append(f"{what}: {lacking:.2f} GB are missing{each}")
        if reason := missing(self.scheme, self.gpu):
            found.append(reason)
        return tuple(found)

    @cached_property
    def engine(self) -> Engine:
        """What the simulator takes. Only where there are no obstacles."""
        given = self.given
        step = quick_step(self.model, self.scheme, self.gpu, self.gpus, given.kv_bits, given.kernels)
        return Engine(step, self.fit.tokens, given.max_batch, given.prefill_budget)

    @cached_property
    def floor(self) -> Floor:
        """What no load is faster than; see `engine.floor`."""
        return floor(self.engine, self.workload, self.target)

    @cached_property
    def estimate(self) -> float:
        """Requests per second that meet the target, about: `engine.estimate`, where it is late at least `seldom`."""
        if not self.floor.meets(self.target):
            return 0.0
        found = estimate(self.engine, self.workload, self.target, self.floor)
        return max(found, seldom(self.engine, self.workload, self.target)) if self.late else found

    @property
    def late(self) -> bool:
        """Whether a request that has the server to itself takes most of the limit; then the estimate is too low."""
        alone = self.floor.answer if self.target.of == "answer" else self.floor.first
        return alone > LATE * self.target.seconds

    @property
    def calibration(self) -> str:
        """Where the efficiencies come from that turn data sheets into times."""
        return calibration(self.given.kernels, self.gpu)

    def __str__(self) -> str:
        where = self.gpu.name if self.gpus == 1 else f"{self.gpus} x {self.gpu.name}"
        return f"{self.scheme.name} on {where}"


@lru_cache(maxsize=512)
def quick_step(model: ModelSpec, how: Scheme, where: Gpu, gpus: int, kv_bits: int, kernels: str) -> StepTime:
    """The function that `phases.step_time` gives, in parts that are remembered, as thousands of steps are simulated.

        layers and communication of all tokens + head of the new tokens + attention

    The first two are asked once for each number of tokens. Attention is linear in the cached tokens and in the pairs
    of a prompt. The parts add up, as the stacks in BATCHING replay their launches: no step waits for the host.
    """
    reached = stack(kernels, where)

    def at(tokens: float, logits: int, **attended: float) -> Phase:
        return forward(
            model, how, where, tokens=tokens, logits=logits,  # type: ignore[arg-type]
            tensor_parallel=gpus, kv_bits=kv_bits, kernels=reached, **attended,
        )  # fmt: skip

    idle = at(1, 1)
    for_cached = (at(1, 1, cached=_FAR).seconds - idle.seconds) / _FAR
    for_pairs = (at(1, 1, prompt_pairs=_FAR).seconds - idle.seconds) / _FAR

    @cache
    def layers(tokens: float) -> float:
        return at(tokens, 1).seconds

    @cache
    def head(logits: int) -> float:
        return at(1, logits).parts["head"] - idle.parts["head"]

    def seconds(prefill: int, decoding: int, cached: int) -> float:
        attention = for_pairs * pairs(prefill) + (for_cached * cached if decoding else 0.0)
        return layers(prefill + decoding) + head(decoding + (prefill > 0)) + attention

    return seconds


def calibration(kernels: str, where: Gpu) -> str:
    """How many of a stack's numbers were recorded on this GPU, found from published speeds, or assumed, in words."""
    found = origins(kernels, where)
    if kernels == "datasheet":
        return "no losses: a bound that no software reaches"
    parts = []
    for basis, words in (("recorded", "recorded on this GPU"), ("published", "fitted to published speeds")):
        if count := sum(one.basis == basis for one in found.values()):
            parts.append(f"{count} {words}")
    assumed = [name for name, one in found.items() if one.basis == "assumed"]
    return f"stack {kernels}: of {len(found)} numbers {', '.join(parts)}, {len(assumed)} assumed"
