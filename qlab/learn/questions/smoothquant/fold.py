"""smoothquant.fold: the scales go into the norm and the weights, and no output changes (Xiao et al. 2022, eq. 3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ...question import Case, Finding, Question, mutant
from .shared import near, normal, sizes


def fold(state, norm, layers, scales):
    """Divide what a norm puts out by scales, and multiply the weights that read it.

    state: a dict from names to float32 tensors, the parameters of a block:
        norm + ".weight": (in,), the gain; the norm's output is h = gain * n + bias.
        norm + ".bias": (in,); a LayerNorm has it, an RMSNorm has not.
        layer + ".weight": (out, in), and perhaps layer + ".bias": (out,), of every layer
            that reads h: y = weight @ h + bias.
        parameters of other norms and layers, which do not read h.
    norm: a name, such as "input_layernorm".
    layers: a tuple of names, such as ("q_proj", "k_proj", "v_proj"): all that read h.
    scales: float32 (in,), all positive.

    Returns state: a new dict with the same names, types and shapes. The layers read
    h / scales with scaled weights, so that every y is as it was; parameters that have
    nothing to do with h are as they were.
    """
    folded = dict(state)
    folded[f"{norm}.weight"] = state[f"{norm}.weight"] / scales
    if f"{norm}.bias" in state:
        folded[f"{norm}.bias"] = state[f"{norm}.bias"] / scales
    for layer in layers:
        folded[f"{layer}.weight"] = state[f"{layer}.weight"] * scales  # (out, in) * (in,)
    return folded


_OF_THE_CARD = (
    {
        "norm.weight": torch.tensor([64.0, 1.0]),
        "norm.bias": torch.tensor([0.0, -2.0]),
        "q_proj.weight": torch.tensor([[1.0, -4.0], [0.5, 2.0]]),
        "q_proj.bias": torch.tensor([1.0, 1.0]),
    },
    "norm",
    ("q_proj",),
    torch.tensor([8.0, 0.5]),
)


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def gain(count: int) -> torch.Tensor:
        return 0.5 + torch.rand(count, generator=random)

    def block(
        norm: str, width: int, readers: dict[str, int], others: dict[str, int], biases: bool = True
    ) -> tuple[Any, ...]:
        """A norm and its readers, name to outputs; other layers of the same width, and another norm."""
        state = {f"{norm}.weight": gain(width)}
        if biases:
            state[f"{norm}.bias"] = normal(random, width)
        for name, out in (readers | others).items():
            state[f"{name}.weight"] = normal(random, out, width)
            if biases:
                state[f"{name}.bias"] = normal(random, out)
        state[f"{norm}2.weight"] = gain(width)
        if biases:
            state[f"{norm}2.bias"] = normal(random, width)
        return state, norm, tuple(readers), sizes(random, width)

    mixed = block("ln", 4, {"q_proj": 4, "k_proj": 2, "v_proj": 2}, {"o_proj": 4}, biases=False)
    mixed[0].update({f"{name}.bias": normal(random, out) for name, out in (("q_proj", 4), ("k_proj", 2))})
    wide = block("ln", 6, {"fc1": 6}, {"fc2": 3})
    alike = block("norm", 4, {"gate_proj": 5, "up_proj": 5}, {"up_proj_2": 5, "shared_up_proj": 6})
    alike[0].update({"pre_norm.weight": gain(4), "pre_norm.bias": normal(random, 4)})
    return [
        Case("the block of the card", _OF_THE_CARD),
        Case("OPT: LayerNorm, q, k and v, all with biases", block(
            "self_attn_layer_norm", 6, {"q_proj": 6, "k_proj": 6, "v_proj": 6}, {"out_proj": 6}
        )),
        Case("Llama: RMSNorm, gate and up, no biases", block(
            "post_attention_layernorm", 5, {"gate_proj": 7, "up_proj": 7}, {"router": 3}, biases=False
        )),
        Case("Qwen: RMSNorm, fewer key heads, biases in q and k", mixed),
        Case("one layer after a LayerNorm", block("final_layer_norm", 6, {"fc1": 8}, {"fc2": 6})),
        Case("everything square", block("norm", 5, {"query": 5, "key": 5, "value": 5}, {"dense": 5})),
        Case("other names that begin or end like those of the arguments", alike),
        Case("scales of very different sizes", (*wide[:3], sizes(random, 6, 4.0))),
        Case("a single channel", block("norm", 1, {"q_proj": 3, "k_proj": 1}, {"o_proj": 1})),
    ]  # fmt: skip


def returns_all_names(case: Case, got: Any, expected: Any) -> Finding | None:
    if not isinstance(got, dict):
        return Finding("state: return a dict from names to tensors, as it came in")
    if missing := [name for name in expected if name not in got]:
        return Finding(f"state: {', '.join(missing)} did not come back; the new dict has all names of the old one")
    if added := [name for name in got if name not in expected]:
        return Finding(f"state: {', '.join(added)} is new; this block has no such parameter")
    return None


def others_are_as_they_were(case: Case, got: Any, expected: Any) -> Finding | None:
    state, norm, layers, _ = case.args
    changed = {f"{norm}.weight", f"{norm}.bias", *(f"{layer}.weight" for layer in layers)}
    for name in state:
        if name not in changed and (finding := near(got[name], name, state[name], 0.0)):
            return finding
    return None


def layers_and_norm_are_folded(case: Case, got: Any, expected: Any) -> Finding | None:
    state, norm, layers, scales = case.args
    exact = {f"{layer}.weight": state[f"{layer}.weight"].double() * scales.double() for layer in layers}
    for name in (f"{norm}.weight", f"{norm}.bias"):
        if name in state:
            exact[name] = state[name].double() / scales.double()
    return next(filter(None, (near(got[name], name, values, 1e-5) for name, values in exact.items())), None)


def _changed(state: Any, names: Any, change: Any) -> Any:
    """A copy of the state with `change` made to the parameters of these names that there are."""
    return {name: change(old) if name in names else old.clone() for name, old in state.items()}


def _weights(layers: Any) -> list[str]:
    return [f"{layer}.weight" for layer in layers]


def _with_more_layers(state: Any, norm: str, layers: Any, scales: Any, is_taken: Callable[[str], bool]) -> Any:
    """Folded, and matrices with other names that are taken for a layer's are multiplied as well."""
    more = [name for name, old in state.items() if old.ndim == 2 and is_taken(name) and name not in _weights(layers)]
    return _changed(fold(state, norm, layers, scales), more, lambda old: old * scales)


def _both(norm: str) -> tuple[str, str]:
    return f"{norm}.weight", f"{norm}.bias"


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def in_another_type(state, norm, layers, scales):
    return {name: values.double() for name, values in fold(state, norm, layers, scales).items()}


@mutant(
    "the scales go the wrong way: the norm is multiplied and the weights are divided. No output changes, so no test of "
    "the outputs notices, and the outliers are larger than before."
)
def wrong_direction(state, norm, layers, scales):
    return fold(state, norm, layers, 1 / scales)


@mutant(
    "the norm is multiplied like the weights, so the outputs grow twice. What the weights gain, the norm must lose."
)
def both_multiplied(state, norm, layers, scales):
    return _changed(state, (*_both(norm), *_weights(layers)), lambda old: old * scales)


@mutant("the weights are divided like the norm, so the outputs shrink twice. Multiply the weights.")
def both_divided(state, norm, layers, scales):
    return _changed(state, (*_both(norm), *_weights(layers)), lambda old: old / scales)


@mutant(
    "the rows of the weights are scaled, which are outputs. A scale belongs to an input channel, a column: weight * "
    "scales, without a new axis. With a square matrix there is no error, only a wrong result."
)
def rows_scaled(state, norm, layers, scales):
    divided = _changed(state, _both(norm), lambda old: old / scales)
    return _changed(divided, _weights(layers), lambda old: old * scales[:, None])


@mutant("the norm's bias is forgotten. It is part of h, so it has to be divided, too.")
def norm_bias_forgotten(state, norm, layers, scales):
    divided = _changed(state, (f"{norm}.weight",), lambda old: old / scales)
    return _changed(divided, _weights(layers), lambda old: old * scales)


@mutant("the norm's bias is multiplied. It goes the way of the gain: divide it.")
def norm_bias_multiplied(state, norm, layers, scales):
    multiplied = _changed(state, (f"{norm}.bias", *_weights(layers)), lambda old: old * scales)
    return _changed(multiplied, (f"{norm}.weight",), lambda old: old / scales)


@mutant("every norm is taken to have a bias, and an RMSNorm has none: look first whether the name is in the dict.")
def norm_bias_expected(state, norm, layers, scales):
    folded = fold(state, norm, layers, scales)
    folded[f"{norm}.bias"] = state[f"{norm}.bias"] / scales
    return folded


@mutant("a norm without a bias gets one of zeros. The model has no place for it.")
def norm_bias_invented(state, norm, layers, scales):
    folded = fold(state, norm, layers, scales)
    return {f"{norm}.bias": torch.zeros_like(scales)} | folded


@mutant("the biases of the layers are multiplied. They are added after the product, where the scales have cancelled.")
def layer_biases_multiplied(state, norm, layers, scales):
    folded = fold(state, norm, layers, scales)
    return _changed(folded, [f"{layer}.bias" for layer in layers], lambda old: old * scales.mean())


@mutant(
    "the biases of the layers are multiplied by the scales, channel by channel. A bias has one number per output, and "
    "it is added after the product, where the scales have cancelled."
)
def layer_biases_multiplied_by_channel(state, norm, layers, scales):
    folded = fold(state, norm, layers, scales)
    return _changed(folded, [f"{layer}.bias" for layer in layers], lambda old: old * scales)


@mutant("only the first layer is scaled. Every layer that reads h needs it: q, k and v, or gate and up.")
def first_layer_only(state, norm, layers, scales):
    return fold(state, norm, layers[:1], scales)


@mutant(
    "every weight with as many columns as there are scales is multiplied. Some of them read something else: only the "
    "layers named in the arguments read h."
)
def every_weight_of_that_width(state, norm, layers, scales):
    folded = _changed(state, _both(norm), lambda old: old / scales)
    matrices = [name for name, old in state.items() if old.ndim == 2 and old.shape[1] == len(scales)]
    return _changed(folded, matrices, lambda old: old * scales)


@mutant(
    "the norm's name is compared by its beginning, so that norm2 is taken for norm. Put the dot into the name, or "
    "compare whole names."
)
def names_by_their_beginning(state, norm, layers, scales):
    folded = fold(state, norm, layers, scales)
    alike = [name for name in state if name.startswith(norm) and name not in _both(norm)]
    return _changed(folded, alike, lambda old: old / scales)


@mutant(
    "the norm's name is compared by its end, so that pre_norm is taken for norm. Compare whole names, norm + '.weight'."
)
def norm_by_its_end(state, norm, layers, scales):
    folded = fold(state, norm, layers, scales)
    alike = [name for name in state if name.endswith(_both(norm)) and name not in _both(norm)]
    return _changed(folded, alike, lambda old: old / scales)


@mutant(
    "layers' names are compared by their beginning, so that up_proj_2 is taken for up_proj. Put the dot into the name, "
    "or compare whole names."
)
def layers_by_their_beginning(state, norm, layers, scales):
    return _with_more_layers(state, norm, layers, scales, lambda name: name.startswith(layers))


@mutant(
    "layers' names are compared by their end, so that shared_up_proj is taken for up_proj. Compare whole names, layer "
    "+ '.weight'."
)
def layers_by_their_end(state, norm, layers, scales):
    return _with_more_layers(state, norm, layers, scales, lambda name: name.endswith(tuple(_weights(layers))))


@mutant(
    "a layer is found by its name inside of a name, as `layer in name` does, so that up_proj_2 and shared_up_proj are "
    "taken for up_proj. Compare whole names."
)
def layers_inside_of_names(state, norm, layers, scales):
    return _with_more_layers(state, norm, layers, scales, lambda name: any(layer in name for layer in layers))


@mutant("the gain stays as it was, so the outputs are scaled. Divide it.")
def gain_forgotten(state, norm, layers, scales):
    return _changed(state, _weights(layers), lambda old: old * scales)


@mutant("the gain is divided and the bias too, but the weights stay as they were, so the outputs shrink.")
def weights_forgotten(state, norm, layers, scales):
    return _changed(state, _both(norm), lambda old: old / scales)


@mutant(
    "the norm is divided once for each layer behind it. All layers read the same h, which is divided once: keep it out "
    "of the loop."
)
def norm_divided_for_each_layer(state, norm, layers, scales):
    divided = _changed(state, _both(norm), lambda old: old / scales ** len(layers))
    return _changed(divided, _weights(layers), lambda old: old * scales)


@mutant("only the parameters that change come back. The block is loaded from this dict: it has to hold all of them.")
def only_what_changes(state, norm, layers, scales):
    folded = fold(state, norm, layers, scales)
    return {name: folded[name] for name in (*_both(norm), *_weights(layers)) if name in folded}


@mutant("the layers' biases are dropped on the way.")
def layer_biases_dropped(state, norm, layers, scales):
    dropped = {f"{layer}.bias" for layer in layers}
    return {name: old for name, old in fold(state, norm, layers, scales).items() if name not in dropped}


@mutant("nothing is folded: everything comes back as it was. No output changes, and the outliers are still there.")
def nothing_done(state, norm, layers, scales):
    return dict(state)


@mutant("the root of the scales is folded. The half is in the formula already, as alpha: fold the scales as they come.")
def root_of_the_scales(state, norm, layers, scales):
    return fold(state, norm, layers, scales.sqrt())


@mutant("this is Gemma's norm, which multiplies by 1 + weight. Here the gain is the factor itself: gain / scales.")
def gain_plus_one(state, norm, layers, scales):
    folded = fold(state, norm, layers, scales)
    return _changed(folded, (f"{norm}.weight",), lambda old: old + 1 / scales - 1)


@mutant(
    "the caller's dict is changed, or the tensors in it, by div_, mul_ or *=. dict(state) copies the dict and not "
    "its tensors: put new tensors into it."
)
def in_place(state, norm, layers, scales):
    folded = dict(state)
    for name in _both(norm):
        if name in folded:
            folded[name] /= scales
    for layer in layers:
        folded[f"{layer}.weight"] *= scales
    return folded


def by_diagonal_matrices(state, norm, layers, scales):
    """Right, as the mathematics has it: W S and S⁻¹ h."""
    s = torch.diag(scales.double())
    folded = {name: old.clone() for name, old in state.items()}
    for name in _both(norm):
        if name in folded:
            folded[name] = torch.linalg.solve(s, folded[name].double()).float()
    for name in _weights(layers):
        folded[name] = (folded[name].double() @ s).float()
    return folded


def name_by_name(state, norm, layers, scales):
    """Right, by one loop over all names."""
    folded = {}
    for name, old in state.items():
        owner, _, kind = name.rpartition(".")
        if owner == norm:
            folded[name] = old * scales.reciprocal()
        elif owner in layers and kind == "weight":
            folded[name] = torch.einsum("oi,i->oi", old, scales)
        else:
            folded[name] = old
    return folded


QUESTION = Question(
    id="smoothquant.fold",
    title="Into the norm, out of the weights' reach",
    reference=fold,
    cases=cases,
    properties=(returns_all_names, others_are_as_they_were, layers_and_norm_are_folded),
    mutants=(
        in_another_type,  # first: what is wrong in its types only looks like this one
        wrong_direction,
        both_multiplied,
        both_divided,
        rows_scaled,
        norm_bias_forgotten,
        norm_bias_multiplied,
        norm_bias_expected,
        norm_bias_invented,
        layer_biases_multiplied,
        layer_biases_multiplied_by_channel,
        first_layer_only,
        every_weight_of_that_width,
        names_by_their_beginning,
        norm_by_its_end,
        layers_by_their_beginning,
        layers_by_their_end,
        layers_inside_of_names,
        gain_forgotten,
        weights_forgotten,
        norm_divided_for_each_layer,
        only_what_changes,
        layer_biases_dropped,
        nothing_done,
        root_of_the_scales,
        gain_plus_one,
        in_place,
    ),
    alternatives=(by_diagonal_matrices, name_by_name),
    hints=(
        "Write y = W h + c with h = g n + b, and put (W S)(h / S) in its place. Which of the four, W, g, b and c, has "
        "to change?",
        "The gain is divided, and so is the norm's bias where there is one. The weights of the named layers are "
        "multiplied along their columns. The layers' own biases come after the product and stay.",
        'folded = dict(state); folded[f"{norm}.weight"] = state[f"{norm}.weight"] / scales, the same for the bias if '
        'its name is in state; then folded[f"{layer}.weight"] = state[f"{layer}.weight"] * scales for each layer.',
    ),
    explanation=(
        "Three things change, and one that looks like them does not: the bias of a layer is added after the product, "
        "where the scales have cancelled. What reads h must be named by someone who knows the model. The width tells "
        "nothing, since o_proj is as wide as q_proj, and one reader left out changes the model without an error. After "
        "this the model computes what it did before, at the same speed: smoothing costs nothing at run time. It works "
        "between a norm and the layers after it. down_proj has a product of two branches before it and o_proj an "
        "average of values; the authors leave both as they are. A norm that multiplies by 1 + weight, as Gemma's does, "
        "needs (1 + weight) / s - 1 in its place."
    ),
)
