"""Find a model's dimensions: by name in the data file, from a folder, from a config. Never from the network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from typing import Any

from . import user
from .config import from_config
from .entries import check_fields, check_origin, plain, suggestion
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
    """The models that `spec` knows by name, those of the user's own file (`qlab.deploy.user`) among them."""
    return ["nano", *_known()]


def read_models(path: Path) -> dict[str, ModelSpec]:
    """The models of a data file by name. Raises ValueError for an entry that is incomplete or has no source."""
    return _parse(json.loads(path.read_text(encoding="utf-8"))["models"], path.name)


def _parse(entries: Mapping[str, Any], where: str) -> dict[str, ModelSpec]:
    return {name: _model(name, entry, f"{where}: the entry of {name}") for name, entry in entries.items()}


def _model(name: str, entry: Any, where: str) -> ModelSpec:
    check_fields(where, entry, _REQUIRED, _ALLOWED)
    check_origin(where, entry)
    parts = dict(entry)
    for field, kind in (("latent", LatentAttention), ("experts", Experts)):
        if parts.get(field) is not None:
            inner = [inner.name for inner in fields(kind)]
            needed = [inner.name for inner in fields(kind) if inner.default is MISSING]
            check_fields(f"{where}: {field}", parts[field], needed, inner)
            parts[field] = kind(**parts[field])
    try:
        return ModelSpec(name=name, **parts)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


_REQUIRED = [field.name for field in fields(ModelSpec) if field.default is MISSING and field.name != "name"]
_REQUIRED += ["confidence", "date"]
_ALLOWED = [field.name for field in fields(ModelSpec) if field.name != "name"]


@cache
def _raw() -> Mapping[str, Any]:
    return json.loads(DATA.read_text(encoding="utf-8"))["models"]


@cache
def _shipped() -> dict[str, ModelSpec]:
    return read_models(DATA)


def _known() -> dict[str, ModelSpec]:
    return {**_shipped(), **_parse(*user.complete("models", _raw()))}


def _find(asked: str | Path) -> ModelSpec:
    if isinstance(asked, str):
        if plain(asked) == "nano":
            return from_config(_read(NANO / "config.json"), source="the embedded model's config.json", name="nano")
        for name, found in _known().items():
            if plain(name) == plain(asked):
                return found
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
    last = asked.rsplit("/", 1)[-1]  # a hub name without its owner
    guess = suggestion(last, names())
    return f"model: {asked!r} is no known model and no file or folder here; {guess} Or give a folder with config.json"
