"""Why the model misses some published speeds by more than half: for each such row, what would explain it.

Where the reason can be computed, `instead` is the job under another reading of the same row, and predicts it.
That is evidence, not proof: the sources do not print what they did.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from .published import Job, largest_batch


@dataclass(frozen=True)
class Explanation:
    """Words, and the job as it would have to be."""

    words: str
    instead: Callable[[Job], Job]


def _wide_cache(job: Job) -> Job:
    job = replace(job, kv_bits=16)
    return replace(job, batch=largest_batch(job))


def _batch(requests: int) -> Callable[[Job], Job]:
    return lambda job: replace(job, batch=requests)


def _eager(job: Job) -> Job:
    return replace(job, kernels="transformers")


_CACHE = (
    "Read as W8A8 with an 8-bit KV cache. With the cache in 16 bits fewer requests fit, and the model agrees; the "
    "source names no cache type beside W8A8, and other rows of it fit only 8 bits."
)
_FEW = (
    "Memory has room for ten times as many requests, but the speed is that of a batch of about 24. The three models "
    "with shared KV heads are all slow here in W8A8, and one GPU with less than half of the bandwidth, the L40S, is "
    "as fast or faster with two of them: something in this engine, not in the GPU, set the limit."
)
EXPLANATIONS = {
    "qwen25-72b-vllm-GPTQ-Int4-1": Explanation(
        "The source says that one of its two INT4 rows ran without CUDA graphs. With launches from the host, at the "
        "pace of eager transformers, the model agrees; on two GPUs it agrees with graphs. The labels may be swapped.",
        _eager,
    ),
    "qserve-A100-80GB-Llama-3-8B-TRT-LLM W8A8": Explanation(_FEW, _batch(24)),
    "qserve-A100-80GB-Mistral-7B-TRT-LLM W8A8": Explanation(_FEW, _batch(24)),
    "qserve-A100-80GB-Yi-34B-TRT-LLM W8A8": Explanation(_FEW, _batch(24)),
    "qserve-A100-80GB-Llama-30B-TRT-LLM W8A8": Explanation(_CACHE, _wide_cache),
    "qserve-A100-80GB-Llama-2-70B-TRT-LLM W8A8": Explanation(_CACHE, _wide_cache),
    "qserve-L40S-48GB-Llama-2-13B-TRT-LLM W8A8": Explanation(_CACHE, _wide_cache),
    "qserve-A100-80GB-Qwen1.5-72B-TRT-LLM W8A8": Explanation(
        "The weights leave less than one request's cache by our allowances of 92 % and 1.5 GB, and one is assumed. The "
        "speed is that of three: the engine used more of the memory.",
        _batch(3),
    ),
    "qserve-L40S-48GB-Yi-34B-TRT-LLM W4A16": Explanation(
        "The speed is that of a batch of 16; by our allowances four times as many fit. Static batching computes all "
        "prompts of a batch at once, and buffers for that are not in our allowances.",
        _batch(16),
    ),
}
