"""The memory that serving a model takes: weights by tensor group, scales, the KV cache, and what runs beside them."""

from __future__ import annotations

from typing import Any

from .breakdown import MemoryBreakdown
from .entries import nearest
from .kv import bytes_per_token
from .models import names, spec
from .precision import Precision, parse_precision
from .runtime import runtime
from .shapes import ModelSpec

USUAL_CONTEXT = 4096  # tokens of a request where nobody says


def memory(
    spec_or_name: Any,
    precision: str | Precision = "int4-g128",
    batch: int = 1,
    context: int | None = None,
    kv_bits: int = 16,
    *,
    attention: str | Precision | None = None,
    embeddings: str | Precision | None = None,
    head: str | Precision | None = None,
    kv_group_size: int | None = None,
    tensor_parallel: int = 1,
    chunk: int = 2048,
    extended: bool = False,
) -> MemoryBreakdown:
    """The memory of a model's weights and KV cache, on one GPU or on each of several.

    The matrices of the layers are stored at `precision`. Embedding and head, norms, biases and learned positions stay
    at 16 bit (at 32 bit for "fp32"), as GPTQ, AWQ and bitsandbytes checkpoints keep them; a tied head costs nothing.

    Args:
        spec_or_name: whatever `spec` accepts: a name, a folder, a config, a ModelSpec.
        precision: a form that `parse_precision` reads.
        batch: requests held at once; 0 leaves the weights alone.
        context: tokens of each request, prompt and answer together; default 4,096, or the model's own if that is less.
        kv_bits, kv_group_size: as in `qlab.deploy.kv.bytes_per_token`.
        attention: another precision for the matrices of attention.
        embeddings, head: another precision for embedding and head, and for the head alone.
        tensor_parallel: GPUs among which each layer is split; sizes are then those of one, see `ModelSpec.share`.
        chunk: tokens of prompt worked on at once, for the activations; see `qlab.deploy.runtime`.
        extended: whether a context beyond the model's is taken, with a remark, as after an extension of its positions.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
    """
    model = spec(spec_or_name)
    context = min(USUAL_CONTEXT, model.max_context) if context is None else context
    body = parse_precision(precision)
    rest = parse_precision("fp32" if body.bits == 32 else "bf16")
    inner = body if attention is None else parse_precision(attention)
    outside = rest if embeddings is None else parse_precision(embeddings)
    last = outside if head is None else parse_precision(head)
    for name, value, least in (("batch", batch, 0), ("context", context, 1)):
        if type(value) is not int:
            raise TypeError(f"{name}: got {value!r}; give a whole number")
        if value < least:
            raise ValueError(f"{name}: got {value}; it must be {least} or more")
    if context > model.max_context and not extended:
        raise ValueError(_too_long(model, context))
    if head is not None and model.tied_embeddings:
        raise ValueError(f"head: got {last.name!r}, but {model.name} shares its embedding; set embeddings instead")
    share = model.share(tensor_parallel)
    beside = runtime(model, batch, context, chunk, tensor_parallel)

    groups = {"attention": 0, "mlp": 0}
    overhead = 0
    for matrix in share.matrices():
        how = inner if matrix.group == "attention" else body
        groups[matrix.group] += matrix.copies * how.matrix_bytes(matrix.rows, matrix.columns)
        overhead += matrix.copies * how.overhead_bytes(matrix.rows, matrix.columns)
    tables = (outside,) if model.tied_embeddings else (outside, last)
    overhead += sum(table.overhead_bytes(*share.embedding_shape) for table in tables)
    plain = share.norm_and_bias_parameters + share.position_parameters
    return MemoryBreakdown(
        spec=model,
        share=share,
        precision=body.name,
        attention_precision=inner.name,
        embeddings=outside.name,
        head_precision=last.name,
        batch=batch,
        context=context,
        kv_bits=kv_bits,
        kv_group_size=kv_group_size,
        tensor_parallel=tensor_parallel,
        runtime=beside,
        **groups,
        embedding=outside.matrix_bytes(*share.embedding_shape),
        head=0 if model.tied_embeddings else last.matrix_bytes(*share.embedding_shape),
        norms_and_biases=plain * rest.bits // 8,
        scale_overhead=overhead,
        kv_per_token=bytes_per_token(share, kv_bits, kv_group_size),
    )


def _too_long(model: ModelSpec, context: int) -> str:
    longer = nearest(model.name, [name for name in names() if spec(name).max_context >= context], cutoff=0)
    advice = f", or take {' or '.join(longer)}" if longer else ""
    limit = f"{model.name} was made for at most {model.max_context:,} tokens"
    return f"context: got {context:,}; {limit}; give no more than that{advice}"
