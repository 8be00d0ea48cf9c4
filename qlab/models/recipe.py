"""What `quantize_model` was asked for, checked, and worked out for every layer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from qlab.formats import affine, codebook, float8
from qlab.formats.activations import Activations
from qlab.formats.weight import QuantizedWeight
from qlab.methods import awq, gptq, hqq, llm_int8, rtn, smoothquant, w8a8

from .linear import QuantLinear

# What belongs to the single call and not to the user's choice.
_INTERNAL = ("w", "hessian", "name", "tokens")


@dataclass(frozen=True)
class Method:
    """A way to choose codes. Its choices and their defaults are the arguments of `quantize`, and `extra`."""

    quantize: Callable[..., QuantizedWeight]
    calibrated: bool = False  # it looks at activations
    extra: Mapping[str, Any] | None = None  # choices that concern the whole block and not one layer

    def needs_data(self, options: Mapping[str, Any]) -> bool:
        """Whether the model has to be run on calibration data, with these options."""
        return self.calibrated or options.get("static") is True

    @property
    def rounds_inputs(self) -> bool:
        """Whether the inputs of layers are quantized, too."""
        return "activations" in (self.extra or {})

    def choices(self) -> dict[str, Any]:
        """{name: default} of everything that a caller may choose."""
        parameters = inspect.signature(self.quantize).parameters.values()
        return {p.name: p.default for p in parameters if p.name not in _INTERNAL} | dict(self.extra or {})


def nf4(w: torch.Tensor, group_size: int = 64, double_quant: bool = False) -> codebook.CodebookWeight:
    """`codebook.quantize` with the code NF4; what shares a scale is called a group here, as everywhere."""
    return codebook.quantize(w, "nf4", group_size, double_quant)


def fp4(w: torch.Tensor, group_size: int = 64, double_quant: bool = False) -> codebook.CodebookWeight:
    """`codebook.quantize` with the code FP4 of bitsandbytes."""
    return codebook.quantize(w, "fp4", group_size, double_quant)


# What a method that rounds the inputs of layers, too, leaves to choose. `activations`: one scale for every "token", or
# one for the whole "tensor"; `static`: that one is measured beforehand, on calibration data.
_INPUTS = {"activations": "token", "static": False}

METHODS: dict[str, Method] = {
    "rtn": Method(rtn.quantize),
    "nf4": Method(nf4),
    "fp4": Method(fp4),
    "hqq": Method(hqq.quantize),
    "gptq": Method(gptq.quantize, calibrated=True, extra={"true_sequential": True}),
    "awq": Method(awq.quantize, calibrated=True, extra={"scale": True}),
    "w8a8": Method(w8a8.quantize, extra=_INPUTS),
    "llm_int8": Method(llm_int8.quantize, extra={"activations": "token", "threshold": 6.0}),
    "smoothquant": Method(w8a8.quantize, calibrated=True, extra=_INPUTS | {"alpha": 0.5}),
    "fp8": Method(float8.quantize, extra=_INPUTS),
}


@dataclass(frozen=True)
class Recipe:
    """One method and its arguments for every layer that is quantized."""

    method: str
    layers: dict[str, dict[str, Any]]  # name of a layer -> keyword arguments of the method
    skipped: tuple[str, ...]  # linear layers left as they are
    extra: dict[str, Any]  # arguments that concern whole blocks

    @property
    def calibrated(self) -> bool:
        """Whether the model has to be run on calibration data."""
        return METHODS[self.method].needs_data(self.extra)

    @property
    def static(self) -> bool:
        """Whether the scales of inputs are measured beforehand, each layer's own."""
        return bool(self.extra.get("static", False))

    @property
    def activations(self) -> Activations | None:
        """How inputs are quantized, without the static scales; None where they are not."""
        if "activations" not in self.extra:
            return None
        data_type = next(iter(self.layers.values())).get("data_type", "int8")
        return Activations(data_type, self.extra["activations"], threshold=self.extra.get("threshold"))

    @property
    def symmetric(self) -> bool:
        """Whether no zero-points are stored."""
        return bool(next(iter(self.layers.values())).get("symmetric", False))

    @property
    def scale_dtype(self) -> torch.dtype | None:
        """The type that scales are to have, None for formats that leave no choice."""
        return next(iter(self.layers.values())).get("scale_dtype")


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every linear layer by name; GPT-2's Conv1D is one of them."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, (nn.Linear, Conv1D))}


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a pattern is the full name of a layer, its last part, or fits one of the two ("*.down_proj")."""
    return any(fnmatchcase(name, p) or fnmatchcase(name.rpartition(".")[2], p) for p in patterns)


def resolve(
    layers: Iterable[str],
    method: str,
    bits: int | Mapping[str, int] | None,
    group_size: affine.GroupSize | None,
    symmetric: bool | None,
    skip: str | Iterable[str],
    options: Mapping[str, Any],
) -> Recipe:
    """Work out the arguments of every layer from those of `quantize_model`; None stands for the method's default.

    Raises:
        TypeError: an argument of the wrong kind, or an option that the method does not know.
        ValueError: an unknown method, a choice that the method does not leave, a bad value, or a pattern in `skip`
            or `bits` that fits no layer.
    """
    if method not in METHODS:
        raise ValueError(f"method: {method!r} is unknown; choose from {', '.join(METHODS)}")
    names = list(layers)
    choices = METHODS[method].choices()
    for option, value in options.items():
        if option not in choices:
            raise TypeError(f"options: {method} has no {option!r}; it takes {', '.join(choices)}")
        if isinstance(choices[option], bool) and not isinstance(value, bool):
            raise TypeError(f"options: got {option}={value!r}; give True or False")
    given = {"bits": bits, "group_size": group_size, "symmetric": symmetric}
    for choice, value in given.items():
        if value is not None and choice not in choices:
            raise ValueError(f"{choice}: got {value!r}, but {method} leaves no choice there; leave it out")
    common = choices | dict(options) | {choice: value for choice, value in given.items() if value is not None}

    patterns = (skip,) if isinstance(skip, str) else tuple(skip) if isinstance(skip, Iterable) else (skip,)
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(f"skip: got {skip!r}; give names or patterns of layers, or () to skip none")
    # "lm_head" is the default, and not every model has one.
    _check_patterns("skip", (pattern for pattern in patterns if pattern != "lm_head"), names)
    widths = bits if isinstance(bits, Mapping) else {}
    _check_patterns("bits", widths, names)
    chosen = [name for name in names if not matches(name, patterns)]
    if not chosen:
        raise ValueError(f"model: it has no linear layer to quantize ({len(names)} linear layers, skip={patterns})")

    arguments: dict[str, dict[str, Any]] = {}
    for name in chosen:
        arguments[name] = dict(common)
        if isinstance(bits, Mapping):
            fitting = [width for pattern, width in widths.items() if matches(name, (pattern,))]
            arguments[name]["bits"] = fitting[0] if fitting else choices["bits"]
        _check_values(method, arguments[name])
    extra = {key: common[key] for key in METHODS[method].extra or {}}
    _check_inputs(extra)
    for of_layer in arguments.values():
        for key in extra:
            del of_layer[key]
    recipe = Recipe(method, arguments, tuple(name for name in names if name not in arguments), extra)
    _ = recipe.activations  # refuses a bad threshold now, not at the first layer
    return recipe


def check_model(model: PreTrainedModel) -> None:
    """Refuse what is no model, and what is quantized already."""
    if not isinstance(model, PreTrainedModel):
        raise TypeError(f"model: got {type(model).__name__}; give a Hugging Face model, as from qlab.load()")
    if any(isinstance(module, QuantLinear) for module in model.modules()):
        raise ValueError("model: it is quantized already; load it again to quantize it differently")


def _check_patterns(argument: str, patterns: Iterable[str], names: list[str]) -> None:
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"{argument}: got {pattern!r}; give names or patterns of layers")
        if not any(matches(name, (pattern,)) for name in names):
            raise ValueError(
                f"{argument}: {pattern!r} fits none of the layers; they are called {', '.join(names[:8])}, …"
            )


def _check_inputs(extra: Mapping[str, Any]) -> None:
    if extra.get("activations", "token") not in ("token", "tensor"):
        raise ValueError(f"activations: got {extra['activations']!r}; choose token or tensor")
    if extra.get("static", False) and extra["activations"] == "token":
        raise ValueError("static: a token has not come yet when static scales are measured; add activations='tensor'")
    if "alpha" in extra:
        smoothquant.check_alpha(extra["alpha"])


def _check_values(method: str, arguments: dict[str, Any]) -> None:
    if "granularity" in arguments:
        float8.check_arguments(arguments["data_type"], arguments["granularity"])
        return
    if METHODS[method].quantize is w8a8.quantize and arguments["group_size"] not in ("channel", "tensor"):
        raise ValueError(f"group_size: got {arguments['group_size']!r}; {method} takes 'channel' or 'tensor'")
    if METHODS[method].quantize in (nf4, fp4):
        if type(arguments["group_size"]) is not int or arguments["group_size"] < 1:
            raise ValueError(f"group_size: got {arguments['group_size']!r}; {method} takes a positive number")
        return
    affine.check_arguments(
        arguments.get("bits", 4),
        arguments.get("group_size", 128),
        arguments.get("symmetric", True),
        arguments.get("scale_dtype", torch.float16),
    )
