"""A quantized KV cache for `model.generate(..., past_key_values=QuantizedCache(model.config))`.

What is stored is what a Llama-like model hands to its cache: the heads of keys and values, not those of the queries
(with grouped-query attention there are fewer), and keys after the rotary embedding.

The attention of one call sees the tokens held before, dequantized, and the tokens of this call exactly as they are.
So a prompt that is processed in one call meets no quantized number, and its first new token is that of the plain
cache; the damage starts with the next call. That is how KIVI and the quantized caches of transformers work as well.
To measure the damage, feed a text in chunks: `prompt_kl` does, and so does `generate(prefill_chunk_size=…)`.

In a batch that is padded on the left, the padding is held too, and per channel it shares groups with the first real
tokens; what a sequence gets then depends a little on its padding. Per token it does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

from qlab.methods import kv_cache
from qlab.methods.kv_cache import AS_THEY_CAME, QuantizedStore

from .evaluate import BATCH_TOKENS, Estimate


class QuantizedLayer(CacheLayerMixin):
    """The cache of one layer: a store of keys and one of values, behind the interface of transformers."""

    is_sliding = False
    is_croppable = False  # as transformers means it: what was quantized does not come back exactly

    def __init__(self, keys: QuantizedStore, values: QuantizedStore) -> None:
        super().__init__()
        self.stores = (keys, values)

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.is_initialized = True  # the stores take shape and type from what is appended

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values (batch, kv_heads, tokens, head_dim) of all tokens: the new ones exactly."""
        self.lazy_initialization(key_states, value_states)
        new = (key_states, value_states)
        held = [store.read() if store.tokens else x[:, :, :0] for store, x in zip(self.stores, new, strict=True)]
        for store, x in zip(self.stores, new, strict=True):
            store.append(x)
        return torch.cat([held[0], key_states], dim=2), torch.cat([held[1], value_states], dim=2)

    def get_seq_length(self) -> int:
        return self.stores[0].tokens

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length of keys that a call will see, and the position of the first."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        return -1  # grows without end

    def reset(self) -> None:
        for store in self.stores:
            store.reset()
        self.is_initialized = False

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the newest tokens; the count is negative, as transformers gives it.

        Raises:
            ValueError: a positive count.
        """
        if tokens_to_remove > 0:
            raise ValueError(
                f"tokens_to_remove: got {tokens_to_remove}; give a negative count, -1 for the newest token"
            )
        for store in self.stores:
            store.crop(max(0, store.tokens + tokens_to_remove))

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        for store in self.stores:
            store.select(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        for store in self.stores:
            if store.window is not None:
                store.select(torch.arange(store.window.shape[0]).repeat_interleave(repeats))


class QuantizedCache(Cache):
    """Keys and values of all layers, the older ones quantized (see `qlab.methods.kv_cache`).

    Args:
        config: of the model.
        key_bits, value_bits: 2 to 8, or 16 to keep them as they come.
        keys, values: what a scale belongs to: "channel" (of group_size neighboring tokens) or "token" (groups of
            channels). KIVI takes channels for keys and tokens for values, and so does this cache.
        group_size: numbers that share a scale; per token it must divide head_dim.
        residual: the newest tokens that stay as they came; 0 keeps only those that do not fill a group.
        scale_dtype: of scales and minima; None: the type of the cache where that has 16 bits, else float16.

    Raises:
        TypeError, ValueError: an argument that is not one of those allowed; a model whose layers do not all attend to
            the whole context.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        key_bits: int = 4,
        value_bits: int = 4,
        keys: str = "channel",
        values: str = "token",
        group_size: int = 32,
        residual: int = 32,
        scale_dtype: torch.dtype | None = None,
    ) -> None:
        config = config.get_text_config(decoder=True)
        for bits, granularity, side in ((key_bits, keys, "key"), (value_bits, values, "value")):
            options = (bits, granularity, group_size, residual, scale_dtype)
            kv_cache.check_options(*options, bits_name=f"{side}_bits", granularity_name=f"{side}s")
        sliding = "sliding_attention" if getattr(config, "sliding_window", None) else "full_attention"
        if others := set(getattr(config, "layer_types", None) or [sliding]) - {"full_attention"}:
            raise ValueError(
                f"config: has layers of {', '.join(sorted(others))}; allowed are models with full_attention in every "
                "layer, use a cache of transformers for this one"
            )
        self._head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self._heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        self._bits, self._group_size, self._scale_dtype = (key_bits, value_bits), group_size, scale_dtype
        for bits, granularity in ((key_bits, keys), (value_bits, values)):
            if granularity == "token" and bits != AS_THEY_CAME:
                kv_cache.check_head_dim(self._head_dim, group_size)
        super().__init__(
            layers=[
                QuantizedLayer(
                    QuantizedStore(key_bits, keys, group_size, residual, scale_dtype),
                    QuantizedStore(value_bits, values, group_size, residual, scale_dtype),
                )
                for _ in range(config.num_hidden_layers)
            ]
        )

    @property
    def nbytes(self) -> int:
        """Bytes really held, for all sequences of the batch."""
        return sum(store.nbytes for layer in self.layers for store in layer.stores)

    def bytes_per_token(self, dtype: torch.dtype = torch.float16) -> float:
        """Bytes that a token of one sequence takes once it is quantized, scales and minima included.

        `dtype` is the type in which the model computes; the window holds its tokens in it.
        """
        scale = self._scale_dtype or (dtype if dtype.itemsize == 2 else torch.float16)
        one_head = sum(
            kv_cache.bytes_per_token(self._head_dim, bits, self._group_size, scale.itemsize, dtype.itemsize)
            for bits in self._bits
        )
        return len(self.layers) * self._heads * one_head


@torch.inference_mode()
def prompt_kl(model: PreTrainedModel, make_cache: Callable[[], Cache], ids: torch.Tensor, chunk: int = 32) -> Estimate:
    """How far a cache moves the model's predictions when a text is fed through it in chunks.

    Args:
        make_cache: gives a new, empty cache.
        ids: int64 (sequences, tokens).
        chunk: tokens in one call. A smaller one sees more of the cache, and 1 is what decoding does.

    Returns:
        The mean KL divergence, in nats per token, from the model without a cache to the model with this one, over the
        sequences. The first chunk does not count: no cache stands behind its predictions.

    Raises:
        ValueError: ids that are not two-dimensional, or not longer than one chunk.
    """
    if type(chunk) is not int or chunk < 1:
        raise ValueError(f"chunk: got {chunk!r}; give a whole number of tokens, 1 or more")
    if ids.ndim != 2 or ids.shape[1] <= chunk:
        raise ValueError(
            f"ids: shape {tuple(ids.shape)}; it must be (sequences, tokens), more than one chunk of {chunk}"
        )
    drift = []
    for rows in ids.split(max(1, BATCH_TOKENS // ids.shape[1])):
        rows = rows.to(model.device)
        cache = make_cache()
        logits = [model(part, past_key_values=cache, use_cache=True).logits for part in rows.split(chunk, dim=1)]
        quantized = F.log_softmax(torch.cat(logits[1:], dim=1).float(), dim=-1)
        reference = F.log_softmax(model(rows, use_cache=False).logits[:, chunk:].float(), dim=-1)
        drift.append((reference.exp() * (reference - quantized)).sum(-1).mean(1).cpu())  # (rows,)
    return Estimate.of(torch.cat(drift))
