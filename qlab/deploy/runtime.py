"""What one GPU holds beside weights and KV cache while a model runs: activations, the CUDA context, graphs, waste.

Activations live for one layer, then their memory is used again. The most that is alive at once, in numbers per token:

    4 · hidden + max(MLP, attention)        MLP: 3 · inner (gate and up together, their product), 2 · inner ungated;
                                            of experts: active · (3 · width + hidden)
                                            attention: q, k and v, rotated q and k, the output; fused, no score matrix

in 16 bits, or while sampling, where that is more, 40 bytes for each number of the logits: a float32 copy, the sorted
values and their int64 order, probabilities and log-probabilities. Prefill works on a whole chunk of prompt at a time,
decoding on one token of each request.

Checked against what vLLM 0.6 to 0.8 reports at its start: Llama-3-8B 1.26 GiB (256 requests, 8,192 tokens; on one GPU
and on two), Qwen2.5-7B 1.42 GiB (256 requests), Qwen3-4B 0.74 GiB (one request, 10,000 tokens). The 4 and the 40 were
read off these reports; other engines differ.
"""

from __future__ import annotations

from dataclasses import dataclass

from .shapes import ModelSpec

_NUMBER = 2  # bytes of an activation: bf16 or fp16
_LOGIT = 40  # bytes for each number of the logits while sampling; see above
# With kernels loaded on demand (CUDA 11.7 and later) 300 to 400 MB: a PyTorch maintainer, pytorch issues 107667 and
# 109888 (2023). NCCL takes more on top where there are several GPUs; nobody states how much.
CUDA_CONTEXT = 400_000_000
CUDA_GRAPHS = 300_000_000  # 0.27 GiB in vLLM 0.6's report for a 14B model; grows with the batch sizes captured
ALLOCATOR_SHARE = (
    0.05  # of the activations, for blocks that are rounded up or left over: an assumption, not a measurement
)


@dataclass(frozen=True)
class Runtime:
    """Bytes on one GPU. `prefill` and `decode` are activations; they come in turns, so the larger one counts."""

    prefill: int
    decode: int
    cuda_context: int
    cuda_graphs: int
    allocator: int

    @property
    def activations(self) -> int:
        """Bytes of activations at the worst moment."""
        return max(self.prefill, self.decode)

    @property
    def total(self) -> int:
        """Bytes of all this at the worst moment."""
        return self.activations + self.cuda_context + self.cuda_graphs + self.allocator

    def __str__(self) -> str:
        return (
            f"Beside that, by estimate, on each GPU: activations {self.prefill / 1e9:.2f} GB in prefill and "
            f"{self.decode / 1e9:.2f} GB in decode, CUDA context {self.cuda_context / 1e9:.1f}, "
            f"graphs {self.cuda_graphs / 1e9:.1f}, waste {self.allocator / 1e9:.2f}: {self.total / 1e9:.2f} GB at most."
        )


def runtime(model: ModelSpec, batch: int, context: int, chunk: int = 2048, gpus: int = 1) -> Runtime:
    """What one of `gpus` holds beside weights and KV cache.

    Args:
        batch, context: requests held at once, and tokens of each.
        chunk: tokens of prompt worked on at once, over all requests; vLLM's max_num_batched_tokens, which its server
            sets to 2,048, and to 8,192 on GPUs with 70 GiB or more other than the A100.

    Raises:
        ValueError: chunk is not positive, or the heads cannot be shared out among that many GPUs.
    """
    if type(chunk) is not int or chunk < 1:
        raise ValueError(f"chunk: got {chunk!r}; give a whole number of tokens, 1 or more")
    prefill = activations(model, min(chunk, batch * context), batch, gpus)
    decode = activations(model, batch, batch, gpus)
    waste = round(ALLOCATOR_SHARE * max(prefill, decode))
    return Runtime(prefill, decode, CUDA_CONTEXT, CUDA_GRAPHS, waste)


def activations(model: ModelSpec, tokens: int, requests: int, gpus: int = 1) -> int:
    """Bytes of activations on one GPU while `tokens` are worked on, of which `requests` get a next token.

    Hidden states and logits are whole on every GPU; heads and the inner size of the MLP are shared out.
    """
    share = model.share(gpus)
    layer = tokens * (4 * share.hidden_size + max(_mlp(share), _attention(share))) * _NUMBER
    return max(layer, requests * model.vocab_size * _LOGIT)


def _mlp(share: ModelSpec) -> int:
    """Numbers per token that the MLP holds at once."""
    copies = 3 if share.gated_mlp else 2
    dense = copies * share.intermediate_size
    if not share.experts:
        return dense
    experts = share.experts
    sparse = experts.active * (copies * experts.width + share.hidden_size) + experts.shared * copies * experts.width
    return max(sparse, dense) if experts.dense_layers else sparse


def _attention(share: ModelSpec) -> int:
    """Numbers per token that attention holds at once."""
    if not share.latent:
        return 3 * (share.attention_heads + share.kv_heads) * share.head_dim
    latent = share.latent
    rank = (latent.q_lora_rank or 0) + latent.kv_lora_rank + latent.qk_rope_head_dim
    query = latent.qk_nope_head_dim + latent.qk_rope_head_dim
    keys_and_values = latent.qk_nope_head_dim + latent.v_head_dim
    return rank + share.attention_heads * (2 * query + keys_and_values + latent.v_head_dim)
