"""Plain values survive the way through a file; everything else is refused by one kind of error."""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from qlab.learn.grade import exchange
from qlab.learn.observe import Foreign, Observation
from qlab.learn.question import Case

DTYPES = [torch.bool, torch.uint8, torch.int8, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64]


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    made = torch.randn(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 9)))) * 100
    made = made.clone().to(draw(st.sampled_from(DTYPES)))
    if made.is_floating_point() and made.numel():
        made.view(-1)[0] = draw(st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 1.5]))
    return made.t() if made.ndim == 2 and draw(st.booleans()) else made


leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.builds(Foreign, st.text("abc.", min_size=1, max_size=9))
    | tensors()
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
observations = st.lists(
    st.builds(
        Observation,
        st.sampled_from(["value", "error", "not attempted"]),
        values,
        st.text("ab \n", max_size=9),
        st.booleans(),
    ),
    max_size=3,
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        raw = [x.contiguous().view(-1).view(torch.uint8) if x.numel() else x for x in (a, b)]  # bit by bit
        return a.dtype == b.dtype and a.shape == b.shape and bool(torch.equal(*raw))
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, float):
        return type(b) is float and (a.hex() == b.hex())
    return type(a) is type(b) and a == b


def read(name: str, folder: Path) -> list[Observation]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        return exchange.read_observations(name, handle)
    finally:
        os.close(handle)


@given(observations)
def test_observations_come_back_as_they_were(rows: list[Observation]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        exchange.write_observations(Path(folder), "a", rows)
        back = read("a", Path(folder))
    assert [(row.kind, row.message, row.changed_input) for row in back] == [
        (row.kind, row.message, row.changed_input) for row in rows
    ]
    assert all(same(row.value, other.value) for row, other in zip(rows, back, strict=True))


@given(st.lists(values, max_size=4).map(tuple))
def test_cases_come_back_without_their_names(args: tuple[Any, ...]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        exchange.write_cases(Path(folder), "a", [Case("what is tested", args)])
        assert b"what is tested" not in (Path(folder) / "a.safetensors").read_bytes()
        [back] = exchange.read_cases(Path(folder), "a")
    assert same(back.args, args)


def packed(tree: Any, tensors: dict[str, torch.Tensor] | None = None) -> bytes:
    return save(tensors or {}, metadata={"tree": tree if isinstance(tree, str) else json.dumps(tree)})


def row(value: Any) -> bytes:
    return packed({"schema": exchange.SCHEMA, "observations": [["value", value, "", False]]})


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        b"\xff" * 64,
        (2**62).to_bytes(8, "little") + b"{}",
        packed("nonsense"),
        packed([1]),
        packed({"schema": "another"}),
        packed({"schema": exchange.SCHEMA}),
        packed({"schema": exchange.SCHEMA, "observations": 3}),
        packed({"schema": exchange.SCHEMA, "observations": [3]}),
        packed({"schema": exchange.SCHEMA, "observations": [["passed", 1, "", False]]}),
        packed({"schema": exchange.SCHEMA, "observations": [["value", 1, "", 0]]}),
        packed(f'{{"schema": "{exchange.SCHEMA}", "observations": {DEEP}}}'),
        packed(f'{{"schema": "{exchange.SCHEMA}", "observations": [["value", NaN, "", false]]}}'),
        packed(f'{{"schema": "{exchange.SCHEMA}", "observations": [["value", {"9" * 5000}, "", false]]}}'),
        row({"tensor": "missing"}),
        row({"tensor": ["0"]}),
        row({"float": "1.0"}),
        row({"float": "nan", "more": 1}),
        row({"dict": [["a", 1, 2]]}),
        row({"dict": [[1, 2]]}),
        row({"pickle": "cos\nsystem"}),
        row({}),
        row([[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]),
        row([0] * 30_000),
        save({"0": torch.zeros(2)}),
        b"x" * (exchange.MAX_BYTES + 1),
    ],
    ids=range(27),
)
def test_what_is_not_an_exchange_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(exchange.ExchangeError):
        read("a", tmp_path)


@given(st.binary(max_size=200), st.integers(0, 150))
def test_damaged_file_is_refused_or_readable(noise: bytes, at: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.safetensors"
        exchange.write_observations(Path(folder), "a", [Observation("value", (torch.arange(9), 1.5, {"k": None}))])
        good = file.read_bytes()
        file.write_bytes(good[:at] + noise + good[at + len(noise) :])
        with contextlib.suppress(exchange.ExchangeError):
            read("a", Path(folder))


def test_whole_numbers_beyond_64_bits_are_foreign(tmp_path: Path) -> None:
    exchange.write_observations(tmp_path, "a", [Observation("value", 10**5000)])
    assert read("a", tmp_path)[0].value == Foreign("int beyond 64 bits")
    (tmp_path / "a.safetensors").write_bytes(row(2**63))
    assert read("a", tmp_path)[0].value == Foreign("int beyond 64 bits")


def test_odd_tensors_are_foreign_and_others_are_refused(tmp_path: Path) -> None:
    odd = [torch.zeros(2, dtype=torch.complex64), torch.eye(3).to_sparse()]
    exchange.write_observations(tmp_path, "a", [Observation("value", value) for value in odd])
    assert all(isinstance(seen.value, Foreign) for seen in read("a", tmp_path))
    with pytest.raises(exchange.ExchangeError, match="object is not a plain value"):
        exchange.write_observations(tmp_path, "a", [Observation("value", object())])


def test_too_much_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(exchange.ExchangeError, match="allowed"):
        exchange.write_observations(tmp_path, "a", [Observation("value", torch.zeros(exchange.MAX_BYTES))])
    assert list(tmp_path.iterdir()) == []


def test_only_plain_files_are_read(tmp_path: Path) -> None:
    exchange.write_observations(tmp_path, "good", [])
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "good.safetensors")
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    for name in ("link", "pipe", "folder"):
        with pytest.raises(exchange.ExchangeError, match="plain file"):
            read(name, tmp_path)
    with pytest.raises(FileNotFoundError):
        read("none", tmp_path)
