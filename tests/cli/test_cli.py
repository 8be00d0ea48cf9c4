"""The command line, called in this process on a tiny model, and once as a real command."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import qlab
from qlab.cli import output
from qlab.models import jobs
from qlab.models.load import NANO

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama of one layer and the tokenizer of nano."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny")
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).half().save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(NANO / name, folder)
    return folder


def document(text: str) -> Any:
    """The one JSON document that a text holds; NaN and Infinity, which JSON does not have, are refused."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_version_and_help(run: Run) -> None:
    assert run("--version") == (0, f"qlab {qlab.__version__}\n", "")
    for arguments in ([], ["--help"]):
        code, out, err = run(*arguments)
        assert code == 0 and err == ""
        assert all(name in out for name in ("doctor", "memory", "quantize", "eval"))


def test_doctor_in_words_and_as_json(run: Run) -> None:
    code, out, err = run("doctor")
    assert code == 0 and err == ""
    assert "Python" in out and "Lessons and exercises" in out and "live" in out
    code, out, _ = run("doctor", "--json")
    assert code == 0
    assert document(out)["cores"] >= 1


def test_memory_gives_the_numbers_of_the_library(run: Run) -> None:
    arguments = ["Llama-3-70B", "--precision", "int4-g128", "--batch", "8", "--context", "2048", "--kv-bits", "8"]
    expected = qlab.deploy.memory("Llama-3-70B", "int4-g128", batch=8, context=2048, kv_bits=8)
    code, out, err = run("memory", *arguments, "--json")
    assert code == 0 and err == ""
    assert document(out) == json.loads(json.dumps(expected.to_dict()))
    code, out, _ = run("memory", *arguments)
    assert code == 0
    assert out == f"{expected}\n"


def test_memory_says_where_it_fits_and_what_to_rent(run: Run) -> None:
    arguments = ["memory", "Llama-3-70B", "--batch", "16", "--kv-bits", "4", "--kv-group-size", "32"]
    code, out, err = run(*arguments, "--gpu", "p4d.24xlarge", "--rent", "--json")
    assert code == 0, err
    found = document(out)
    asked = {"batch": 16, "kv_bits": 4, "kv_group_size": 32, "context": 4096}
    assert found["fit"] == json.loads(json.dumps(qlab.deploy.fits("Llama-3-70B", "p4d.24xlarge", **asked).to_dict()))
    assert found["tensor_parallel"] == 8
    best = qlab.deploy.smallest_instance("Llama-3-70B", **asked)
    assert best is not None and found["rent"]["instance"] == best.instance.name
    code, out, _ = run(*arguments, "--gpu", "H100-80GB", "--rent")
    assert code == 0
    assert "on one H100-80GB: fits." in out and "activations" in out
    assert f"{best.instance.name}, " in out and "Prices are of " in out and "days old" in out
    code, out, _ = run("memory", "DeepSeek-V3", "--precision", "fp32", "--rent")
    assert code == 0 and "None of the instances" in out
    code, out, _ = run("memory", "DeepSeek-V3", "--precision", "fp32", "--rent", "--json")
    assert code == 0 and document(out)["rent"] is None


def test_memory_takes_the_model_s_context_where_4096_is_too_long(run: Run) -> None:
    assert document(run("memory", "nano", "--json")[1])["context"] == 1024
    assert document(run("memory", "GPT-2", "--context", "2048", "--extended", "--json")[1])["context"] == 2048


def test_quantize_reports_size_and_damage(run: Run, tiny: Path) -> None:
    arguments = ["quantize", str(tiny), "--bits", "4", "--group-size", "channel", "--examples", "2"]
    code, out, err = run(*arguments, "--json")
    assert code == 0, err
    result = document(out)
    size = result["quantization"]
    assert size["bytes_before"] == pytest.approx((tiny / "model.safetensors").stat().st_size, rel=0.05)
    assert size["bytes_after"] < size["bytes_before"]
    # One 16-bit scale for each row of 32 weights, or of 64 in the seventh matrix.
    assert 4 + 16 / 64 < size["bits_per_weight"] < 4 + 16 / 32
    assert result["evaluation"]["kl"]["value"] > 0
    code, out, _ = run(*arguments)
    assert code == 0
    assert (
        f"{size['bytes_before']:,} bytes before" in out
        and "perplexity, prose" in out
        and "against the reference" in out
    )


def test_quantize_options_reach_the_library(run: Run, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def refuse(model: object, **options: Any) -> None:
        seen.update(options)
        raise ValueError("far enough")

    monkeypatch.setattr(jobs, "quantize_model", refuse)
    words = ["--bits", "3", "--group-size", "64", "--asymmetric", "--skip", "down_proj", "--skip", "*.q_proj"]
    assert run("quantize", str(tiny), *words)[2] == "error: far enough\n"
    expected = {"method": "rtn", "bits": 3, "group_size": 64, "symmetric": False, "skip": ("down_proj", "*.q_proj")}
    assert seen == expected | {"progress": False}  # stdout is no terminal here
    run("quantize", str(tiny), "--group-size", "tensor", "--option", "scale_dtype=1")
    assert (seen["group_size"], seen["skip"], seen["scale_dtype"]) == ("tensor", ("lm_head",), 1)
    run(
        "quantize",
        str(tiny),
        "--method",
        "gptq",
        "--bits",
        "*.down_proj=8",
        "--bits",
        "o_proj=3",
        "--calibration",
        "sql",
    )
    assert seen["bits"] == {"*.down_proj": 8, "o_proj": 3} and seen["calibration"] == "sql"
    run("quantize", str(tiny), "--method", "gptq", "--option", "act_order=true")
    assert seen["calibration"] == "mix" and seen["act_order"] is True and "resume" not in seen


def test_a_written_model_is_evaluated_like_any_other(run: Run, tiny: Path, tmp_path: Path) -> None:
    folder = str(tmp_path / "small")
    words = ["--group-size", "8", "--examples", "1", "--out", folder]
    code, out, err = run("quantize", str(tiny), *words)
    assert (code, err) == (0, "") and f"written to {folder} in the format compressed-tensors" in out
    code, out, err = run("eval", folder, "--examples", "1", "--json")
    assert (code, err) == (0, "") and document(out)["evaluation"]["accuracy"]["sql"]["value"] == 0
    code, _, err = run("quantize", str(tiny), *words)
    assert code == 2 and "is not an empty folder" in err


def test_streaming_writes_the_same_folder(run: Run, tiny: Path, tmp_path: Path) -> None:
    code, out, err = run(
        "quantize", str(tiny), "--stream", "--method", "rtn", "--group-size", "8", "--out", str(tmp_path / "a")
    )
    assert (code, err) == (0, "") and "linear layers quantized" in out
    run("quantize", str(tiny), "--group-size", "8", "--examples", "1", "--out", str(tmp_path / "b"))
    for name in ("config.json", "README.md", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    code, out, _ = run("quantize", str(tiny), "--stream", "--group-size", "8", "--out", str(tmp_path / "c"), "--json")
    assert document(out)["folder"] == str(tmp_path / "c")


def test_generate_shows_widths_side_by_side(run: Run, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    words = ["--prompt", "question: ", "--group-size", "8", "--tokens", "5"]
    code, out, err = run("generate", str(tiny), *words)
    assert (code, err) == (0, "")
    assert all(f"{width} bits" in out for width in (16, 8, 4, 3)) and "prompt: question:" in out
    code, out, err = run("generate", str(tiny), *words, "--bits", "16,2", "--json")
    assert [answer["label"] for answer in document(out)["answers"]] == ["16 bits", "2 bits"]


@pytest.fixture
def ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a device that nobody has to measure."""
    from qlab.bench import kernels
    from qlab.bench.ceilings import Ceilings

    found = Ceilings(1e10, 1e10, {"bfloat16": 1e11, "float32": 1e11, "int8": 1e11}, 1e-6)
    monkeypatch.setattr(kernels, "ceilings", lambda device, stopwatch, budget: found)


BENCH = ("bench", "--device", "cpu", "--quick", "--shapes", "32x64,64", "--kernels", "dense,torch-int8")


def test_bench_prints_rows_and_writes_them(run: Run, tmp_path: Path, ceilings: None) -> None:
    path = str(tmp_path / "a.json")
    code, out, err = run(*BENCH, "--tokens", "1,3", "--out", path)
    assert (code, err) == (0, "")
    assert "Ceilings: copy 10.0 GB/s" in out and "32 x 64 (out x in)" in out and f"Written to {path}." in out
    assert sum(line.startswith(("dense ", "torch-int8 ")) for line in out.splitlines()) == 8 + 4  # rows and summaries
    code, again, _ = run(*BENCH, "--tokens", "1,3", "--out", path)
    assert code == 0 and "Going on: 8 rows are in the file." in again
    code, out, _ = run(*BENCH, "--tokens", "1,3", "--out", path, "--json")
    assert document(out) == document(Path(path).read_text()) and len(document(out)["rows"]) == 8
    code, out, err = run(*BENCH, "--tokens", "1", "--out", path)
    assert (code, out) == (2, "") and "settings.tokens: 1,3 there, 1 here" in err and "delete it" in err


def test_bench_compares_two_files(run: Run, tmp_path: Path, ceilings: None) -> None:
    paths = [str(tmp_path / name) for name in ("a.json", "b.json")]
    for path in paths:
        assert run(*BENCH, "--tokens", "1", "--out", path)[0] == 0
    code, out, err = run("bench", "--compare", *paths)
    assert (code, err) == (0, "") and "times as fast" in out and "the quartiles overlap" in out
    assert "…" not in out, "a narrow terminal cuts nothing off"
    code, out, _ = run("bench", "--compare", *paths, "--json")
    assert len(document(out)["changes"]) == 4 and document(out)["differences"] == []


def test_progress_in_words_and_as_json(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qlab.learn import status
    from qlab.learn.progress import Event, record

    monkeypatch.setenv("QLAB_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")  # a narrow terminal cuts nothing off
    record(Event("linear.clamp", "check", outcome="failed"))
    record(Event("linear.clamp", "check", outcome="passed"))
    record(Event("memory.parameters", "hint", hint=2))
    code, out, err = run("progress")
    assert code == 0 and err == ""
    assert "01_memory_math: 0 of 7 passed" in out and "02_linear: 1 of 9 passed  [##...." in out
    rows = [line.split() for line in out.splitlines()]
    assert ["linear.clamp", "passed", "2", "0", "not", "seen", "0"] in rows
    assert ["memory.parameters", "not", "attempted", "0", "1", "not", "seen", "0"] in rows
    assert rows == [line.split() for line in str(status()).splitlines()]
    code, out, err = run("progress", "--json")
    assert (code, err) == (0, "")
    found = document(out)
    passed = [one["passed"] for one in found["sets"]]
    assert passed[:2] == [0, 1] and sum(passed) == 1 and found["note"] == ""
    assert found["sets"][0]["questions"][0]["hints"] == 1


def test_progress_that_is_damaged_or_closed(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QLAB_HOME", str(tmp_path))
    (tmp_path / "progress.db").write_bytes(b"garbage")
    code, out, err = run("progress", "--json")
    assert code == 0 and document(out)["sets"]
    assert "set aside" in err
    (tmp_path / "progress.db").write_bytes(b"garbage")
    code, out, err = run("progress")
    assert code == 0 and err == "" and "set aside" in out and "linear.clamp" in out
    (tmp_path / "progress.db").unlink()
    (tmp_path / "progress.db").mkdir()
    code, out, err = run("progress")
    assert code == 0 and err == "" and "could not be read" in out and "linear.clamp" in out


def test_progress_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not output.wants_progress(as_json=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert output.wants_progress(as_json=False) and not output.wants_progress(as_json=True)


def test_eval_has_no_nan_where_a_spread_is_undefined(run: Run, tiny: Path) -> None:
    code, out, err = run("eval", str(tiny), "--examples", "1", "--json")
    assert code == 0, err
    assert document(out)["evaluation"]["accuracy"]["arithmetic"]["stderr"] is None
    code, out, _ = run("eval", str(tiny), "--examples", "2")
    assert code == 0 and "accuracy, arithmetic" in out


def test_json_replaces_what_json_does_not_have(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"a": [math.nan, 1.5], "b": {"c": (math.inf,)}})
    assert document(capsys.readouterr().out) == {"a": [None, 1.5], "b": {"c": [None]}}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["frobnicate"], "frobnicate"),
        (["memory", "--frob"], "--frob"),
        (["memory", "--batch", "many"], "--batch"),
        (["memory", "Llama-9"], "Llama-3-8B"),
        (["memory", "--precision", "int9"], "precision"),
        (["memory", "--context", "-1"], "context"),
        (["memory", "Llama-3-70B", "--context", "9000"], "Llama-3.1-70B"),
        (["memory", "Llama-3-70B", "--context", "9000", "--rent"], "Llama-3.1-70B"),
        (["memory", "Llama-3-70B", "--gpu", "A100-90GB"], "A100-80GB"),
        (["memory", "Llama-3-70B", "--gpu", "p4d.xlarge"], "p4d.24xlarge"),
        (["memory", "Llama-3-70B", "--tensor-parallel", "3"], "tensor_parallel"),
        (["eval", "/no/such/folder"], "no folder"),
        (["eval", "no-such-model"], "no-such-model"),
        (["eval", "{tiny}", "--examples", "0"], "examples"),
        (["quantize", "{tiny}", "--bits", "9"], "bits"),
        (["quantize", "{tiny}", "--group-size", "0"], "group_size"),
        (["quantize", "{tiny}", "--group-size", "-4"], "group_size"),
        (["quantize", "{tiny}", "--group-size", "row"], "group_size"),
        (["quantize", "{tiny}", "--bits", "four"], "bits"),
        (["quantize", "{tiny}", "--bits", "4", "--bits", "8"], "bits"),
        (["quantize", "{tiny}", "--option", "act_order=?"], "option"),
        (["quantize", "{tiny}", "--method", "gptq", "--option", "act_order=yes"], "options"),
        (["quantize", "{tiny}", "--option", "act_order=true"], "options"),
        (["quantize", "{tiny}", "--stream"], "out"),
        (["quantize", "{tiny}", "--format", "gptq"], "format"),
        (["quantize", "{tiny}", "--out", "{tiny}"], "folder"),
        (["generate", "{tiny}", "--bits", "16;8"], "bits"),
        (["generate", "{tiny}", "--prompt", ""], "prompt"),
        (["quantize", "{tiny}", "--method", "magic"], "method"),
        (["bench", "--device", "tpu"], "device"),
        (["bench", "--device", "cpu", "--shapes", "9b"], "shapes"),
        (["bench", "--device", "cpu", "--tokens", "1,x"], "tokens"),
        (["bench", "--device", "cpu", "--tokens", "0"], "tokens"),
        (["bench", "--device", "cpu", "--kernels", "magic"], "kernels"),
        (["bench", "--context", "0"], "context"),
        (["bench", "--compare", "{tiny}/config.json", "{tiny}/config.json"], "schema"),
        (["bench", "--compare", "no.json", "none.json"], "no.json"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_exit_code_2(run: Run, tiny: Path, arguments: list[str], says: str) -> None:
    code, out, err = run(*(argument.format(tiny=tiny) for argument in arguments))
    assert code == 2
    assert out == ""
    assert err.startswith("error: ") and err.count("\n") == 1
    assert says in err


def test_damaged_models_are_refused_without_a_traceback(run: Run, tiny: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "config.json" in run("eval", str(empty))[2]
    cut = tmp_path / "cut"
    shutil.copytree(tiny, cut)
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    code, out, err = run("quantize", str(cut), "--json")
    assert (code, out) == (2, "")
    assert "safetensors" in err and err.count("\n") == 1


def test_the_real_command() -> None:
    command = [sys.executable, "-m", "qlab.cli", "memory", "Llama-9"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == "" and done.stderr.startswith("error: model:") and "Traceback" not in done.stderr
