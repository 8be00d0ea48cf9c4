"""The shapes of a decoder-only transformer, and every count that follows from them.

One `ModelSpec` holds a model's dimensions. Parameters, the matrices that can be quantized and the size of the
KV cache are arithmetic on these dimensions, so a published total is something to check, not something to store.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

Group = Literal["attention", "mlp"]


class Matrix(NamedTuple):
    """Equal weight matrices of shape (rows, columns), rows being output features.

    There are `copies` of them, and `active` of these work on one token.
    """

    group: Group
    name: str
    rows: int
    columns: int
    copies: int
    active: int

    @property
    def parameters(self) -> int:
        """Weights in all copies together."""
        return self.rows * self.columns * self.copies


@dataclass(frozen=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2, section 2.1): keys and values are cached as one short vector."""

    q_lora_rank: int | None
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int


@dataclass(frozen=True)
class Experts:
    """A mixture of experts in place of the MLP, except in the first `dense_layers` layers.

    `width` is the inner size of one expert. `router_bias` is DeepSeek-V3's one correction number per expert.
    """

    routed: int
    active: int
    width: int
    shared: int = 0
    dense_layers: int = 0
    router_bias: bool = False


@dataclass(frozen=True)
class ModelSpec:
    """Dimensions of one model. All sizes are counts of numbers or of layers, heads and tokens; none is in bytes.

    Args:
        kv_heads: heads whose keys and values are cached; equal to `attention_heads` in plain multi-head attention.
        head_dim: width of one head; `attention_heads * head_dim` may differ from `hidden_size` (Qwen3).
        max_context: tokens the model was made for.
        source: where the dimensions come from. Mandatory.
        confidence, date: how far to trust the source, and from when it is.
        gated_mlp: three matrices (gate, up, down) where True, two where False.
        qkv_bias, o_bias, mlp_bias: whether those layers add a bias.
        qk_norm: one norm gain of `head_dim` numbers for queries and one for keys in each layer (Qwen3).
        norm_vectors: vectors per norm: 1 for RMSNorm, 2 for LayerNorm (gain and bias), 0 without parameters.
        learned_positions: rows of a learned position table, 0 with rotary positions.
        embedding_size: width of the token embedding where it differs from `hidden_size` (OPT-350M).

    Raises:
        ValueError: a size is not a positive whole number, or the query heads cannot share the KV heads evenly.
    """

    name: str
    layers: int
    hidden_size: int
    intermediate_size: int
    attention_heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    tied_embeddings: bool
    max_context: int
    source: str
    confidence: str = "high"
    date: str = "undated"
    gated_mlp: bool = True
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    norm_vectors: int = 1
    final_norm: bool = True
    learned_positions: int = 0
    embedding_size: int | None = None
    latent: LatentAttention | None = None
    experts: Experts | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.source, str) or not self.source.strip():
            raise ValueError(f"source: {self.name} has none; say where its dimensions come from")
        _check_sizes(self.name, self, _WIDTHS + _COUNTS)
        _check_sizes(self.name, self, ("learned_positions",), least=0)
        _check_flags(self.name, self, _FLAGS)
        if self.embedding_size is not None:
            _check_sizes(self.name, self, ("embedding_size",))
        if self.norm_vectors not in (0, 1, 2):
            raise ValueError(f"norm_vectors: {self.name} has {self.norm_vectors!r}; it must be 0, 1 or 2")
        if self.attention_heads % self.kv_heads:
            raise ValueError(
                f"kv_heads: {self.name} has {self.kv_heads}; it must divide the {self.attention_heads} attention heads"
            )
        if self.latent:
            _check_sizes(self.name, self.latent, _LATENT_WIDTHS)
            if self.latent.q_lora_rank is not None:
                _check_sizes(self.name, self.latent, ("q_lora_rank",))
        if self.experts:
            _check_sizes(self.name, self.experts, ("routed", "active", "width"))
            _check_sizes(self.name, self.experts, ("shared", "dense_layers"), least=0)
            if self.experts.active > self.experts.routed or self.experts.dense_layers > self.layers:
                raise ValueError(
                    f"experts: {self.name} has too many active experts or too many dense layers: {self.experts}"
                )

    @property
    def attention(self) -> Literal["MHA", "GQA", "MQA", "MLA"]:
        """How keys and values are shared: by nobody, within groups of heads, by all heads, or as a latent vector."""
        if self.latent:
            return "MLA"
        if self.kv_heads == self.attention_heads:
            return "MHA"
        return "MQA" if self.kv_heads == 1 else "GQA"

    def matrices(self) -> Iterator[Matrix]:
        """The weight matrices of the layers: what a quantizer quantizes. Embedding and head are not among them."""
        yield from self._attention_matrices()
        yield from self._mlp_matrices()
        if self.embedding_size not in (None, self.hidden_size):
            yield Matrix("mlp", "project_in", self.hidden_size, self.embedding_size, 1, 1)
            yield Matrix("mlp", "project_out", self.embedding_size, self.hidden_size, 1, 1)

    def _attention_matrices(self) -> Iterator[Matrix]:
        hidden, heads, layers = self.hidden_size, self.attention_heads, self.layers
        if self.latent is None:
            shapes = {
                "q": (heads * self.head_dim, hidden),
                "k": (self.kv_heads * self.head_dim, hidden),
                "v": (self.kv_heads * self.head_dim, hidden),
                "o": (hidden, heads * self.head_dim),
            }
        else:
            latent = self.latent
            query = heads * (latent.qk_nope_head_dim + latent.qk_rope_head_dim)
            rank = latent.q_lora_rank
            shapes = {"q": (query, hidden)} if rank is None else {"q_a": (rank, hidden), "q_b": (query, rank)}
            shapes["kv_a"] = (latent.kv_lora_rank + latent.qk_rope_head_dim, hidden)
            shapes["kv_b"] = (heads * (latent.qk_nope_head_dim + latent.v_head_dim), latent.kv_lora_rank)
            shapes["o"] = (hidden, heads * latent.v_head_dim)
        for name, (rows, columns) in shapes.items():
            yield Matrix("attention", name, rows, columns, layers, layers)

    def _mlp_matrices(self) -> Iterator[Matrix]:
        experts = self.experts
        dense = experts.dense_layers if experts else self.layers
        yield from self._mlp("", self.intermediate_size, dense, dense)
        if experts:
            sparse = self.layers - experts.dense_layers
            yield Matrix("mlp", "router", experts.routed, self.hidden_size, sparse, sparse)
            yield from self._mlp("expert ", experts.width, sparse * experts.routed, sparse * experts.active)
            yield from self._mlp("shared ", experts.width, sparse * experts.shared, sparse * experts.shared)

    def _mlp(self, prefix: str, width: int, copies: int, active: int) -> Iterator[Matrix]:
        if copies:
            for name in ("gate", "up") if self.gated_mlp else ("up",):
                yield Matrix("mlp", prefix + name, width, self.hidden_size, copies, active)
            yield Matrix("mlp", prefix + "down", self.hidden_size, width, copies, active)

    @property
    def linear_parameters(self) -> int:
        """Weights in `matrices()`, routers of experts included, biases not."""
        return sum(matrix.parameters for matrix in self.matrices())

    @property
    def embedding_shape(self) -> tuple[int, int]:
        """(vocabulary, width) of the token embedding, and of the head."""
        return self.vocab_size, self.embedding_size or self.hidden_size

    @property
    def embedding_parameters(self) -> int:
        """Numbers in the token embedding."""
        rows, columns = self.embedding_shape
        return rows * columns

    @property
    def head_parameters(self) -> int:
        """Numbers that the output head adds: none where it shares the embedding."""
        return 0 if self.tied_embeddings else self.embedding_parameters

    @property
    def position_parameters(self) -> int:
        """Numbers in the table of learned positions."""
        return self.learned_positions * self.hidden_size

    @property
    def norm_and_bias_parameters(self) -> int:
        """Numbers in the norms and in all biases."""
        norms = (2 * self.layers + self.final_norm) * self.hidden_size * self.norm_vectors
        per_layer = 2 * self.head_dim * self.qk_norm
        per_layer += (self.attention_heads + 2 * self.kv_heads) * self.head_dim * self.qkv_bias
        per_layer += self.hidden_size * self.o_bias
        per_layer += ((1 + self.gated_mlp) * self.intermediate_size + self.hidden_size) * self.mlp_bias
        if self.latent:
            per_layer += (self.latent.q_lora_rank or 0) + self.latent.kv_lora_rank
        routers = 0
        if self.experts and self.experts.router_bias:
            routers = (self.layers - self.experts.dense_layers) * self.experts.routed
        return norms + self.layers * per_layer + routers

    @property
    def parameters(self) -> int:
        """Every number in the model; a tied head is counted once."""
        outside = self.embedding_parameters + self.head_parameters + self.position_parameters
        return self.linear_parameters + outside + self.norm_and_bias_parameters

    @property
    def active_parameters(self) -> int:
        """Parameters less the experts that one token does not visit; equal to `parameters` in a dense model."""
        return self.parameters - sum(m.rows * m.columns * (m.copies - m.active) for m in self.matrices())

    def share(self, gpus: int) -> ModelSpec:
        """What one of several GPUs holds under tensor parallelism (Megatron-LM, Shoeybi et al. 2019, section 3).

        Query heads, KV heads, the inner size of the MLP or of each expert, and the rows of embedding and head are
        divided; a part that does not divide evenly is rounded up. Norms, positions, routers, biases of row-parallel
        layers, the down-projections of latent attention and its cache are on every GPU. So is a KV head where there
        are more GPUs than KV heads: then several GPUs hold the same one, and the cache shrinks no further.

        Raises:
            ValueError: the heads cannot be shared out among that many GPUs.
        """
        if type(gpus) is not int or gpus not in self.splits:
            allowed = ", ".join(map(str, self.splits))
            raise ValueError(
                f"tensor_parallel: got {gpus!r}; {self.name} has {self.attention_heads} query heads and "
                f"{self.kv_heads} KV heads, so choose from {allowed}"
            )
        if gpus == 1:
            return self
        return replace(
            self,
            attention_heads=self.attention_heads // gpus,
            kv_heads=-(-self.kv_heads // gpus),
            intermediate_size=-(-self.intermediate_size // gpus),
            vocab_size=-(-self.vocab_size // gpus),
            experts=self.experts and replace(self.experts, width=-(-self.experts.width // gpus)),
        )

    @property
    def splits(self) -> tuple[int, ...]:
        """Numbers of GPUs among which the heads can be shared out: whole query heads each, KV heads whole or copied."""
        heads, kv = self.attention_heads, self.kv_heads
        return tuple(n for n in range(1, heads + 1) if heads % n == 0 and (kv % n == 0 or n % kv == 0))

    @property
    def kv_values_per_token(self) -> int:
        """Numbers that the KV cache keeps for one token, over all layers.

        2 · layers · kv_heads · head_dim; with latent attention layers · (kv_lora_rank + qk_rope_head_dim).
        """
        if self.latent:
            return self.layers * (self.latent.kv_lora_rank + self.latent.qk_rope_head_dim)
        return 2 * self.layers * self.kv_heads * self.head_dim


_WIDTHS = ("hidden_size", "intermediate_size", "head_dim", "vocab_size")
_COUNTS = ("layers", "attention_heads", "kv_heads", "max_context")
_LATENT_WIDTHS = ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
_FLAGS = ("tied_embeddings", "gated_mlp", "qkv_bias", "o_bias", "mlp_bias", "qk_norm", "final_norm")


def _check_sizes(owner: str, part: Any, fields: tuple[str, ...], least: int = 1) -> None:
    for field in fields:
        value = getattr(part, field)
        if type(value) is not int or value < least:  # a bool is an int, but not a size
            raise ValueError(f"{field}: {owner} has {value!r}; it must be a whole number, {least} or more")


def _check_flags(owner: str, part: Any, fields: tuple[str, ...]) -> None:
    for field in fields:
        if not isinstance(getattr(part, field), bool):
            raise ValueError(f"{field}: {owner} has {getattr(part, field)!r}; it must be true or false")
