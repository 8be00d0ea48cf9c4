"""load: the embedded model, folders, and everything that is not a model."""

import shutil
import subprocess
import sys

import pytest
import torch
from huggingface_hub import constants

from qlab.models.load import NANO, load


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(NANO, tmp_path / "model")
    return tmp_path / "model"


def test_nano_is_the_default(capfd):
    model, tokenizer = load()
    assert model.config.model_type == "llama" and not model.training
    assert model.dtype == torch.float32
    assert tokenizer("347+285=")["input_ids"][0] == tokenizer.bos_token_id
    assert capfd.readouterr().err == ""


def test_dtype_is_honored():
    assert load(dtype=torch.bfloat16)[0].dtype == torch.bfloat16


def test_a_folder_loads_like_nano(folder):
    ours, theirs = load()[0], load(folder)[0]
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_plain_transformers_load_nano_without_qlab(tmp_path):
    program = f"""
import sys
sys.modules["qlab"] = None  # importing qlab would now fail
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained({str(NANO)!r})
model = AutoModelForCausalLM.from_pretrained({str(NANO)!r})
ids = tokenizer("12+30=", return_tensors="pt")["input_ids"]
print(tokenizer.decode(model.generate(ids, max_new_tokens=3, do_sample=False)[0, ids.shape[1]:]))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "42<|end|>"


def test_truncated_weights(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(ValueError, match="damaged or cut off"):
        load(folder)


def test_a_folder_that_is_not_a_model(tmp_path):
    with pytest.raises(ValueError, match=r"no config\.json"):
        load(tmp_path)


def test_broken_config(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        load(folder)


def test_unknown_architecture(folder):
    (folder / "config.json").write_text('{"model_type": "no-such-thing"}')
    with pytest.raises(ValueError, match="could not be loaded"):
        load(folder)


def test_pickled_weights_are_not_read(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="safetensors"):
        load(folder)


def test_missing_folder_and_file(folder):
    with pytest.raises(ValueError, match="no folder"):
        load(folder / "nowhere")
    with pytest.raises(ValueError, match="is a file"):
        load(folder / "config.json")


@pytest.mark.parametrize("name", ["nanno", "nobody/nothing", "a/b/c"])
def test_unknown_name_without_network(name, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://localhost:9")  # nobody listens there
    with pytest.raises(ValueError, match=f"'{name}' is not 'nano'.*spelling"):
        load(name)
