"""Open a model by name: the embedded one, a local folder, or a name on the Hugging Face hub."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import get_session
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from .exported import load_exported, settings_of

NANO = Path(__file__).parent / "nano"


def load(
    name_or_path: str | Path = "nano", dtype: torch.dtype | str = torch.float32
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model in evaluation mode, with its tokenizer.

    Args:
        name_or_path: "nano" (the embedded model), a folder with Hugging Face files, or a hub name.
            Only a hub name may use the network. Weights are read from safetensors, never from pickles.
            A folder of `qlab.export` comes back with packed `QuantLinear` layers.
        dtype: the floating-point type of the loaded weights, or "auto" for the one they are stored in.
            Quantized weights stay as they are stored.

    Raises:
        ValueError: the folder holds no model, a file is damaged, or the name cannot be found.
    """
    source = NANO if name_or_path == "nano" else Path(name_or_path)
    local = source.is_dir()
    offline = local
    if local:
        _check_folder(source)
    elif source.exists():
        raise ValueError(f"name_or_path: {source} is a file; give the folder that holds it")
    elif source.is_absolute() or str(name_or_path).startswith((".", "~")):
        raise ValueError(f"name_or_path: there is no folder {source}")
    else:
        offline = not _hub_answers()
        if offline and not _is_cached(str(name_or_path)):
            raise ValueError(
                f"name_or_path: {str(name_or_path)!r} is not 'nano' and not a folder here, and the hub cannot be "
                "reached to look for it; check the spelling and the network, or give a folder"
            )
    name = str(source) if local else str(name_or_path)

    # The loading bars and notices of transformers go to stderr, where a notebook under test may not write.
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        if local and settings_of(source) is not None:
            model = load_exported(source, dtype)
        else:
            model = AutoModelForCausalLM.from_pretrained(
                name, dtype=dtype, use_safetensors=True, local_files_only=offline
            )
        tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=offline)
    except SafetensorError as error:
        raise ValueError(
            f"name_or_path: a safetensors file in {name} is damaged or cut off ({error}); copy or download it again"
        ) from error
    except (OSError, ValueError) as error:
        if str(error).startswith("name_or_path:"):
            raise
        if local:
            raise ValueError(f"name_or_path: {name} could not be loaded: {_first_line(error)}") from error
        raise ValueError(
            f"name_or_path: {name!r} is not 'nano', not a folder here, and the hub did not give it; "
            f"check the spelling and the network, or give a folder ({_first_line(error)})"
        ) from error
    return model.eval(), tokenizer


def _hub_answers() -> bool:
    """One short request: without it, a machine with no network repeats every download for half a minute."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # whatever a proxy, a resolver or a certificate can raise
        return False
    return True


def _is_cached(name: str) -> bool:
    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError:
        return False


def _check_folder(folder: Path) -> None:
    config = folder / "config.json"
    if not config.is_file():
        raise ValueError(f"name_or_path: {folder} is not a model folder: it has no config.json")
    try:
        json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"name_or_path: {config} is not valid JSON ({error})") from error
    if not any(folder.glob("*.safetensors")):
        raise ValueError(f"name_or_path: {folder} has no *.safetensors file; other weight formats are not read")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
