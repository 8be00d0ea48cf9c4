"""The bytes that one token takes in the KV cache: for all heads, for fewer, or for one short latent vector.

    MHA, GQA, MQA:  2 · layers · KV heads · head_dim numbers      (a key and a value for each KV head)
    MLA:            layers · (kv_lora_rank + qk_rope_head_dim)    (DeepSeek-V2, Liu et al. 2024, section 2.1)

A quantized cache has a scale and a minimum, 16 bits each, for every `group_size` numbers, as in KIVI (Liu et al. 2024,
section 3) and in `qlab.methods.kv_cache`. Without groups the bare codes are counted, as for an FP8 cache that has one
scale for a whole layer. KIVI's window of newest tokens in 16 bits is not counted; nor is what a sliding window saves.
"""

from __future__ import annotations

from .shapes import ModelSpec

KV_BITS = (2, 4, 8, 16, 32)
_GROUP_BYTES = 4  # a scale and a minimum in 16 bits each


def bytes_per_token(model: ModelSpec, bits: int = 16, group_size: int | None = None) -> int:
    """Bytes of KV cache for one token, over all layers.

    Args:
        bits: 2, 4, 8, 16 or 32 for each number.
        group_size: numbers that share a scale and a minimum; None for none. A group does not reach beyond its head.

    Raises:
        ValueError: bits or group_size is not allowed, or groups are asked for at 16 bits or more.
    """
    if type(bits) is not int or bits not in KV_BITS:
        raise ValueError(f"kv_bits: got {bits!r}; choose from {', '.join(map(str, KV_BITS))}")
    if group_size is None:
        return -(-model.kv_values_per_token * bits // 8)
    if type(group_size) is not int or group_size < 1:
        raise ValueError(f"kv_group_size: got {group_size!r}; give a whole number, 1 or more, or None")
    if bits >= 16:
        raise ValueError(
            f"kv_group_size: got {group_size} at {bits} bits; only 2, 4 and 8 bits have scales, so give None"
        )
    width = model.latent.kv_lora_rank + model.latent.qk_rope_head_dim if model.latent else model.head_dim
    vectors = model.kv_values_per_token // width
    return vectors * (-(-width * bits // 8) + -(-width // group_size) * _GROUP_BYTES)
