from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from qlab.deploy import ModelSpec, names, spec
from qlab.deploy.models import DATA, NANO, read_models

LLAMA = {
    "model_type": "llama",
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 48,
    "tie_word_embeddings": True,
}


def _folder(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "config.json").write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("written", ["Llama-3-70B", "llama-3-70b", " LLAMA_3 70B "])
def test_names_in_any_case(written: str) -> None:
    assert spec(written).name == "Llama-3-70B"


def test_a_spec_comes_back_as_it_is() -> None:
    model = spec("GPT-2")
    assert spec(model) is model


def test_folder_file_dict_and_object_agree(tmp_path: Path) -> None:
    class Config:
        def to_dict(self) -> dict[str, Any]:
            return LLAMA

    folder = _folder(tmp_path / "tiny", json.dumps(LLAMA))
    found = [spec(folder), spec(str(folder)), spec(folder / "config.json"), spec(LLAMA), spec(Config())]
    assert [model.name for model in found] == ["tiny", "tiny", "tiny", "llama", "llama"]
    attention, mlp = 64 * 64 * 2 + 2 * 64 * 32, 3 * 64 * 96
    expected = 2 * (attention + mlp + 2 * 64) + 64 + 320 * 64
    assert {model.parameters for model in found} == {expected}


@pytest.mark.skipif(not (NANO / "model.safetensors").is_file(), reason="the embedded model has not been trained yet")
def test_nano_counts_equal_its_weight_file() -> None:
    with (NANO / "model.safetensors").open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        tensors = json.loads(file.read(length))
    tensors.pop("__metadata__", None)
    held = 0
    for tensor in tensors.values():
        size = 1
        for extent in tensor["shape"]:
            size *= extent
        held += size
    assert spec("nano").parameters == held
    assert spec("Nano").name == "nano"


def test_nano_is_offered() -> None:
    assert names()[0] == "nano"
    assert "Llama-3-70B" in names()


@pytest.mark.parametrize("asked", ["Lama-3-70B", "meta-llama/Llama-3-70B", "llama3-70b"])
def test_an_unknown_name_gets_a_suggestion(asked: str) -> None:
    with pytest.raises(ValueError, match=r"did you mean .*Llama-3-70B.*config\.json"):
        spec(asked)


@pytest.mark.parametrize("asked", ["zzz", "", "./no/such/folder"])
def test_a_hopeless_name_gets_the_list(asked: str) -> None:
    with pytest.raises(ValueError, match=r"no known model.*choose from nano, .*Llama-3-70B"):
        spec(asked)


@pytest.mark.parametrize("asked", [None, 7, ["Llama-3-70B"]])
def test_other_types_are_refused(asked: object) -> None:
    with pytest.raises(TypeError, match="model: got"):
        spec(asked)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a JSON file"),
        ("", "not a JSON file"),
        ("[1, 2]", "holds a list"),
        ("{}", "no field 'model_type'"),
        (json.dumps({**LLAMA, "hidden_size": None}), "no field 'hidden_size'"),
        (json.dumps({**LLAMA, "model_type": "t5"}), "of type 't5'"),
    ],
)
def test_a_broken_config_is_explained(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spec(_folder(tmp_path / "broken", text))


def test_a_config_that_is_not_text(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "binary", "")
    (folder / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a JSON file"):
        spec(folder)


def test_a_folder_without_config(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no config\.json"):
        spec(tmp_path)


def _data(path: Path, **changes: Any) -> Path:
    entry = json.loads(DATA.read_text(encoding="utf-8"))["models"]["GPT-2"] | changes
    entry = {field: value for field, value in entry.items() if value is not None}
    file = path / "models.json"
    file.write_text(json.dumps({"models": {"GPT-2": entry}}), encoding="utf-8")
    return file


def test_data_file_reads(tmp_path: Path) -> None:
    found = read_models(_data(tmp_path))
    assert isinstance(found["GPT-2"], ModelSpec)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": None}, "GPT-2 misses 'source'"),
        ({"source": ""}, "GPT-2 has no source"),
        ({"date": None}, "GPT-2 misses 'date'"),
        ({"date": "1826"}, "GPT-2 has the date '1826'"),
        ({"confidence": None}, "GPT-2 misses 'confidence'"),
        ({"layers": None}, "GPT-2 misses 'layers'"),
        ({"colour": "red"}, "GPT-2 has unknown 'colour'"),
        ({"layers": -1}, r"models\.json: the entry of GPT-2: layers: GPT-2 has -1"),
        ({"experts": {"routed": 8}}, "GPT-2: experts misses 'active'"),
        ({"latent": {"rank": 8}}, "GPT-2: latent misses 'kv_lora_rank'"),
    ],
)
def test_incomplete_data_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_models(_data(tmp_path, **changes))
