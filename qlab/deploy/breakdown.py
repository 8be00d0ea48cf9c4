"""Where the bytes of a served model go: the numbers, and the table that shows them."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

from .runtime import Runtime
from .shapes import ModelSpec

NOT_INCLUDED = ("activations", "CUDA context", "allocator waste")


@dataclass(frozen=True)
class MemoryBreakdown:
    """Where the bytes go. Every size is in bytes; `scale_overhead` is part of the groups above it, not added to them.

    With tensor parallelism the sizes are those of one GPU, which holds `share` of `spec`.

    Not in `weights`, `kv_cache` and `total`: activations, the CUDA context, and what an allocator wastes. These are
    estimates; they are in `runtime` and in `peak`.
    """

    spec: ModelSpec
    share: ModelSpec
    precision: str
    attention_precision: str
    embeddings: str
    head_precision: str
    batch: int
    context: int
    kv_bits: int
    kv_group_size: int | None
    tensor_parallel: int
    runtime: Runtime
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
    def peak(self) -> int:
        """`total` and `runtime.total` in bytes: what a GPU holds at the worst moment, by estimate."""
        return self.total + self.runtime.total

    @property
    def read_per_token(self) -> int:
        """Bytes of weights that decoding one token reads: all but the embedding table, of which it reads one row.

        Experts that a token does not visit are counted: a batch soon visits them all.
        """
        table = 0 if self.spec.tied_embeddings else self.embedding
        return self.weights - table

    @property
    def bits_per_weight(self) -> float:
        """Bits for each weight in the layers' matrices: what a format's name promises, scales included."""
        return 8 * self.linears / self.share.linear_parameters

    @property
    def bits_per_parameter(self) -> float:
        """Bits for each parameter of the whole model, embeddings and norms included."""
        return 8 * self.weights / self.share.parameters

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings; byte counts have names that end in `_bytes`."""
        return {
            "model": self.spec.name,
            "parameters": self.spec.parameters,
            "attention": self.spec.attention,
            "source": self.spec.source,
            "precision": self.precision,
            "attention_precision": self.attention_precision,
            "embeddings": self.embeddings,
            "head_precision": self.head_precision,
            "batch": self.batch,
            "context": self.context,
            "kv_bits": self.kv_bits,
            "kv_group_size": self.kv_group_size,
            "tensor_parallel": self.tensor_parallel,
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
            "prefill_activations_bytes": self.runtime.prefill,
            "decode_activations_bytes": self.runtime.decode,
            "runtime_bytes": self.runtime.total,
            "peak_bytes": self.peak,
        }

    def _rows(self) -> list[tuple[str, int]]:
        head = "  head (shares the embedding)" if self.spec.tied_embeddings else f"  head ({self.head_precision})"
        return [
            ("weights", self.weights),
            (f"  attention ({self.attention_precision})", self.attention),
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
        groups = f" in groups of {self.kv_group_size}" if self.kv_group_size else ""
        split = f", on each of {self.tensor_parallel} GPUs" if self.tensor_parallel > 1 else ""
        return (
            f"{self.spec.name} ({self.spec.parameters:,} parameters, {self.spec.attention}) at {self.precision}: "
            f"{requests} of {self.context:,} tokens, {self.kv_bits}-bit KV cache{groups}{split}"
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


def _units(total: int) -> tuple[float, float, tuple[str, str]]:
    """Decimal and binary unit for a table whose largest entry is `total` bytes."""
    return (1e9, 2.0**30, ("GB", "GiB")) if total >= 1e9 else (1e6, 2.0**20, ("MB", "MiB"))


def _short(value: float) -> str:
    return "<0.01" if 0 < value < 0.005 else f"{value:,.2f}"
