"""What drills are about: the models and GPUs that they draw from, and how sizes and dimensions are written."""

from __future__ import annotations

import random
from dataclasses import replace

from qlab.deploy import Gpu, ModelSpec, gpu, spec

from .kind import short, with_unit

# Dense, with an embedding and a head of their own, so that one sentence describes each of them.
MODELS = (
    "Llama-2-7B", "Llama-2-13B", "Llama-2-70B", "Llama-3-8B", "Llama-3-70B", "Llama-3.1-8B", "Llama-3.1-405B",
    "Mistral-7B-v0.1", "Qwen2.5-7B", "Qwen2.5-72B", "Qwen3-32B",
)  # fmt: skip
GROUPED = tuple(name for name in MODELS if name not in ("Llama-2-7B", "Llama-2-13B"))  # fewer KV heads than query heads
GPUS = (
    "T4", "V100-32GB", "A10G", "L4", "L40S", "A100-40GB", "A100-80GB", "H100-80GB", "H100-PCIe-80GB", "H200",
    "B200", "RTX-3090", "RTX-4090", "RTX-5090",
)  # fmt: skip
UTILIZATION = 0.92  # of visible memory, and
OVERHEAD_GB = 1.5  # set aside on each GPU: what `qlab.deploy.fits` assumes


def model(rng: random.Random, among: tuple[str, ...] = MODELS) -> ModelSpec:
    """One of some models, or an invented one: then nobody knows the answer by heart."""
    return spec(rng.choice(among)) if rng.random() < 0.5 else _invented(rng, grouped=among is GROUPED)


def _invented(rng: random.Random, grouped: bool) -> ModelSpec:
    """A model of a shape that might be, named after its size: "Example-23B"."""
    heads, size = rng.choice((16, 24, 32, 40, 48, 64, 96)), rng.choice((64, 96, 128))
    hidden = heads * size
    shapes = ModelSpec(
        name="Example",
        layers=rng.randint(16, 100),
        hidden_size=hidden,
        intermediate_size=round(hidden * rng.choice((2.5, 2.75, 3.0, 3.5, 4.0)) / 256) * 256,
        attention_heads=heads,
        kv_heads=rng.choice([kv for kv in (2, 4, 8, heads) if heads % kv == 0 and not (grouped and kv == heads)]),
        head_dim=size,
        vocab_size=rng.choice((32_000, 64_000, 128_256, 151_936)),
        tied_embeddings=False,
        max_context=rng.choice((8192, 32_768, 131_072)),
        source="invented for a drill",
    )
    billions = shapes.parameters / 1e9
    return replace(shapes, name=f"Example-{billions:.{1 if billions < 10 else 0}f}B")


def card(rng: random.Random, among: tuple[str, ...] = GPUS) -> Gpu:
    """One of some GPUs."""
    return gpu(rng.choice(among))


def a(name: str) -> str:
    """ "an A100", "a T4"."""
    return f"{'an' if name[0] in 'AHLR' else 'a'} {name}"


def billion(count: float) -> str:
    """ "70.55 billion"."""
    return f"{short(count / 1e9)} billion"


def gb(nbytes: float) -> str:
    """ "39.52 GB"."""
    return with_unit(nbytes / 1e9, "GB")


def gib(nbytes: float) -> str:
    """ "36.81 GiB"."""
    return with_unit(nbytes / 2**30, "GiB")


def mb(nbytes: float) -> str:
    """ "8.65 MB"."""
    return with_unit(nbytes / 1e6, "MB")


def outside(shapes: ModelSpec) -> int:
    """Parameters beside the matrices of the layers: embedding, head, norms and biases."""
    return shapes.parameters - shapes.linear_parameters


def rules(visible: str) -> str:
    """What a server may use of a GPU, in a sentence."""
    return f"CUDA shows {visible}. The server may use {UTILIZATION:.0%}".replace("%", " %") + (
        f" of that, and {OVERHEAD_GB} GB of it are set aside for activations and the CUDA context"
    )
