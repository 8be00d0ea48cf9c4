"""The commands from a name to a result: formats chosen, runs that resume after SIGKILL, nothing lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from qlab.models import jobs
from qlab.models.load import load

Family = Callable[..., PreTrainedModel]


@pytest.fixture
def checkpoint(family: Family, tmp_path: Path) -> Path:
    """A random Llama of many blocks that speaks nano's tokens."""
    _, tokenizer = load()
    sizes = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16, "num_hidden_layers": 24}
    folder = tmp_path / "checkpoint"
    model = family("llama", **sizes, vocab_size=len(tokenizer), max_position_embeddings=1024)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def recipe(**changes: Any) -> dict[str, Any]:
    return {"method": "rtn", "bits": None, "group_size": 16, "symmetric": None, "skip": ("lm_head",)} | changes


def test_what_is_written_is_what_was_measured(checkpoint: Path, tmp_path: Path) -> None:
    result = jobs.quantize(str(checkpoint), recipe(), out=str(tmp_path / "out"), examples=1, progress=False)
    assert result.format == "compressed-tensors" and result.folder == tmp_path / "out"
    assert "written to" in str(result) and result.to_dict()["written"]["format"] == "compressed-tensors"
    again, _ = load(tmp_path / "out")
    assert sum(layer.__class__.__name__ == "QuantLinear" for layer in again.modules()) == len(result.size.quantized)


@pytest.mark.parametrize(
    ("changes", "format"),
    [
        ({}, "compressed-tensors"),
        ({"bits": {"*.down_proj": 8}}, "compressed-tensors"),
        ({"bits": 3}, "gptq"),
        ({"symmetric": False}, "awq"),
        ({"symmetric": False, "bits": 8}, "gptq_v2"),
        ({"method": "hqq", "round_zeros": True}, "awq"),
        ({"method": "nf4"}, "bitsandbytes"),
    ],
)
def test_the_default_format_holds_the_recipe(changes: dict[str, Any], format: str) -> None:
    assert jobs.default_format(recipe(**changes)) == format


def test_bfloat16_models_get_scales_that_survive_in_them(family: Family, tmp_path: Path) -> None:
    _, tokenizer = load()
    model = family("llama", hidden_size=64, intermediate_size=128, head_dim=16, vocab_size=len(tokenizer))
    model.bfloat16().save_pretrained(tmp_path / "bf16")
    tokenizer.save_pretrained(tmp_path / "bf16")
    report = jobs.stream(str(tmp_path / "bf16"), str(tmp_path / "out"), None, recipe(), progress=False)
    tensors = load_file(report.folder / "model.safetensors")
    assert {t.dtype for name, t in tensors.items() if name.endswith("weight_scale")} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "awq"}, "format: it is that of the folder which --out names"),
        ({"calibration": "sql"}, "calibration: rtn looks at no data"),
        ({"out": "{used}"}, "folder: .* is not an empty folder"),
        ({"out": "{new}", "format": "awq"}, None),
        ({"out": "{new}", "format": "bitsandbytes"}, "bitsandbytes holds CodebookWeight only"),
    ],
)
def test_what_cannot_be_written_is_said_before_the_work(
    checkpoint: Path, tmp_path: Path, arguments: dict[str, Any], message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reached(Exception):
        pass

    def reached(*_: Any, **__: Any) -> None:
        raise Reached

    monkeypatch.setattr(jobs, "quantize_model", reached)
    places = {"used": str(checkpoint), "new": str(tmp_path / "new")}
    given = {key: value.format(**places) for key, value in arguments.items()}
    with pytest.raises(Reached if message is None else ValueError, match=message):
        jobs.quantize(str(checkpoint), recipe(), progress=False, **given)
    assert not (tmp_path / "new").exists()


def test_a_prompt_is_answered_at_every_width(checkpoint: Path) -> None:
    shown = jobs.generate("nano", None, [16, 8, 2], {"method": "rtn", "group_size": "channel"}, tokens=12)
    assert [answer.label for answer in shown.answers] == ["16 bits", "8 bits", "2 bits"]
    held = [answer.bytes_held for answer in shown.answers]
    assert held == sorted(held, reverse=True)
    assert shown.answers[0].same is None and shown.answers[1].same is None and shown.answers[2].same is not None
    assert all(0 < answer.tokens <= 12 for answer in shown.answers)
    assert shown.to_dict()["prompt"] == shown.prompt


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_ten_kills_at_random_moments_change_nothing(checkpoint: Path, tmp_path: Path) -> None:
    """`qlab quantize --method gptq` is killed ten times; what the eleventh run writes equals an uninterrupted run's."""
    settings = ["--method", "gptq", "--bits", "4", "--group-size", "16", "--calibration", "sql", "--examples", "1"]
    command = [sys.executable, "-m", "qlab.cli", "quantize", str(checkpoint), *settings, "--out"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run([*command, str(whole)], check=True, capture_output=True, env=environment)

    moments = random.Random(0)
    blocks = tmp_path / ".cut.blocks"
    survivors = []
    for _ in range(10):
        process = subprocess.Popen(
            [*command, str(cut)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
        )
        # When this run has finished a block, somewhere in the work on the next ones.
        before = len(list(blocks.glob("block-*.safetensors")))
        while process.poll() is None and len(list(blocks.glob("block-*.safetensors"))) <= before:
            time.sleep(0.002)
        time.sleep(moments.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        survivors.append(len(list(blocks.glob("block-*.safetensors"))))
    assert survivors == sorted(set(survivors)) and survivors[-1] < 24, survivors
    subprocess.run([*command, str(cut)], check=True, capture_output=True, env=environment)

    a, b = (load_file(folder / "model.safetensors") for folder in (whole, cut))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    texts = [(folder / "config.json").read_text() for folder in (whole, cut)]
    assert texts[0] == texts[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "cut", "whole"]
