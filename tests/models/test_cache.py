"""The quantized cache against the plain one of transformers, on small models of many families and on nano."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from qlab.models import corpus
from qlab.models.cache import QuantizedCache, prompt_kl
from qlab.models.evaluate import encode
from qlab.models.load import load
from qlab.models.outliers import implant
from qlab.models.workloads import WORKLOADS, examples

HUGE = 10**6
Family = Callable[..., PreTrainedModel]
FULL_ATTENTION = ["llama", "llama, tied", "llama, biases", "qwen2", "qwen3", "opt", "gpt2"]


@pytest.fixture(scope="module")
def nano() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    return load()


def plain(model: PreTrainedModel) -> DynamicCache:
    return DynamicCache(config=model.config)


def padded() -> dict[str, torch.Tensor]:
    """Two prompts, the shorter one padded on the left."""
    ids = torch.randint(3, 61, (2, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, :5] = 0
    return {"input_ids": ids * mask, "attention_mask": mask}


def generate(model: PreTrainedModel, inputs: dict[str, torch.Tensor], **options: Any) -> torch.Tensor:
    return model.generate(**inputs, **{"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0} | options)


def prose(tokenizer: PreTrainedTokenizerBase, rows: int, width: int) -> torch.Tensor:
    ids = tokenizer(corpus.held_out_text("prose"), add_special_tokens=False)["input_ids"]
    return torch.tensor([[0, *ids[i * width : (i + 1) * width - 1]] for i in range(rows)])


# --- the plain cache is the oracle ----------------------------------------------------------


@pytest.mark.parametrize("name", FULL_ATTENTION)
@pytest.mark.parametrize(
    "options",
    [{}, {"num_beams": 3}, {"num_beams": 4, "num_return_sequences": 2}, {"prefill_chunk_size": 5}],
    ids=["greedy", "beams", "several beams", "chunks"],
)
def test_an_endless_window_is_the_plain_cache(family: Family, name: str, options: dict[str, Any]) -> None:
    model = family(name)
    ours = generate(
        model, padded(), past_key_values=QuantizedCache(model.config, residual=HUGE, group_size=8), **options
    )
    assert torch.equal(ours, generate(model, padded(), past_key_values=plain(model), **options))


@pytest.mark.parametrize("name", FULL_ATTENTION)
def test_eight_bits_keep_the_logits_of_every_family(family: Family, name: str) -> None:
    model = family(name)
    ids = torch.randint(3, 61, (2, 30), generator=torch.Generator().manual_seed(2))
    logits = []
    for cache in (QuantizedCache(model.config, 8, 8, group_size=8, residual=0), plain(model)):
        with torch.no_grad():
            logits.append(torch.cat([model(part, past_key_values=cache).logits for part in ids.split(5, dim=1)], dim=1))
        assert cache.get_seq_length() == 30
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=0.01)
    assert torch.equal(logits[0][:, :5], logits[1][:, :5]) and not torch.equal(logits[0][:, 5:], logits[1][:, 5:])


@torch.no_grad()
def test_a_call_sees_what_was_held_rounded_and_what_is_new_exactly(family: Family) -> None:
    config = family().config
    cache, oracle = QuantizedCache(config, 4, 2, group_size=8, residual=4), DynamicCache(config=config)
    generator = torch.Generator().manual_seed(0)
    for tokens in (20, 1, 1, 6):
        keys, values = torch.randn(2, 2, config.num_key_value_heads, tokens, 8, generator=generator)
        stores = cache.layers[1].stores
        held = [s.read() if s.tokens else None for s in stores]
        seen = cache.update(keys, values, layer_idx=1)
        exact = oracle.update(keys, values, layer_idx=1)
        for side, (got, want, new) in enumerate(zip(seen, exact, (keys, values), strict=True)):
            assert got.shape == want.shape and got.dtype == want.dtype
            assert torch.equal(got[:, :, -tokens:], new)
            if held[side] is not None:
                assert torch.equal(got[:, :, :-tokens], held[side])
                assert not torch.equal(got, want)
        assert cache.get_seq_length(1) == oracle.get_seq_length(1)
        assert cache.get_mask_sizes(3, 1) == oracle.get_mask_sizes(3, 1)
    assert [s.bits for s in stores] == [4, 2] and [s.granularity for s in stores] == ["channel", "token"]
    assert cache.get_seq_length(0) == 0


def test_padding_changes_nothing_per_token(nano: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> None:
    # Per token no group holds padding and text, and in calls of one token no chunk begins elsewhere:
    # a wrong mask or position is the only thing that could show.
    model, tokenizer = nano
    prompts = [tokenizer(e.prompt)["input_ids"] for e in examples("trading", 6)]
    width = max(map(len, prompts)) + 7
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])

    def answer(ids: torch.Tensor, mask: torch.Tensor) -> Any:
        cache = QuantizedCache(model.config, 8, 8, keys="token", residual=0)
        options = {"prefill_chunk_size": 1, "return_dict_in_generate": True, "output_logits": True}
        inputs = {"input_ids": ids, "attention_mask": mask}
        return generate(model, inputs, past_key_values=cache, max_new_tokens=4, **options)

    together = answer(ids, mask)
    for i, prompt in enumerate(prompts):
        alone = answer(torch.tensor([prompt]), torch.ones(1, len(prompt), dtype=torch.long))
        answered = alone.sequences[0, len(prompt) :]  # alone it stops at its end mark
        assert torch.equal(answered, together.sequences[i, width : width + len(answered)])
        torch.testing.assert_close(alone.logits[0][0], together.logits[0][i], rtol=0, atol=0.02)


# --- what transformers asks of a cache ------------------------------------------------------


def test_beams_reorder_rounded_tokens(family: Family) -> None:
    model = family()
    cache = QuantizedCache(model.config, 4, 4, group_size=8, residual=0)
    with torch.no_grad():
        model(padded()["input_ids"], past_key_values=cache)
    before = [store.read() for layer in cache.layers for store in layer.stores]
    cache.batch_repeat_interleave(2)
    cache.reorder_cache(torch.tensor([3, 0, 0, 1]))
    cache.batch_select_indices(torch.tensor([0, 1, 3]))
    for x, store in zip(before, (store for layer in cache.layers for store in layer.stores), strict=True):
        assert torch.equal(store.read(), x[[1, 0, 0]])


def test_crop_and_reset(family: Family) -> None:
    model = family()
    cache = QuantizedCache(model.config, 4, 4, group_size=8, residual=8)
    ids = padded()["input_ids"]
    with torch.no_grad():
        first = model(ids, past_key_values=cache).logits
        before = [store.read() for layer in cache.layers for store in layer.stores]
        cache.crop(-3)
        assert cache.get_seq_length() == 9
        for x, store in zip(before, (store for layer in cache.layers for store in layer.stores), strict=True):
            assert torch.equal(store.read(), x[:, :, :9])
        cache.crop(0)
        assert cache.get_seq_length() == 9
        with pytest.raises(ValueError, match="tokens_to_remove: got 2; give a negative count"):
            cache.crop(2)
        assert not cache.is_croppable  # what was rounded does not come back
        cache.crop(-50)
        assert cache.get_seq_length() == 0
        cache.reset()
        assert cache.nbytes == 0 and not cache.is_initialized
        assert torch.equal(model(ids, past_key_values=cache).logits, first)


def test_a_prompt_can_be_kept_and_answered_twice(family: Family) -> None:
    model = family()
    inputs = padded()
    cache = QuantizedCache(model.config, 4, 4, group_size=8, residual=0)
    with torch.no_grad():
        model(inputs["input_ids"][:, :-1], attention_mask=inputs["attention_mask"][:, :-1], past_key_values=cache)
    held = cache.nbytes
    answers = [generate(model, inputs, past_key_values=copy.deepcopy(cache)) for _ in range(2)]
    assert torch.equal(*answers) and cache.nbytes == held and cache.get_seq_length() == 11


# --- bytes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("bits", [(8, 8), (4, 2), (2, 16), (16, 16)])
def test_bytes_held_are_those_of_the_formula(family: Family, bits: tuple[int, int], dtype: torch.dtype) -> None:
    model = family("qwen3").to(dtype)  # its head_dim is not hidden_size / heads
    cache = QuantizedCache(model.config, *bits, group_size=8, residual=0)
    assert cache.nbytes == 0
    with torch.no_grad():
        model(torch.ones(3, 16, dtype=torch.long), past_key_values=cache)
        assert cache.nbytes == 3 * 16 * cache.bytes_per_token(dtype)
        model(torch.ones(3, 24, dtype=torch.long), past_key_values=cache)
    assert cache.nbytes == 3 * 40 * cache.bytes_per_token(dtype)


def test_bytes_of_nano(nano: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> None:
    config = nano[0].config  # 6 layers, 2 heads of keys and values with 64 channels
    assert QuantizedCache(config, 16, 16).bytes_per_token() == 6 * 2 * 2 * 128
    assert QuantizedCache(config, 4, 4).bytes_per_token() == 6 * 2 * 2 * 40  # 5 bits for each number
    assert QuantizedCache(config, 4, 2).bytes_per_token() == 6 * 2 * (40 + 24)
    assert QuantizedCache(config, 4, 4, scale_dtype=torch.float32).bytes_per_token() == 6 * 2 * 2 * 48


# --- how much is lost -----------------------------------------------------------------------


def test_eight_bits_give_the_same_answers(nano: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> None:
    model, tokenizer = nano
    same, total = 0, 0
    for name in WORKLOADS:
        encoded = sorted((encode(tokenizer, e) for e in examples(name, 40)), key=lambda pair: len(pair[0]))
        width = len(encoded[-1][0])
        inputs = {
            "input_ids": torch.tensor([[0] * (width - len(p)) + p for p, _ in encoded]),
            "attention_mask": torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p, _ in encoded]),
        }
        # In chunks: a prompt in one call would meet no rounded number before its second new token.
        options = {"max_new_tokens": max(len(a) for _, a in encoded), "prefill_chunk_size": 64}
        cache = QuantizedCache(model.config, 8, 8, residual=0)
        ours = generate(model, inputs, past_key_values=cache, **options)
        theirs = generate(model, inputs, past_key_values=plain(model), **options)
        assert cache.layers[0].stores[1].quantized_tokens == cache.get_seq_length()
        # All rows end in padding (0); one cache may need a token more for its last row.
        most = max(ours.shape[1], theirs.shape[1])
        ours, theirs = (F.pad(x, (0, most - x.shape[1])) for x in (ours, theirs))
        same += int((ours == theirs).all(1).sum())
        total += len(encoded)
    assert total >= 200 and same >= 0.98 * total


def test_keys_per_channel_bear_outlier_channels(nano: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> None:
    model, tokenizer = nano
    ids = prose(tokenizer, rows=4, width=256)
    outliers = implant(load()[0], [20], factor=8, inner=False, keys=True)
    with torch.no_grad():  # the same function
        torch.testing.assert_close(outliers(ids[:1]).logits, model(ids[:1]).logits, rtol=0, atol=1e-3)

    def kl(which: PreTrainedModel, keys: str) -> float:
        return prompt_kl(which, lambda: QuantizedCache(which.config, 4, 4, keys=keys), ids, chunk=32).value

    assert kl(model, "channel") < kl(model, "token")  # nano has hardly any of its own
    assert kl(outliers, "channel") == pytest.approx(kl(model, "channel"), rel=0.05)
    assert kl(outliers, "token") > 4 * kl(outliers, "channel")


def test_fewer_bits_cost_more_and_values_count_too(nano: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> None:
    model, tokenizer = nano
    ids = prose(tokenizer, rows=2, width=192)

    def kl(*bits: int) -> float:
        return prompt_kl(model, lambda: QuantizedCache(model.config, *bits, residual=0), ids, chunk=32).value

    found = {bits: kl(*bits) for bits in ((16, 16), (8, 8), (4, 4), (2, 2), (2, 16), (16, 2))}
    assert found[16, 16] == pytest.approx(0, abs=1e-6)
    assert 5 * found[8, 8] < found[4, 4] and 5 * found[4, 4] < found[2, 2]
    assert max(found[2, 16], found[16, 2]) < found[2, 2]


# --- prompt_kl ------------------------------------------------------------------------------


@torch.inference_mode()
def test_prompt_kl_by_hand(nano: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> None:
    model, tokenizer = nano
    ids = prose(tokenizer, rows=2, width=50)

    def make() -> QuantizedCache:
        return QuantizedCache(model.config, 2, 2, group_size=8, residual=0)

    means = []
    for row in ids:
        cache, rows = make(), []
        for start in range(0, 50, 20):
            rows.append(model(row[None, start : start + 20], past_key_values=cache).logits[0])
        q, p = torch.cat(rows)[20:].double(), model(row[None]).logits[0, 20:].double()
        means.append(F.kl_div(q.log_softmax(-1), p.log_softmax(-1), log_target=True, reduction="none").sum(-1).mean())
    found = prompt_kl(model, make, ids, chunk=20)
    assert found.value == pytest.approx(float(sum(means)) / 2, rel=1e-3)
    assert found.stderr == pytest.approx(float((means[0] - means[1]).abs()) / 2, rel=1e-2)


@pytest.mark.parametrize(
    ("shape", "chunk", "text"),
    [
        ((1, 8), 8, r"ids: shape \(1, 8\); it must be \(sequences, tokens\), more than one chunk of 8"),
        ((8,), 4, r"ids: shape \(8,\)"),
        ((1, 8), 0, "chunk: got 0"),
        ((1, 8), 2.0, "chunk: got 2.0"),
    ],
)
def test_prompt_kl_refuses(family: Family, shape: tuple[int, ...], chunk: Any, text: str) -> None:
    model = family()
    with pytest.raises(ValueError, match=text):
        prompt_kl(model, lambda: plain(model), torch.ones(shape, dtype=torch.long), chunk)


# --- errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"key_bits": 1}, ValueError, "key_bits: got 1; allowed is 2 to 8, or 16"),
        ({"value_bits": "4"}, TypeError, "value_bits: got '4'; give a whole number"),
        ({"keys": "head"}, ValueError, "keys: got 'head'; choose 'channel' or 'token'"),
        ({"values": None}, ValueError, "values: got None"),
        ({"group_size": 3}, ValueError, "group_size: got 3; per token it must divide head_dim 8: choose 1, 2, 4, 8"),
        ({"group_size": 0}, ValueError, "group_size: got 0"),
        ({"residual": -1}, ValueError, "residual: got -1"),
        ({"scale_dtype": torch.int8}, ValueError, "scale_dtype: got torch.int8"),
    ],
)
def test_bad_options(family: Family, options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        QuantizedCache(family().config, **{"group_size": 8} | options)


def test_groups_of_tokens_need_not_divide_a_head(family: Family) -> None:
    model = family()
    cache = QuantizedCache(model.config, keys="channel", values="channel", group_size=3, residual=1)
    assert generate(model, padded(), past_key_values=cache).shape == (2, 24)
    assert QuantizedCache(model.config, value_bits=16, group_size=3)


def test_sliding_windows_are_refused(family: Family) -> None:
    with pytest.raises(
        ValueError, match="config: has layers of sliding_attention; allowed are models with full_attention"
    ):
        QuantizedCache(family("mistral").config)
    assert QuantizedCache(family("mistral", sliding_window=None).config, group_size=8)
