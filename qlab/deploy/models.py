"""Find a model's dimensions: by name in the data file, from a folder, from a config. Never from the network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from typing import Any

from .config import from_config
from .shapes import Experts, LatentAttention, ModelSpec

DATA = Path(__file__).parent / "data" / "models.json"
NANO = Path(__file__).parent.parent / "models" / "nano"


def spec(name_or_path_or_config: Any) -> ModelSpec:
    """The dimensions of a model.

    Args:
        name_or_path_or_config: a name from `names()` in any case, "nano" for the embedded model, a folder with a
            `config.json` or that file itself, the config as a dict or as an object with `to_dict()` (transformers),
            or a ModelSpec, which comes back as it is.

    Raises:
        TypeError: it is none of these.
        ValueError: the name is unknown, or the config is missing, broken, or of an unknown architecture.
    """
    asked = name_or_path_or_config
    if isinstance(asked, ModelSpec):
        return asked
    if isinstance(asked, Mapping):
        return from_config(asked)
    if isinstance(asked, str | Path):
        return _find(asked)
    if callable(getattr(asked, "to_dict", None)):
        return from_config(asked.to_dict())
    raise TypeError(f"model: got {type(asked).__name__}; give a name, a path, a config or a ModelSpec")


def names() -> list[str]:
    """The models that `spec` knows by name."""
    return ["nano", *_known().values()]


def read_models(path: Path) -> dict[str, ModelSpec]:
    """The models of a data file by name. Raises ValueError for an entry that is incomplete or has no source."""
    models = {}
    for name, entry in json.loads(path.read_text(encoding="utf-8"))["models"].items():
        wrong = [f"misses {field!r}" for field in sorted(_REQUIRED - entry.keys())]
        wrong += [f"has unknown {field!r}" for field in sorted(entry.keys() - _ALLOWED)]
        if wrong:
            raise ValueError(f"{path.name}: the entry of {name} {' and '.join(wrong)}")
        parts = dict(entry)
        if "latent" in parts:
            parts["latent"] = LatentAttention(**parts["latent"])
        if "experts" in parts:
            parts["experts"] = Experts(**parts["experts"])
        models[name] = ModelSpec(name=name, **parts)
    return models


_REQUIRED = {field.name for field in fields(ModelSpec) if field.default is MISSING} - {"name"} | {"confidence"}
_ALLOWED = {field.name for field in fields(ModelSpec)} - {"name"}


@cache
def _models() -> dict[str, ModelSpec]:
    return read_models(DATA)


@cache
def _known() -> dict[str, str]:
    """Names as they are compared, to names as they are written."""
    return {_plain(name): name for name in _models()}


def _plain(name: str) -> str:
    return name.strip().casefold().replace(" ", "-").replace("_", "-")


def _find(asked: str | Path) -> ModelSpec:
    if isinstance(asked, str):
        if _plain(asked) == "nano":
            return from_config(_read(NANO / "config.json"), source="the embedded model's config.json", name="nano")
        if _plain(asked) in _known():
            return _models()[_known()[_plain(asked)]]
    path = Path(asked).expanduser()
    if path.is_dir() and asked != "":
        config = path / "config.json"
        if not config.is_file():
            raise ValueError(f"model: the folder {asked} has no config.json, so it is not a Hugging Face model")
        return from_config(_read(config), source=str(config), name=path.resolve().name)
    if path.is_file():
        return from_config(_read(path), source=str(path), name=path.resolve().parent.name)
    raise ValueError(_unknown(str(asked)))


def _read(path: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"model: {path} cannot be read ({error.strerror})") from error
    except ValueError as error:  # not JSON, or not UTF-8
        raise ValueError(f"model: {path} is not a JSON file ({error})") from error
    if not isinstance(config, dict):
        raise ValueError(f"model: {path} holds a {type(config).__name__}, not the fields of a config")
    return config


def _unknown(asked: str) -> str:
    from difflib import get_close_matches  # only a mistake needs it

    written = {"nano": "nano", **_known()}
    last = _plain(asked).rsplit("/", 1)[-1]  # a hub name without its owner
    close = [written[name] for name in get_close_matches(last, written, n=3, cutoff=0.5)]
    guess = f"did you mean {' or '.join(close)}?" if close else f"known names: {', '.join(names())}."
    return f"model: {asked!r} is no known model and no file or folder here; {guess} Or give a folder with config.json"
