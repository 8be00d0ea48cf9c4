"""What servers have kernels for: from which compute capability on, and up to which, with the source.

A GPU's data sheet says what its units can do; it takes software to use them, and that is what is written here. A format
that a server cannot compute with on some GPU is no option there, however small it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from ..hardware import Gpu
from ..precision import Precision
from ..speed.scheme import Scheme, scheme

DATE = "2026"  # when the tables were read
_VLLM = "docs.vllm.ai, quantization: supported hardware (v0.11.2 to v0.15.1, and latest)"
_ENGINE = "NVIDIA Transformer Engine, support matrix"


@dataclass(frozen=True)
class Kernels:
    """Kernels of one kind. They run from compute capability `first` up to, not including, `end`."""

    name: str
    first: float
    end: float
    source: str
    note: str = ""

    def to_dict(self) -> dict[str, str]:
        """The name with where it is from."""
        return {"name": self.name, "source": self.source, "date": DATE, "note": self.note}

    def run_on(self, where: Gpu) -> bool:
        return self.first <= where.capability < self.end


KERNELS = {
    one.name: one
    for one in (
        Kernels("FP16", 7.0, inf, "data sheets: tensor cores begin with Volta"),
        Kernels("BF16", 8.0, inf, _ENGINE),
        Kernels("FP8 W8A8", 8.9, inf, f"{_VLLM}; its fp8 page; {_ENGINE}"),
        Kernels("INT8 W8A8", 7.5, 10.0, f"{_VLLM}; its int8 page: none at 10.0 and above"),
        Kernels(
            "weight-only (Marlin)", 7.5, inf, f"{_VLLM}: GPTQ, AWQ, Marlin",
            "Turing is in the newest table only. On Volta the tables to v0.15.1 list GPTQ without Marlin, and the "
            "engine is reported failing there.",
        ),
        Kernels("W4A8", 8.0, 10.0, "mit-han-lab/qserve README: A100, L40S; Model Optimizer: H200",
            "QServe and TensorRT-LLM, not vLLM.",
       ),
        Kernels("NVFP4", 10.0, inf, _ENGINE, "Partial on 12.0."),
    )
}  # fmt: skip
_BY_NAME = {
    "fp16": "FP16", "bf16": "BF16", "fp8": "FP8 W8A8", "w8a8": "INT8 W8A8", "w4a8": "W4A8", "nvfp4": "NVFP4",
}  # fmt: skip


def served(precision: str | Precision | Scheme) -> Scheme:
    """A precision as a server computes with it.

    Raises:
        TypeError, ValueError: as `scheme`; or no server has fast kernels for it.
    """
    how = scheme(precision)
    if how.name not in _BY_NAME and not (how.weights.bits in (4, 8) and how.name.startswith("int")):
        raise ValueError(
            f"precision: servers have no fast kernels for {how.name!r}, or none whose speed was published; "
            f"choose from {', '.join(_BY_NAME)}, int4-g128, int8-channel and others of 4 and 8 bits"
        )
    return how


def kernels(precision: str | Precision | Scheme) -> Kernels:
    """The kernels that a precision needs. Raises TypeError and ValueError as `served`."""
    return KERNELS[_BY_NAME.get(served(precision).name, "weight-only (Marlin)")]


def missing(precision: str | Precision | Scheme, where: Gpu) -> str | None:
    """Why a GPU cannot run a precision, in words, or None if it can. Raises TypeError and ValueError as `served`."""
    needed = kernels(precision)
    if needed.run_on(where):
        return None
    reach = f"from {needed.first:.1f}" + (f" to below {needed.end:.1f}" if needed.end < inf else "")
    return (
        f"no {needed.name} kernels on {where.architecture} (compute capability {where.compute_capability}, not {reach})"
    )


def usual(where: Gpu) -> tuple[str, ...]:
    """The precisions worth comparing on a GPU: 16, 8 and 4 bits, each as the GPU computes best.

    BF16 before FP16, which has the same bytes and the same rate. FP8 before INT8, for the same reason, and as it needs
    no smoothing. Weight-only INT8 is left out: it computes in 16 bits as INT4 does, and reads twice the bytes.
    """
    wide = "bf16" if missing("bf16", where) is None else "fp16"
    narrow = "fp8" if missing("fp8", where) is None else "w8a8"
    return wide, narrow, "int4-g128"
