"""Published speeds as jobs: what each row of `results` measured, in numbers that the model of time can be asked for.

A row is read by what its source says of all its rows, or it is excluded with the reason. Nothing is guessed from the
value that is to be predicted. What a source does not print and what was filled in stands in `Reading.filled`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from ..hardware import Gpu, gpu
from ..models import read_models, spec
from ..precision import Precision
from ..results import Result
from ..shapes import ModelSpec
from .phases import weight_bytes
from .scheme import Scheme, scheme

MODELS = Path(__file__).parents[1] / "data" / "published_models.json"
SHORT = 128  # tokens of prompt and of output where a source measures decoding and prints no lengths


@dataclass(frozen=True)
class Job:
    """A batch of equal requests on one or several GPUs.

    Args:
        batch: requests.
        prompt, output: tokens of each request. Time counts both, unless `only` names one of the phases.
        gpus: how many share every matrix.
        host: seconds in which the host does what a server's core does in one.
    """

    model: ModelSpec
    precision: Scheme
    gpu: Gpu
    kernels: str
    batch: int = 1
    prompt: int = SHORT
    output: int = SHORT
    only: Literal["", "prefill", "decode"] = ""
    gpus: int = 1
    kv_bits: int = 16
    host: str = "server"


@dataclass(frozen=True)
class Reading:
    """A row as a job, and for ratios the job that it is compared with."""

    row: Result
    job: Job
    baseline: Job | None = None
    filled: str = ""


def largest_batch(job: Job, most: int = 256) -> int:
    """The requests that fit beside the weights, each with its whole prompt and output: from 1 to `most`.

    Of each GPU's memory 92 % count, less 1.5 GB, as in `fits`.
    """
    table = 0 if job.model.tied_embeddings else 2 * job.model.embedding_parameters
    weights = weight_bytes(job.model, job.precision, tokens=10**6) + table  # so many tokens use every expert
    budget = job.gpus * (0.92 * job.gpu.visible_bytes - 1.5e9) - weights
    cache = job.model.kv_values_per_token * job.kv_bits / 8 * (job.prompt + job.output)
    return max(1, min(most, int(budget // cache)))


class Excluded(Exception):
    """The reason why a row cannot be predicted, in words."""


def read(row: Result) -> Reading:
    """What the row measured. Raises Excluded with the reason if that cannot be said."""
    if row.statement:
        raise Excluded("a statement about several measurements, without the setting of any one")
    for start, reader in _READERS.items():
        if row.source.startswith(start):
            return reader(row)
    raise Excluded("no reader for this source")


def _none(reason: str) -> Callable[[Result], Reading]:
    def reader(row: Result) -> Reading:
        raise Excluded(reason)

    return reader


def _gpt_fast(row: Result) -> Reading:
    job = Job(_model(row), _weights(row), _gpus(row)[0], kernels="gpt-fast", prompt=5, output=200)
    return Reading(row, replace(job, only="decode"), filled="200 tokens, gpt-fast's default, are generated")


def _tinychat(row: Result) -> Reading:
    job = Job(_model(row), scheme("int4-g128"), _gpus(row)[0], kernels="single", only="decode")
    return Reading(row, job, filled=_SHORT + (_LANGUAGE_PART if row.model == "NVILA-2B" else ""))


def _exllama(row: Result) -> Reading:
    # Bits per weight are those of the file: groups of 32 with 2-byte scales make 2.5 of 2.
    stored = {"4.0": Precision("exl2-4.0", 4), "2.5": Precision("exl2-2.5", 2, "group", 32)}
    weights = Scheme(f"exl2-{row.bits}", stored[str(row.bits)])
    return Reading(row, Job(_model(row), weights, _gpus(row)[0], kernels="single", only="decode"), filled=_SHORT)


def _qwen(row: Result) -> Reading:
    """Qwen's own tables: batch 1, 2,048 tokens generated, the prompt's time included."""
    setting, method = row.setting or "", row.method or ""
    found, gpus = _gpus(row)
    job = Job(_model(row), _weights(row), found, "vllm", prompt=1, output=2048, gpus=gpus)
    if setting.startswith("transformers"):  # which gives whole layers to each GPU: they work in turns, as one would
        kernels = next((f"transformers {name.lower()}" for name in ("GPTQ", "AWQ") if name in method), "transformers")
        job = replace(job, kernels=kernels, gpus=1)
    if prompt := re.search(r"input (\d+)", setting):
        return Reading(row, replace(job, prompt=int(prompt[1])))
    return Reading(row, job, filled="the prompt is one token, as in the later tables")


def _qserve(row: Result) -> Reading:
    """Static batches of 1,024 tokens in and 512 out, as many as memory allows."""
    if row.value is None:
        raise Excluded("out of memory, so there is no speed")
    method = (row.method or "").split()[-1]
    own = method == "QServe"
    precision = {"QServe": "w4a8", "W8A8": "w8a8", "W4A16": "int4-g128"}[method]
    kv = {"QServe": 4, "W8A8": 8, "W4A16": 16}[method]
    found, gpus = _gpus(row)
    job = Job(_model(row), scheme(precision), found, "tensorrt-llm", 1, 1024, 512, gpus=gpus, kv_bits=kv)
    job = replace(job, batch=_QSERVE_BATCHES[found.name][row.model or ""] if own else largest_batch(job))
    filled = (
        "its README prints the batch"
        if own
        else "at most 256 requests; KV cache in 8 bits beside W8A8, in 16 beside W4A16"
    )
    return Reading(row, job, filled=filled)


def _bitsandbytes(row: Result) -> Reading:
    method = (row.method or "").removeprefix("bitsandbytes ")
    kernels = {
        "NF4": "transformers nf4",
        "INT8 (no outlier decomposition)": "transformers int8",
        "LLM.int8() with decomposition": "transformers int8 outliers",
    }[method]
    weights = scheme("nf4" if method == "NF4" else "w8a8")
    batch = int((row.setting or "").removeprefix("batch "))
    found, _ = _gpus(row)
    job = Job(_model(row), weights, found, kernels, batch, only="decode", host=_host(found))
    return Reading(row, job, filled=f"{_SHORT}; the host is taken to be a {job.host} machine")


def _llm_int8(row: Result) -> Reading:
    job = Job(_model(row), scheme("w8a8"), _gpus(row)[0], kernels="transformers int8 outliers", only="decode")
    return Reading(row, job, filled=_SHORT)


def _gptq(row: Result) -> Reading:
    job = Job(_model(row), scheme("int3-channel"), _gpus(row)[0], kernels="transformers", only="decode")
    return Reading(row, job, filled=_SHORT)


def _smoothquant(row: Result) -> Reading:
    setting = row.setting or ""
    if row.model != "OPT-30B":
        raise Excluded("two models in one number, and no lengths")
    (seq,) = _numbers(r"seq (\d+)", row)
    job = Job(_model(row), scheme("w8a8"), _gpus(row)[0], kernels="transformers", prompt=seq, output=1, only="prefill")
    filled = "batch 1"
    if setting.startswith("decode"):
        (batch,) = _numbers(r"batch (\d+)", row)
        job = replace(job, kernels="tensorrt-llm", batch=batch, only="decode")
        filled = "FasterTransformer as TensorRT-LLM, its successor"
    return Reading(row, job, replace(job, precision=scheme("fp16")), filled)


def _nvidia_guide(row: Result) -> Reading:
    precision = "fp8" if row.method == "FP8" else "w8a8"
    batch, prompt, output = _numbers(r"batch (\d+), ([\d,]+) in ([\d,]+) out", row)
    job = Job(_model(row), scheme(precision), _gpus(row)[0], kernels="tensorrt-llm")
    job = replace(job, batch=batch, prompt=prompt, output=output)
    return Reading(row, job, replace(job, precision=scheme("fp16")))


def _model_optimizer(row: Result) -> Reading:
    batch, prompt, output = _numbers(r"batch (\d+), ([\d,]+) in ([\d,]+) out", row)
    precision, kv = {
        "BF16": ("bf16", 16), "FP8": ("fp8", 8), "INT4 AWQ": ("int4-g128", 16), "W4A8 AWQ": ("w4a8", 8),
    }[row.method or ""]  # fmt: skip
    found, gpus = _gpus(row)
    job = Job(_model(row), scheme(precision), found, "tensorrt-llm", batch, prompt, output, gpus=gpus, kv_bits=kv)
    filled = "KV cache in 8 bits beside FP8 and W4A8, in 16 otherwise"
    if row.metric != "speedup":
        return Reading(row, job, filled=filled)
    wide = replace(job, precision=scheme("bf16"), kv_bits=16, gpus=2 if "70B" in (row.model or "") else 1)
    return Reading(row, job, wide, filled)


def _tensorrt(row: Result) -> Reading:
    prompt, output = _numbers(r"in/out (\d+)/(\d+)", row)
    precision = {"FP4": "nvfp4", "FP8": "fp8"}[row.method or ""]
    found, gpus = _gpus(row)
    job = Job(_model(row), scheme(precision), found, "tensorrt-llm", 1, prompt, output, gpus=gpus, kv_bits=8)
    job = replace(job, batch=largest_batch(job, most=2048))
    return Reading(
        row, job, filled="KV cache in 8 bits, as the checkpoints of these models say; at most 2,048 requests"
    )


def _torchao(row: Result) -> Reading:
    decoding = "-dec" in row.id
    batch, prompt, output = (128, 32, 2048) if decoding else (32, 4096, 32)
    precision = {"float8 rowwise": "fp8", "int8 weight-only": "int8-channel", "nvfp4": "nvfp4"}[row.method or ""]
    kernels = "vllm torchao int8" if precision == "int8-channel" else "vllm"
    job = Job(_model(row), scheme(precision), _gpus(row)[0], kernels=kernels, batch=batch, prompt=prompt, output=output)
    filled = "" if row.hardware == "H100" else "the batch and lengths of the same source's H100 rows"
    return Reading(row, job, replace(job, precision=scheme("bf16"), kernels="vllm"), filled)


_SHORT = f"the row has no lengths; {SHORT} tokens in and {SHORT} out"
_LANGUAGE_PART = "; its language model taken to be Qwen2.5-1.5B"

_READERS: dict[str, Callable[[Result], Reading]] = {
    "pytorch-labs/gpt-fast": _gpt_fast,
    "mit-han-lab/llm-awq tinychat": _tinychat,
    "turboderp/exllamav2": _exllama,
    "QwenLM/": _qwen,
    "mit-han-lab/qserve README": _qserve,
    "bitsandbytes benchmarking": _bitsandbytes,
    "LLM.int8 paper": _llm_int8,
    "GPTQ paper": _gptq,
    "SmoothQuant paper": _smoothquant,
    "NVIDIA/TensorRT-LLM docs/source/blogs": _nvidia_guide,
    "NVIDIA/Model-Optimizer": _model_optimizer,
    "NVIDIA/TensorRT-LLM docs/source/performance": _tensorrt,
    "pytorch/ao": _torchao,
    "ggml-org/llama.cpp": _none("the source does not name its hardware"),
    "meta-llama/llama-models": _none("a phone's processor, which is not in the hardware data"),
    "IST-DASLab/marlin": _none("one matrix product, not a model, on an A10, which is not in the hardware data"),
    "MARLIN, PPoPP": _none("an 'up to' over models, without a GPU, a batch or lengths"),
    "NVIDIA/TensorRT-Model-Optimizer": _none("the source prints the batch but no lengths, on which the ratio depends"),
    "Kurtic": _none("requests per second without lengths and without the latency that was asked for"),
}

_QSERVE_BATCHES = {  # the README's own table
    "L40S": {"Llama-3-8B": 128, "Llama-2-7B": 128, "Mistral-7B": 128, "Llama-2-13B": 75, "Llama-30B": 32, "Yi-34B": 64,
             "Llama-2-70B": 24, "Qwen1.5-72B": 4},
    "A100-80GB": {"Llama-3-8B": 256, "Llama-2-7B": 190, "Mistral-7B": 256, "Llama-2-13B": 128, "Llama-30B": 64,
                  "Yi-34B": 196, "Llama-2-70B": 96, "Qwen1.5-72B": 32},
}  # fmt: skip
_GPUS = {
    "A100": "A100-80GB",
    "A100-80GB": "A100-80GB",
    "H100": "H100-80GB",
    "H100 SXM": "H100-80GB",
    "H100-80GB": "H100-80GB",
    "H200": "H200",
    "B200": "B200",
    "L40S-48GB": "L40S",
    "T4": "T4",
    "RTX 4090": "RTX-4090",
    "RTX 4090 24GB": "RTX-4090",
}
_NAMES = {
    "Llama3.1-8B": "Llama-3.1-8B", "Llama3.1-70B": "Llama-3.1-70B", "Llama-3.3-70B": "Llama-3.1-70B",
    "LLaMA-3-8B": "Llama-3-8B", "LLaMA-2-7B": "Llama-2-7B", "Mistral-7B": "Mistral-7B-v0.1", "NVILA-2B": "Qwen2.5-1.5B",
}  # fmt: skip


@cache
def _more_models() -> dict[str, ModelSpec]:
    return read_models(MODELS)


def _model(row: Result) -> ModelSpec:
    name = (row.model or "").removesuffix("-Instruct")
    name = _NAMES.get(name, name)
    if name in _more_models():
        return _more_models()[name]
    try:
        return spec(name)
    except ValueError as error:
        raise Excluded(f"the dimensions of {row.model} are not in the data") from error


def _gpus(row: Result) -> tuple[Gpu, int]:
    found = re.fullmatch(r"(?:(\d)x )?(.+)", row.hardware or "")
    if not found or found[2] not in _GPUS:
        raise Excluded(f"{row.hardware or 'hardware that is not named'} is not in the hardware data")
    return gpu(_GPUS[found[2]]), int(found[1] or 1)


def _host(where: Gpu) -> str:
    return "desktop" if "consumer" in where.form_factor else "small" if where.name == "T4" else "server"


def _weights(row: Result) -> Scheme:
    method = (row.method or "").lower()
    if "bf16" in method:
        return scheme("bf16")
    if "g32" in method:
        return scheme("int4-g32")
    if "weight-only" in method:
        return scheme("int8-channel")
    return scheme("int8-g128-asym" if "int8" in method else "int4-g128-asym")


def _numbers(pattern: str, row: Result) -> list[int]:
    found = re.search(pattern, row.setting or "")
    if not found:
        raise Excluded("the setting has no batch or no lengths")
    return [int(number.replace(",", "")) for number in found.groups()]
