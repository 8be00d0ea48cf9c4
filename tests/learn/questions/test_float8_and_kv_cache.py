"""The questions on 8-bit floats and the KV cache: the library and torch's own types, the cards, and near misses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

import qlab
from qlab.formats import float8
from qlab.learn.execute import read
from qlab.learn.judge import examine, judge
from qlab.learn.observe import observe, plain
from qlab.learn.question import Case
from qlab.learn.questions import question
from qlab.methods.kv_cache import QuantizedStore
from qlab.models.cache import QuantizedCache

ROOT = Path(__file__).parents[3]
DECODE, ENCODE, BLOCKS = (question(f"float8.{name}") for name in ("decode", "encode", "quantize_blocks"))
KEYS, VALUES, APPEND, BYTES = (
    question(f"kv_cache.{name}") for name in ("keys_per_channel", "values_per_token", "append", "bytes_per_token")
)
TORCH = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
both = pytest.mark.parametrize("data_type", ["e4m3", "e5m2"])


def answers(asked: Any) -> list[Any]:
    """The reference and the alternatives, as the judge sees what they return."""
    return [lambda *args, answer=answer: plain(answer(*args)) for answer in (asked.reference, *asked.alternatives)]


def mutant(asked: Any, name: str) -> Any:
    [found] = [each for each in asked.mutants if each.name == name]
    return found.answer


def judged(asked: Any, case: Case, answer: Any) -> Any:
    return judge(asked, [case], observe(lambda *args: answer, [case]))


# --- the library and torch --------------------------------------------------------------------------------------------


@both
def test_all_codes_have_the_values_of_torchs_types(data_type: str) -> None:
    codes = torch.arange(256, dtype=torch.uint8)
    theirs = codes.view(TORCH[data_type]).float()
    for answer in answers(DECODE):
        torch.testing.assert_close(answer(codes, data_type), theirs, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(float8.decode(codes, data_type), theirs, rtol=0, atol=0, equal_nan=True)


@both
def test_codes_are_those_of_the_library_and_of_torch(data_type: str) -> None:
    random = torch.Generator().manual_seed(0)
    x = 2 ** (40 * torch.rand(20_000, generator=random) - 22) * (
        1 - 2 * torch.randint(0, 2, (20_000,), generator=random)
    )
    x = torch.cat([x, *(case.args[0].flatten() for case in ENCODE.cases(1))])
    limit = float8.LARGEST[data_type]
    cast = x.clamp(-limit, limit).to(TORCH[data_type]).view(torch.uint8)
    assert torch.equal(float8.encode(x, data_type), cast)
    for answer in answers(ENCODE):
        codes = answer(x, data_type)
        different = codes != cast
        assert not bool((different & (codes % 128 > 0)).any()), "only the sign of a zero is free"


@pytest.mark.parametrize("shape", [(128, 256), (130, 257), (3, 5), (256, 100)])
def test_blocks_are_those_of_the_library(shape: tuple[int, int]) -> None:
    w = 0.02 * torch.randn(shape, generator=torch.Generator().manual_seed(1))
    w[:128, :128] *= 50
    theirs = float8.quantize(w, "e4m3", granularity="block")
    codes, scales = BLOCKS.reference(w, 128)
    torch.testing.assert_close(scales, theirs.scales, rtol=2e-7, atol=0)
    # The library rounds max / 448 once, from float64: a quotient beside a tie may take the other code.
    assert float((codes == theirs.codes).double().mean()) > 0.999
    of_each = scales.repeat_interleave(128, 0)[: shape[0]].repeat_interleave(128, 1)[:, : shape[1]]
    back = DECODE.reference(codes, "e4m3") * of_each
    bound = w.abs() / 16 + of_each * 2.0**-10  # half the smallest value, for subnormal quotients
    assert bool(((back - w).abs() <= 1.000001 * bound).all())


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_keys_are_those_of_the_library(bits: int) -> None:
    random = torch.Generator().manual_seed(bits)
    k = 5 * torch.randn(2, 1, 8, generator=random) + torch.randn(2, 64, 8, generator=random)
    store = QuantizedStore(bits, "channel", group_size=16, residual=0, scale_dtype=torch.float32)
    store.append(k[None])
    assert store.groups is not None
    theirs = store.groups.codes()[0].transpose(-1, -2).flatten(1, 2)  # (heads, tokens, channels)
    for answer in answers(KEYS):
        codes, scales, minima = answer(k, bits, 16)
        assert int((codes.int() - theirs.int()).abs().max()) <= 1 and float((codes == theirs).double().mean()) > 0.99
        torch.testing.assert_close(scales, store.groups.scales[0], rtol=1e-5, atol=0)
        torch.testing.assert_close(minima, store.groups.minima[0], rtol=0, atol=0)


@pytest.mark.parametrize(("bits", "offset"), [(4, 0.0), (8, 0.0), (8, 30.0)])
def test_values_are_read_within_half_a_step_and_near_the_library(bits: int, offset: float) -> None:
    v = offset + torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(3))
    store = QuantizedStore(bits, "token", group_size=16, residual=0, scale_dtype=torch.float16)
    store.append(v[None])
    codes, scales, minima = VALUES.reference(v, bits, 16)
    back = minima.float().repeat_interleave(16, 2) + codes * scales.float().repeat_interleave(16, 2)
    step = scales.float().repeat_interleave(16, 2)
    assert float(((back - store.read()[0]).abs() / step).max()) < (4 if offset else 1.1)
    exact = mutant(VALUES, "codes_of_the_exact_grid")(v, bits, 16)[0]
    wrong = minima.float().repeat_interleave(16, 2) + exact * step
    inside = (codes > 0) & (codes < 2**bits - 1)
    assert float(((back - v).abs() / step)[inside].max()) < 0.51
    if offset:
        assert float(((wrong - v).abs() / step).max()) > 1.2


@pytest.mark.parametrize("residual", [0, 3, 8, 32])
def test_what_is_held_is_what_the_library_holds(residual: int) -> None:
    k = torch.randn(41, 6, generator=torch.Generator().manual_seed(residual))
    for lengths in ((41,), (10, 31), (1,) * 41, (7, 1, 1, 20, 12)):
        calls = tuple(k.split(lengths))
        store = QuantizedStore(4, "channel", group_size=8, residual=residual, scale_dtype=torch.float32)
        for new in calls:
            store.append(new[None, None])
        for answer in answers(APPEND):
            held, quantized = answer(calls, 4, 8, residual)
            assert quantized == store.quantized_tokens
            assert torch.equal(held[quantized:], store.read()[0, 0][quantized:])
            torch.testing.assert_close(held, store.read()[0, 0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tokens", [5, 64, 75, 130])
@pytest.mark.parametrize("bits", [(4, 4), (2, 8), (3, 5)])
def test_bytes_are_those_that_the_cache_holds(tokens: int, bits: tuple[int, int]) -> None:
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    config = LlamaConfig(**sizes, hidden_size=48)
    cache = QuantizedCache(config, *bits, group_size=8, residual=16)
    for layer in range(2):
        cache.update(*torch.randn(2, 1, 2, tokens, 16, dtype=torch.float16), layer)
    for answer in answers(BYTES):
        per_token = answer(sizes | {"hidden_size": 48}, tokens, *bits, 8, 16)
        assert per_token * tokens == pytest.approx(cache.nbytes, rel=1e-12)


# --- the examples on the cards ----------------------------------------------------------------------------------------


def test_the_card_on_reading() -> None:
    codes = torch.tensor([0x45, 0xC5, 0x01, 0x03, 0x7E, 0x7F], dtype=torch.uint8)
    assert torch.equal(DECODE.cases(0)[0].args[0], codes)
    assert DECODE.reference(codes, "e4m3")[:5].tolist() == [3.25, -3.25, 0.001953125, 0.005859375, 448]
    assert DECODE.reference(codes, "e5m2")[:4].tolist() == [5, -5, 0.0000152587890625, 0.0000457763671875]
    assert bool(DECODE.reference(codes, "e4m3")[5].isnan()) and bool(DECODE.reference(codes, "e5m2")[4:].isnan().all())


def test_the_card_on_writing() -> None:
    x = torch.tensor([3.3, 17.0, 19.0, 15.7, 500.0, 0.001, -0.3])
    assert torch.equal(ENCODE.cases(0)[0].args[0], x)
    codes = ENCODE.reference(x, "e4m3")
    assert codes.tolist() == [0x45, 0x58, 0x5A, 0x58, 0x7E, 0x01, 0xAA]
    assert DECODE.reference(codes, "e4m3").tolist() == [3.25, 16, 20, 16, 448, 0.001953125, -0.3125]
    in_e5m2 = DECODE.reference(ENCODE.reference(x, "e5m2"), "e5m2")
    assert in_e5m2.tolist() == [3.5, 16, 20, 16, 512, 0.0009765625, -0.3125]


def test_the_card_on_blocks() -> None:
    w = torch.tensor([[1.0, -3.5, 0.7], [0.1, 2.0, -0.2], [56.0, 7.0, 0.0]])
    assert torch.equal(BLOCKS.cases(0)[0].args[0], w) and BLOCKS.cases(0)[0].args[1] == 2
    codes, scales = BLOCKS.reference(w, 2)
    assert codes.tolist() == [[112, 254, 126], [85, 120, 240], [126, 102, 0]]
    assert scales.flatten()[:3].tolist() == pytest.approx([0.0078125, 0.0015625, 0.125])
    assert DECODE.reference(codes, "e4m3")[1, 0] * scales[0, 0] == 0.1015625


def test_the_cards_on_keys_and_values() -> None:
    [k, bits, size] = KEYS.cases(0)[0].args
    codes, scales, minima = KEYS.reference(k, bits, size)
    assert codes[0].T.tolist() == [[0, 3, 2, 0, 0, 0], [1, 0, 3, 1, 0, 3], [0, 3, 2, 3, 0, 1]]
    assert minima[0].T.flatten().tolist() == pytest.approx([9.0, 9.3, -0.1, 0.0, -0.5, -0.4])
    assert scales[0].T.flatten()[[0, 2, 3, 4, 5]].tolist() == pytest.approx([0.2, 0.2, 0.3, 0.3, 0.4], rel=1e-5)
    codes, scales, minima = mutant(KEYS, "one_scale_per_token")(k, bits, size)
    assert (float(minima[0, 0, 0]), float(scales[0, 0, 0])) == pytest.approx((-0.5, 3.17), abs=0.005)
    assert bool((codes[0, :, 0] == 3).all()), "the large channel comes back"
    assert bool((codes[0, :, 1:] == 0).all()), "of the others, the larger one becomes a copy of the minimum"

    [v, bits, size] = VALUES.cases(0)[0].args
    codes, scales, minima = VALUES.reference(v, bits, size)
    assert codes.flatten().tolist() == [1, 128, 65, 255] and minima.item() == 30.0
    places = ((v - 30) / scales.float()).flatten().tolist()
    assert places == pytest.approx([1.28, 128.13, 65.32, 256.25], abs=0.006)
    back = (30 + codes * scales.double()).flatten().tolist()
    assert back == pytest.approx([30.0039, 30.4995, 30.2537, 30.9951], abs=6e-5)
    exact = mutant(VALUES, "codes_of_the_exact_grid")(v, bits, size)[0]
    assert exact.flatten().tolist() == [0, 127, 64, 255]
    wrong = (30 + exact * scales.double()).flatten().tolist()
    assert wrong == pytest.approx([30.0, 30.4956, 30.2498, 30.9951], abs=6e-5)


def test_the_card_on_the_window() -> None:
    [calls, *rest] = APPEND.cases(0)[0].args
    held = [APPEND.reference(calls[:count], *rest) for count in range(1, 5)]
    assert [quantized for _, quantized in held] == [3, 3, 3, 6]
    assert held[0][0].flatten().tolist() == [0, 3, 1, 2, 5]
    assert held[3][0].flatten().tolist() == pytest.approx([0, 3, 1, 2, 5, 4, 7, 6.5])


def test_the_card_on_bytes() -> None:
    case = BYTES.cases(0)[0]
    assert BYTES.reference(*case.args) * 11 == pytest.approx((144 + 140) * 3 * 2)
    assert BYTES.reference(*case.args) == pytest.approx(154.909, abs=5e-4)


# --- answers that no catalogue holds ----------------------------------------------------------------------------------


def test_a_float8_tensor_is_told_how_to_give_its_codes() -> None:
    verdict = examine(ENCODE, lambda x, data_type: x.clamp(-448, 448).to(torch.float8_e4m3fn), 0)
    assert verdict.outcome == "failed" and "view(torch.uint8)" in str(verdict)


def test_a_cast_without_a_clamp_is_named() -> None:
    def cast(x: torch.Tensor, data_type: str) -> torch.Tensor:
        return x.to(TORCH[data_type]).view(torch.uint8)

    assert examine(ENCODE, cast, 0).mutant in ("overflows", "e5m2_overflows")


def test_either_zero_is_right_and_a_tie_is_not_free() -> None:
    case = Case("zeros", (torch.tensor([0.0, -0.0, -1e-9]), "e4m3"))
    for codes in ([0, 0, 0], [128, 128, 128], [0, 128, 128]):
        assert judged(ENCODE, case, torch.tensor(codes, dtype=torch.uint8)).passed
    case = Case("a tie", (torch.tensor([17.0]), "e4m3"))
    for code, right in ((0x58, True), (0x59, False)):
        assert judged(ENCODE, case, torch.tensor([code], dtype=torch.uint8)).passed is right


def test_keys_without_a_guard_fail_whatever_a_byte_makes_of_nan() -> None:
    def unguarded(k: torch.Tensor, bits: int, group_size: int) -> tuple[torch.Tensor, ...]:
        groups = k.view(k.shape[0], k.shape[1] // group_size, group_size, k.shape[2])
        low = groups.amin(2)
        scales = (groups.amax(2) - low) / (2**bits - 1)
        codes = torch.round((groups - low[:, :, None]) / scales[:, :, None])
        return codes.to(torch.uint8).view(k.shape), scales, low

    assert examine(KEYS, unguarded, 0).mutant == "equal_numbers_divide"


def test_a_range_from_the_stored_minimum_is_right_too() -> None:
    """In a group of 0.1 the stored minimum is smaller, so a range, a scale and codes are left: all of them right."""

    def from_the_stored(v: torch.Tensor, bits: int, group_size: int) -> tuple[torch.Tensor, ...]:
        levels = 2**bits - 1
        groups = v.view(*v.shape[:2], v.shape[2] // group_size, group_size)
        minima = groups.amin(3).half()
        scales = ((groups.amax(3) - minima.float()) / levels).half()
        divisor = torch.where(scales > 0, scales, torch.inf).float()
        codes = torch.round((groups - minima.float()[..., None]) / divisor[..., None]).clamp(0, levels)
        return codes.to(torch.uint8).view(v.shape), scales, minima

    for seed in range(5):
        verdict = examine(VALUES, from_the_stored, seed)
        assert verdict.passed, verdict


def test_a_scale_below_zero_is_right_where_any_number_is() -> None:
    """The docstring allows any finite number for a scale of 0, and a stored minimum may lie above its whole group."""

    def counted_down(scale: float | None) -> Any:
        def values(v: torch.Tensor, bits: int, group_size: int) -> tuple[torch.Tensor, ...]:
            groups = v.view(*v.shape[:2], v.shape[2] // group_size, group_size)
            low, high = groups.amin(3), groups.amax(3)
            minima = low.half()
            if scale is None:
                scales = ((high - minima.float()) / (2**bits - 1)).half()
            else:
                scales = ((high - low) / (2**bits - 1)).half()
                scales = torch.where(scales == 0, torch.tensor(scale).half(), scales)
            divisor = torch.where(scales == 0, torch.inf, scales.float())
            codes = torch.round((groups - minima.float()[..., None]) / divisor[..., None]).clamp(0, 2**bits - 1)
            return codes.view(v.shape).to(torch.uint8), scales, minima

        return values

    for scale in (None, -1e-6, -3.0, 3.0):
        for seed in range(3):
            assert examine(VALUES, counted_down(scale), seed).passed, scale
    verdict = str(examine(VALUES, counted_down(-torch.inf), 0))
    assert "expected a finite number, got -inf" in verdict


def test_a_number_in_a_tensor_is_judged_at_its_own_precision() -> None:
    assert examine(BYTES, lambda *args: torch.tensor([BYTES.reference(*args)]), 0).passed
    assert not examine(BYTES, lambda *args: torch.tensor([BYTES.reference(*args) * (1 + 1e-6)]), 0).passed
    assert not examine(BYTES, lambda *args: BYTES.reference(*args) * (1 + 1e-8), 0).passed
    assert not examine(BYTES, lambda *args: torch.tensor([BYTES.reference(*args)]).half(), 0).passed


@pytest.mark.parametrize(
    ("guard", "place", "named"),
    [
        (lambda s: s.clamp(min=1e-5), torch.round, "scale_with_a_high_floor"),
        (lambda s: s + 1e-5, torch.round, "epsilon_added"),
        (lambda s: s + 1e-8, torch.round, "scale_with_a_floor"),
        (lambda s: torch.where(s > 0, s, 1.0), torch.floor, "cut_off"),
    ],
)
def test_natural_mistakes_with_keys_are_named(guard: Any, place: Any, named: str) -> None:
    def keys(k: torch.Tensor, bits: int, group_size: int) -> tuple[torch.Tensor, ...]:
        groups = k.reshape(k.shape[0], k.shape[1] // group_size, group_size, k.shape[2])
        low, high = groups.amin(2), groups.amax(2)
        scales = guard((high - low) / (2**bits - 1))
        codes = place((groups - low[:, :, None]) / scales[:, :, None])
        return codes.clamp(0, 2**bits - 1).reshape(k.shape).to(torch.uint8), scales, low

    assert examine(KEYS, keys, 0).mutant == named


def test_natural_mistakes_with_blocks_are_named() -> None:
    def blocks(w: torch.Tensor, block: int, split: Any, scale_dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        codes, scales = [], []
        for row in split(w, -(-len(w) // block), block, 0):
            parts = split(row, -(-w.shape[1] // block), block, 1)
            scales.append([(part.abs().max() / 448).to(scale_dtype).float().item() or 1.0 for part in parts])
            cast = [(part / s).clamp(-448, 448).to(TORCH["e4m3"]) for part, s in zip(parts, scales[-1], strict=True)]
            codes.append(torch.cat([one.view(torch.uint8) for one in cast], dim=1))
        return torch.cat(codes), torch.tensor(scales)

    def even(x: torch.Tensor, count: int, block: int, dim: int) -> Any:
        return x.tensor_split(count, dim)

    def cut(x: torch.Tensor, count: int, block: int, dim: int) -> Any:
        return x.split(block, dim)

    for split, dtype, named in (
        (cut, torch.float32, None),
        (even, torch.float32, "equal_splits"),
        (cut, torch.float16, "scales_through_16_bits"),
    ):
        verdict = examine(BLOCKS, lambda w, block, split=split, dtype=dtype: blocks(w, block, split, dtype), 0)
        assert verdict.mutant == named and verdict.passed is (named is None), verdict


def test_numpy_views_and_transposed_answers_are_right() -> None:
    def turned(k: torch.Tensor, bits: int, group_size: int) -> tuple[Any, ...]:
        codes, scales, minima = KEYS.reference(k, bits, group_size)
        return codes.transpose(1, 2).contiguous().transpose(1, 2), scales.numpy(), minima.numpy()[:]

    assert examine(KEYS, turned, 0).passed
    assert examine(BYTES, lambda *args: torch.tensor(BYTES.reference(*args), dtype=torch.float64), 0).passed


# --- what the open question says --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def task() -> str:
    cells = read(ROOT / "solutions" / "08_fp8_and_kv_cache.ipynb").cells
    [source] = [cell.source for cell in cells if cell.id == "kv_cache-defend"]
    return str(source)


def test_the_bytes_of_the_open_question(task: str) -> None:
    llama = {"num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128}
    llama["hidden_size"] = 8192
    numbers, tokens = 2 * 80 * 8 * 128, 131072
    memory = qlab.deploy.memory("Llama-3.1-70B", precision="fp8", batch=1, context=tokens)
    assert memory.weights / 1e9 == pytest.approx(72.7, abs=0.05) and memory.kv_cache == numbers * tokens * 2
    rows = re.findall(r"^\| ([^|]+) \| ([\d.]+) \| ([\d.]+) \| (\d+) \|$", task, re.MULTILINE)
    assert len(rows) == 7
    for name, bits, gigabytes, requests in rows:
        held = numbers * tokens * float(bits) / 8
        assert float(gigabytes) == pytest.approx(held / 1e9, abs=0.06), name
        assert int(requests) == int((160e9 - 72.7e9 - 8e9) // held), name
    for (key_bits, value_bits), bits in {(8, 8): 9, (4, 4): 5, (4, 2): 4, (2, 2): 3}.items():
        found = BYTES.reference(llama, tokens, key_bits, value_bits, 32, 32)
        assert found * 8 / numbers == pytest.approx(bits, rel=0.002)  # the window is in it
    assert 8 * (32 + 4) / 128 == 2.25  # one group for a head of 128


def test_the_damage_of_the_open_question(task: str) -> None:
    """The weights of nano decide these numbers: after another training the scheme has to be written anew."""
    [code] = re.findall(r"```python\n(.*?)```", task, re.DOTALL)
    scope: dict[str, Any] = {"torch": torch, "qlab": qlab}
    exec(code, scope)
    damage, prompt_kl = scope["damage"], scope["prompt_kl"]
    outliers = scope["with_outliers"](qlab.load("nano")[0])
    measure = {
        "FP8, keys and values": lambda m: prompt_kl(m, lambda: scope["float8_cache"](m), scope["ids"], chunk=16),
        "4 bits, keys per channel": lambda m: damage(m, 4, 4),
        "4 bits, keys per token": lambda m: damage(m, 4, 4, keys="token"),
        "keys 4 bits per channel, values 2 bits": lambda m: damage(m, 4, 2),
        "keys 2 bits per channel, values 4 bits": lambda m: damage(m, 2, 4),
        "2 bits, keys per channel": lambda m: damage(m, 2, 2),
        "2 bits, keys per token": lambda m: damage(m, 2, 2, keys="token"),
    }
    rows = dict(re.findall(r"^\| ([^|]+) \| ([\d.]+ \| [\d.]+) \|$", task, re.MULTILINE))
    for name, measured in measure.items():
        stated = [float(number) for number in rows[name].split(" | ")]
        found = [measured(model).value for model in (scope["model"], outliers)]
        assert found == pytest.approx(stated, rel=0.05), name

    model, ids = scope["model"], scope["ids"][:2]
    with torch.no_grad():
        cache = QuantizedCache(model.config, 2, 2, keys="token", residual=0)
        in_one_call = model(ids, past_key_values=cache, use_cache=True).logits
        assert torch.equal(in_one_call, model(ids, use_cache=False).logits), "one call reads nothing quantized"
