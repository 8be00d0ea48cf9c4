"""The memory that serving a model takes: weights by tensor group, scales, and the KV cache."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

from .models import spec
from .precision import Precision, parse_precision
from .shapes import ModelSpec

KV_BITS = (2, 4, 8, 16, 32)


@dataclass(frozen=True)
class MemoryBreakdown:
    """Where the bytes go. Every size is in bytes; `scale_overhead` is part of the groups above it, not added to them.

    Not included: activations, the CUDA context, and what an allocator wastes. See `fits` for an allowance.
    """

    spec: ModelSpec
    precision: str
    embeddings: str
    batch: int
    context: int
    kv_bits: int
    attention: int
    mlp: int
    embedding: int
    head: int
    norms_and_biases: int
    scale_overhead: int
    kv_per_token: int

    @property
    def linears(self) -> int:
        """Bytes of the matrices in the layers, scales included."""
        return self.attention + self.mlp

    @property
    def weights(self) -> int:
        """Bytes of all weights."""
        return self.linears + self.embedding + self.head + self.norms_and_biases

    @property
    def kv_per_request(self) -> int:
        """Bytes of KV cache for one request of `context` tokens."""
        return self.kv_per_token * self.context

    @property
    def kv_cache(self) -> int:
        """Bytes of KV cache for the whole batch."""
        return self.kv_per_request * self.batch

    @property
    def total(self) -> int:
        """Weights and KV cache in bytes."""
        return self.weights + self.kv_cache

    @property
    def bits_per_weight(self) -> float:
        """Bits for each weight in the layers' matrices: what a format's name promises, scales included."""
        return 8 * self.linears / self.spec.linear_parameters

    @property
    def bits_per_parameter(self) -> float:
        """Bits for each parameter of the whole model, embeddings and norms included."""
        return 8 * self.weights / self.spec.parameters

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings; byte counts have names that end in `_bytes`."""
        return {
            "model": self.spec.name,
            "parameters": self.spec.parameters,
            "attention": self.spec.attention,
            "source": self.spec.source,
            "precision": self.precision,
            "embeddings": self.embeddings,
            "batch": self.batch,
            "context": self.context,
            "kv_bits": self.kv_bits,
            "bits_per_weight": self.bits_per_weight,
            "bits_per_parameter": self.bits_per_parameter,
            "attention_bytes": self.attention,
            "mlp_bytes": self.mlp,
            "embedding_bytes": self.embedding,
            "head_bytes": self.head,
            "norms_and_biases_bytes": self.norms_and_biases,
            "scale_overhead_bytes": self.scale_overhead,
            "weights_bytes": self.weights,
            "kv_per_token_bytes": self.kv_per_token,
            "kv_per_request_bytes": self.kv_per_request,
            "kv_cache_bytes": self.kv_cache,
            "total_bytes": self.total,
            "not_included": list(NOT_INCLUDED),
        }

    def _rows(self) -> list[tuple[str, int]]:
        head = "  head (shares the embedding)" if self.spec.tied_embeddings else f"  head ({self.embeddings})"
        return [
            ("weights", self.weights),
            (f"  attention ({self.precision})", self.attention),
            (f"  MLP ({self.precision})", self.mlp),
            (f"  embedding ({self.embeddings})", self.embedding),
            (head, self.head),
            ("  norms, biases, positions", self.norms_and_biases),
            ("  of all these, scales and zero-points", self.scale_overhead),
            ("KV cache", self.kv_cache),
            ("  per token", self.kv_per_token),
            (f"  per request of {self.context:,} tokens", self.kv_per_request),
            ("total", self.total),
        ]

    def _title(self) -> str:
        requests = "1 request" if self.batch == 1 else f"{self.batch:,} requests"
        return (
            f"{self.spec.name} ({self.spec.parameters:,} parameters, {self.spec.attention}) at {self.precision}: "
            f"{requests} of {self.context:,} tokens, {self.kv_bits}-bit KV cache"
        )

    def _remarks(self) -> list[str]:
        remarks = [
            f"{self.bits_per_weight:.4g} bits per weight in the layers, {self.bits_per_parameter:.4g} over all.",
            f"Not included: {', '.join(NOT_INCLUDED)}.",
        ]
        if self.context > self.spec.max_context:
            remarks.append(f"The model was made for at most {self.spec.max_context:,} tokens per request.")
        return remarks

    def __str__(self) -> str:
        rows = self._rows()
        large, small, units = _units(self.total)
        width = max(len(label) for label, _ in rows)
        lines = [self._title(), "", f"{'':{width}}  {'bytes':>19}  {units[0]:>10}  {units[1]:>10}"]
        for label, size in rows:
            lines.append(f"{label:{width}}  {size:>19,}  {_short(size / large):>10}  {_short(size / small):>10}")
        return "\n".join([*lines, "", *self._remarks()])

    def _repr_html_(self) -> str:
        large, small, units = _units(self.total)
        right = 'style="text-align:right"'
        head = "".join(f"<th {right}>{column}</th>" for column in ("bytes", *units))
        body = []
        for label, size in self._rows():
            indent = "1.5em" if label.startswith(" ") else "0.5em"
            numbers = (f"{size:,}", _short(size / large), _short(size / small))
            cells = "".join(f"<td {right}>{escape(number)}</td>" for number in numbers)
            first = f'<td style="text-align:left;padding-left:{indent}">{escape(label.strip())}</td>'
            body.append(f"<tr>{first}{cells}</tr>")
        remarks = "<br>".join(escape(remark) for remark in self._remarks())
        return (
            f"<table><caption>{escape(self._title())}</caption><thead><tr><th></th>{head}</tr></thead>"
            f"<tbody>{''.join(body)}</tbody></table><p>{remarks}</p>"
        )


NOT_INCLUDED = ("activations", "CUDA context", "allocator waste")


def memory(
    spec_or_name: Any,
    precision: str | Precision = "int4-g128",
    batch: int = 1,
    context: int = 4096,
    kv_bits: int = 16,
    *,
    embeddings: str | Precision | None = None,
) -> MemoryBreakdown:
    """The memory of a model's weights and KV cache.

    The matrices of the layers are stored at `precision`. Embedding and head, norms, biases and learned positions stay
    at 16 bit (at 32 bit for "fp32"), as GPTQ, AWQ and bitsandbytes checkpoints keep them; a tied head costs nothing.
    The KV cache takes kv_bits for each of its numbers: scales of a quantized cache, and what a sliding window saves,
    are not counted.

    Args:
        spec_or_name: whatever `spec` accepts: a name, a folder, a config, a ModelSpec.
        precision: a form that `parse_precision` reads.
        batch: requests held at once; 0 leaves the weights alone.
        context: tokens of each request, prompt and answer together.
        kv_bits: 2, 4, 8, 16 or 32.
        embeddings: another precision for embedding and head.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
    """
    model = spec(spec_or_name)
    body = parse_precision(precision)
    rest = parse_precision("fp32" if body.bits == 32 else "bf16")
    outside = rest if embeddings is None else parse_precision(embeddings)
    for name, value, least in (("batch", batch, 0), ("context", context, 1)):
        if type(value) is not int:
            raise TypeError(f"{name}: got {value!r}; give a whole number")
        if value < least:
            raise ValueError(f"{name}: got {value}; it must be {least} or more")
    if type(kv_bits) is not int or kv_bits not in KV_BITS:
        raise ValueError(f"kv_bits: got {kv_bits!r}; choose from {', '.join(map(str, KV_BITS))}")

    groups = {"attention": 0, "mlp": 0}
    overhead = 0
    for matrix in model.matrices():
        groups[matrix.group] += matrix.copies * body.matrix_bytes(matrix.rows, matrix.columns)
        overhead += matrix.copies * body.overhead_bytes(matrix.rows, matrix.columns)
    tables = 1 if model.tied_embeddings else 2
    embedding = outside.matrix_bytes(*model.embedding_shape)
    overhead += tables * outside.overhead_bytes(*model.embedding_shape)
    plain = model.norm_and_bias_parameters + model.position_parameters
    return MemoryBreakdown(
        spec=model,
        precision=body.name,
        embeddings=outside.name,
        batch=batch,
        context=context,
        kv_bits=kv_bits,
        **groups,
        embedding=embedding,
        head=(tables - 1) * embedding,
        norms_and_biases=plain * rest.bits // 8,
        scale_overhead=overhead,
        kv_per_token=-(-model.kv_values_per_token * kv_bits // 8),
    )


def _units(total: int) -> tuple[float, float, tuple[str, str]]:
    """Decimal and binary unit for a table whose largest entry is `total` bytes."""
    return (1e9, 2.0**30, ("GB", "GiB")) if total >= 1e9 else (1e6, 2.0**20, ("MB", "MiB"))


def _short(value: float) -> str:
    return "<0.01" if 0 < value < 0.005 else f"{value:,.2f}"
