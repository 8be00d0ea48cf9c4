from __future__ import annotations

from dataclasses import replace

import pytest

from qlab.deploy import names, spec
from qlab.deploy.shapes import Experts, LatentAttention, ModelSpec

# Published counts: all parameters, those of the layers' matrices, embedding, head; bytes of 16-bit KV cache per token.
PUBLISHED = {
    "Llama-2-7B": (6_738_415_616, 6_476_005_376, 131_072_000, 131_072_000, 524_288),
    "Llama-2-13B": (13_015_864_320, 12_687_769_600, 163_840_000, 163_840_000, 819_200),
    "Llama-2-70B": (68_976_648_192, 68_451_041_280, 262_144_000, 262_144_000, 327_680),
    "Llama-3-8B": (8_030_261_248, 6_979_321_856, 525_336_576, 525_336_576, 131_072),
    "Llama-3.1-8B": (8_030_261_248, 6_979_321_856, 525_336_576, 525_336_576, 131_072),
    "Llama-3-70B": (70_553_706_496, 68_451_041_280, 1_050_673_152, 1_050_673_152, 327_680),
    "Llama-3.1-70B": (70_553_706_496, 68_451_041_280, 1_050_673_152, 1_050_673_152, 327_680),
    "Llama-3.1-405B": (405_853_388_800, 401_646_551_040, 2_101_346_304, 2_101_346_304, 516_096),
    "Mistral-7B-v0.1": (7_241_732_096, 6_979_321_856, 131_072_000, 131_072_000, 131_072),
    "Mixtral-8x7B-v0.1": (46_702_792_704, 46_440_382_464, 131_072_000, 131_072_000, 131_072),
    "Qwen2.5-0.5B": (494_032_768, 357_826_560, 136_134_656, 0, 12_288),
    "Qwen2.5-7B": (7_615_616_512, 6_525_288_448, 544_997_376, 544_997_376, 57_344),
    "Qwen2.5-72B": (72_706_203_648, 70_212_648_960, 1_245_708_288, 1_245_708_288, 327_680),
    "Qwen3-32B": (32_762_123_264, 31_205_621_760, 777_912_320, 777_912_320, 262_144),
    "SmolLM2-135M": (134_515_008, 106_168_320, 28_311_552, 0, 23_040),
    "TinyLlama-1.1B": (1_100_048_384, 968_884_224, 65_536_000, 65_536_000, 22_528),
    "Qwen-72B": (72_287_920_128, 69_793_218_560, 1_245_708_288, 1_245_708_288, 2_621_440),
    "GPT-2": (124_439_808, 84_934_656, 38_597_376, 0, 36_864),
    "OPT-6.7B": (6_658_473_984, 6_442_450_944, 205_914_112, 0, 524_288),
    "OPT-175B": (174_604_468_224, 173_946_175_488, 617_742_336, 0, 4_718_592),
    "OPT-13B": (12_853_473_280, 12_582_912_000, 257_392_640, 0, 819_200),
    "OPT-30B": (29_974_540_288, 29_595_009_024, 360_349_696, 0, 1_376_256),
    "DeepSeek-V3": (671_026_419_200, 669_172_039_680, 926_679_040, 926_679_040, 70_272),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_follow_from_the_dimensions(name: str) -> None:
    model = spec(name)
    counted = (
        model.parameters,
        model.linear_parameters,
        model.embedding_parameters,
        model.head_parameters,
        2 * model.kv_values_per_token,
    )
    assert counted == PUBLISHED[name]


def test_every_model_of_the_data_file_is_checked() -> None:
    assert set(names()) - {"nano"} == set(PUBLISHED)


@pytest.mark.parametrize(
    ("name", "active"),
    [("Mixtral-8x7B-v0.1", 12_879_925_248), ("DeepSeek-V3", 37_552_297_472), ("Llama-3-8B", 8_030_261_248)],
)
def test_active_parameters(name: str, active: int) -> None:
    assert spec(name).active_parameters == active


@pytest.mark.parametrize(
    ("name", "attention"),
    [("Llama-2-7B", "MHA"), ("Llama-3-70B", "GQA"), ("DeepSeek-V3", "MLA")],
)
def test_attention_is_named_after_the_heads(name: str, attention: str) -> None:
    assert spec(name).attention == attention


def test_one_shared_head_is_mqa_and_caches_least() -> None:
    model = spec("Llama-2-7B")
    shared = replace(model, kv_heads=1)
    assert shared.attention == "MQA"
    assert model.kv_values_per_token == 32 * shared.kv_values_per_token


def test_latent_attention_caches_one_short_vector() -> None:
    model = spec("DeepSeek-V3")
    assert model.kv_values_per_token == 61 * (512 + 64)


def test_latent_attention_without_a_query_rank_has_one_query_matrix() -> None:
    model = spec("DeepSeek-V3")
    assert model.latent is not None
    direct = replace(model, latent=replace(model.latent, q_lora_rank=None))
    shapes = {matrix.name: (matrix.rows, matrix.columns) for matrix in direct.matrices()}
    assert shapes["q"] == (128 * 192, 7168)
    assert "q_a" not in shapes


def test_experts_are_matrices_of_their_own() -> None:
    copies = {matrix.name: (matrix.copies, matrix.active) for matrix in spec("Mixtral-8x7B-v0.1").matrices()}
    assert copies["expert gate"] == (256, 64)
    assert copies["router"] == (32, 32)
    assert "gate" not in copies


def _small(**changes: object) -> ModelSpec:
    sizes: dict[str, object] = {
        "layers": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "attention_heads": 4,
        "kv_heads": 2,
        "head_dim": 16,
        "vocab_size": 100,
        "tied_embeddings": True,
        "max_context": 32,
        "source": "this test",
    }
    return ModelSpec(name="small", **{**sizes, **changes})  # type: ignore[arg-type]


LATENT = LatentAttention(q_lora_rank=8, kv_lora_rank=8, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": " "}, "source: small has none"),
        ({"layers": 0}, "layers: small has 0"),
        ({"hidden_size": "64"}, "hidden_size: small has '64'"),
        ({"head_dim": 16.0}, "head_dim: small has 16.0"),
        ({"vocab_size": True}, "vocab_size: small has True"),
        ({"kv_heads": 3}, "kv_heads: small has 3"),
        ({"tied_embeddings": "yes"}, "tied_embeddings: small has 'yes'"),
        ({"norm_vectors": 3}, "norm_vectors: small has 3"),
        ({"embedding_size": -1}, "embedding_size: small has -1"),
        ({"learned_positions": -1}, "learned_positions: small has -1"),
        ({"experts": Experts(routed=2, active=3, width=8)}, "too many active experts"),
        ({"experts": Experts(routed=2, active=1, width=8, dense_layers=3)}, "too many dense layers"),
        ({"experts": Experts(routed=2, active=1, width=8, shared=-1)}, "shared: small has -1"),
        ({"latent": replace(LATENT, kv_lora_rank=0)}, "kv_lora_rank: small has 0"),
        ({"latent": replace(LATENT, q_lora_rank=0)}, "q_lora_rank: small has 0"),
    ],
)
def test_senseless_dimensions_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _small(**changes)


def test_the_share_of_one_gpu() -> None:
    share = spec("Llama-3-70B").share(8)
    shapes = {matrix.name: (matrix.rows, matrix.columns, matrix.copies) for matrix in share.matrices()}
    assert shapes == {
        "q": (1024, 8192, 80),
        "k": (128, 8192, 80),
        "v": (128, 8192, 80),
        "o": (8192, 1024, 80),
        "gate": (3584, 8192, 80),
        "up": (3584, 8192, 80),
        "down": (8192, 3584, 80),
    }
    assert share.embedding_shape == (128_256 // 8, 8192)
    assert share.norm_and_bias_parameters == spec("Llama-3-70B").norm_and_bias_parameters
    assert spec("Llama-3-70B").share(1) is spec("Llama-3-70B")


def test_kv_heads_are_copied_where_there_are_more_gpus() -> None:
    model = spec("Llama-3-70B")
    caches = [model.share(n).kv_values_per_token for n in (1, 2, 8, 16, 64)]
    assert caches == [163_840, 81_920, 20_480, 20_480, 20_480]


def test_latent_attention_has_its_cache_and_down_projections_on_every_gpu() -> None:
    model = spec("DeepSeek-V3")
    whole = {matrix.name: (matrix.rows, matrix.columns) for matrix in model.matrices()}
    share = {matrix.name: (matrix.rows, matrix.columns) for matrix in model.share(8).matrices()}
    assert model.share(8).kv_values_per_token == model.kv_values_per_token
    for name in ("q_a", "kv_a", "router"):
        assert share[name] == whole[name]
    for name in ("q_b", "kv_b", "expert gate", "expert up", "shared gate", "gate"):
        assert share[name] == (whole[name][0] // 8, whole[name][1])
    for name in ("o", "expert down", "shared down", "down"):
        assert share[name] == (whole[name][0], whole[name][1] // 8)


def test_biases_go_with_the_rows_they_belong_to() -> None:
    model = _small(qkv_bias=True, o_bias=True, mlp_bias=True, qk_norm=True)
    norms = 5 * 64 + 2 * 2 * 16
    assert model.norm_and_bias_parameters == norms + 2 * ((4 + 2 * 2) * 16 + 64 + 2 * 128 + 64)
    assert model.share(2).norm_and_bias_parameters == norms + 2 * ((2 + 2 * 1) * 16 + 64 + 2 * 64 + 64)


def test_what_does_not_divide_is_rounded_up() -> None:
    share = _small(vocab_size=101, intermediate_size=129, tied_embeddings=False).share(2)
    assert (share.vocab_size, share.intermediate_size) == (51, 65)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "splits"),
    [
        (12, 4, (1, 2, 4, 12)),
        (64, 8, (1, 2, 4, 8, 16, 32, 64)),
        (9, 3, (1, 3, 9)),
        (8, 1, (1, 2, 4, 8)),
        (7, 7, (1, 7)),
    ],
)
def test_heads_are_shared_out_whole(heads: int, kv_heads: int, splits: tuple[int, ...]) -> None:
    model = _small(attention_heads=heads, kv_heads=kv_heads)
    assert model.splits == splits
    for wrong in sorted(set(range(-1, heads + 2)) - set(splits)):
        with pytest.raises(ValueError, match=f"tensor_parallel: got {wrong}; small has {heads} query heads"):
            model.share(wrong)
