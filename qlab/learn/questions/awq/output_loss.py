"""awq.output_loss: the mean squared error of a layer's outputs, from weights and the second moment of the inputs."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .shared import rounded, second_moment, tokens


def output_loss(w, w_hat, moment):
    """Measure what replacing weights does to the outputs of a layer, without its inputs.

    w: float32 (out, in), the weights.
    w_hat: float32 (out, in), the weights that come back after quantization.
    moment: float32 (in, in), the mean of x xᵀ over the tokens x of the calibration data.

    Returns a float: the mean, over all tokens and all outputs, of the squared
        difference between w_hat @ x and w @ x.
    """
    delta = w_hat - w  # (out, in)
    # The elementwise product, summed, is the trace of ΔHΔᵀ.
    return ((delta @ moment) * delta).sum().item() / len(w)


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    def layer(out: int, width: int, bits: int, count: int = 64, size: float = 1.0) -> tuple[torch.Tensor, ...]:
        w = normal(out, width)
        sizes = torch.exp(0.7 * normal(width))
        return w, rounded(w, bits, width), second_moment(size * tokens(random, count, sizes))

    w, _, moment = layer(3, 6, 4)
    opposite = torch.tensor([[0.25, -0.25, 0.03125], [-0.5, 0.5, -0.015625]])
    one_changed = w.clone()
    one_changed[1, 4] += 0.2
    twins = torch.tensor([[2.0, 2.0, 1.0], [2.0, 2.0, 1.0], [1.0, 1.0, 3.0]]) * 2.0 ** (seed % 4)
    return [
        Case("the layer of the card", _OF_THE_CARD),
        Case("4 bits", layer(5, 8, 4)),
        Case("8 bits, so the change is small", layer(6, 16, 8)),
        Case("2 bits, more outputs than inputs", layer(9, 4, 2)),
        Case("3 bits, more inputs than outputs", layer(2, 12, 3)),
        Case("a square matrix", layer(6, 6, 3)),
        Case("one output", layer(1, 7, 4)),
        Case("one input", (normal(4, 1), normal(4, 1), normal(1, 1).abs() + 0.5)),
        Case("fewer tokens than inputs", layer(3, 10, 4, count=4)),
        Case("an input that is always zero", (w, w + 0.1 * normal(3, 6), _without(moment, 2))),
        Case("large activations", layer(4, 5, 3, size=80.0)),
        Case("equal inputs, and large errors that cancel", (torch.ones(2, 3), torch.ones(2, 3) + opposite, twins)),
        Case("a single weight that changed", (w, one_changed, moment)),
        Case("8 bits, and more inputs", layer(4, 24, 8)),
    ]


_OF_THE_CARD = (
    torch.tensor([[0.5, 0.3], [0.2, 0.4]]),
    torch.tensor([[0.6, 0.2], [0.3, 0.5]]),
    torch.tensor([[4.0, 1.0], [1.0, 1.0]]),
)


def _without(moment: torch.Tensor, channel: int) -> torch.Tensor:
    moment = moment.clone()
    moment[channel] = moment[:, channel] = 0.0
    return moment


def loss_is_a_number(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.number(got, "the loss")


def loss_is_that_of_the_outputs(case: Case, got: Any, expected: Any) -> Finding | None:
    w, w_hat, moment = (tensor.double() for tensor in case.args)
    delta = w_hat - w
    exact = torch.trace(delta @ moment @ delta.T).item() / len(w)
    # Products that cancel leave the rounding of each of them.
    terms = torch.trace(delta.abs() @ moment.abs() @ delta.abs().T).item() / len(w)
    value = p.as_number(got)
    if abs(value - exact) <= 1e-4 * exact + 1e-6 * terms:
        return None
    # Both energies and what they share, each rounded in float32, where the loss is far below them.
    energies = sum(torch.trace(v.abs() @ moment.abs() @ v.abs().T).item() for v in (w, w_hat)) / len(w)
    if abs(value - exact) <= min(1e-6 * energies, 0.5 * exact):
        return Finding(
            "the loss is off by what float32 loses where large sums cancel; form w_hat - w first, and multiply by the "
            "moment then (or compute in float64)",
            expected=f"{exact:.6g}",
            got=f"{value:.6g}",
        )
    return p.number_near(value, "the loss", exact, 1e-4)


def _per_output(w: Any, w_hat: Any, moment: Any) -> Any:
    """The squared error of each output, averaged over tokens."""
    delta = w_hat - w
    return ((delta @ moment) * delta).sum(dim=1)


@mutant(
    "the moment is not used: this is the mean squared error of the weights. A weight counts as much as the inputs that "
    "it meets, and that is the whole idea of AWQ."
)
def error_of_the_weights(w, w_hat, moment):
    return (w_hat - w).square().mean().item()


@mutant(
    "only the diagonal of the moment is used, as if inputs were independent. Where two inputs go up and down together, "
    "errors of opposite sign cancel and those of one sign add up; the rest of the matrix knows."
)
def diagonal_only(w, w_hat, moment):
    return ((w_hat - w).square() * moment.diagonal()).sum().item() / len(w)


@mutant("the errors of all outputs are added up. Asked for is their mean: divide by the number of outputs, len(w).")
def sum_over_the_outputs(w, w_hat, moment):
    return _per_output(w, w_hat, moment).sum().item()


@mutant(
    "the sum is divided by the number of weights. The errors of the inputs add up in an output; divide by outputs only."
)
def divided_by_all_weights(w, w_hat, moment):
    return _per_output(w, w_hat, moment).sum().item() / w.numel()


@mutant("the sum is divided by the number of inputs, w.shape[1]. There are w.shape[0] outputs.")
def divided_by_inputs(w, w_hat, moment):
    return _per_output(w, w_hat, moment).sum().item() / w.shape[1]


@mutant("this is the root of the mean squared error. Asked for is the squared error itself.")
def root_taken(w, w_hat, moment):
    return _per_output(w, w_hat, moment).mean().clamp(min=0).sqrt().item()


@mutant(
    "delta @ moment is squared, so the moment counts twice. Multiply it by delta once more, element by element, and "
    "add up: delta H deltaᵀ."
)
def moment_counted_twice(w, w_hat, moment):
    return ((w_hat - w) @ moment).square().sum().item() / len(w)


@mutant(
    "this is the difference between the energies of the two outputs. Outputs that changed their sign have the same "
    "energy; take the energy of the difference."
)
def difference_of_energies(w, w_hat, moment):
    return _per_output(0 * w, w_hat, moment).mean().item() - _per_output(0 * w, w, moment).mean().item()


@mutant(
    "the square is multiplied out: tr(ŴHŴᵀ) - 2 tr(ŴHWᵀ) + tr(WHWᵀ). In algebra that is right. In float32 three large "
    "numbers cancel, and of a small loss only their rounding is left. Form w_hat - w first; that difference is exact."
)
def multiplied_out(w, w_hat, moment):
    def trace(a, b):
        return torch.trace(a @ moment @ b.T)

    return ((trace(w_hat, w_hat) - 2 * trace(w_hat, w) + trace(w, w)) / len(w)).item()


@mutant(
    "the moment is not used: this is delta deltaᵀ, the squared errors of the weights added up for each output. Put H "
    "between the two: delta H deltaᵀ."
)
def moment_left_out(w, w_hat, moment):
    return (w_hat - w).square().sum().item() / len(w)


@mutant(
    "this is the mean of all elements of delta H deltaᵀ, (out, out). Only its diagonal holds squared errors: take the "
    "mean of these, the trace divided by the number of outputs."
)
def mean_of_all_elements(w, w_hat, moment):
    delta = w_hat - w
    return (delta @ moment @ delta.T).mean().item()


@mutant("the original weights are not subtracted: this is the energy of the new output.")
def energy_of_the_output(w, w_hat, moment):
    return _per_output(0 * w, w_hat, moment).mean().item()


@mutant(
    "the moment is multiplied from the side of the outputs, deltaᵀ H delta. It belongs between the inputs: "
    "delta @ moment. With a square matrix there is no error, only a wrong number."
)
def from_the_other_side(w, w_hat, moment):
    delta = w_hat - w
    return torch.trace(delta.T @ moment @ delta).item() / len(w)


@mutant(
    "all elements of delta H deltaᵀ are added up, so errors of different outputs cancel. Only its diagonal, the trace, "
    "holds squared errors."
)
def all_elements_for_the_trace(w, w_hat, moment):
    delta = w_hat - w
    return (delta @ moment @ delta.T).sum().item() / len(w)


@mutant(
    "the loss is divided by the energy of the original output. That is a relative error; asked for is the plain one."
)
def relative_to_the_output(w, w_hat, moment):
    return (_per_output(w, w_hat, moment).sum() / _per_output(0 * w, w, moment).sum()).item()


@mutant("the loss is doubled. GPTQ's Hessian has a factor 2; this moment is a plain mean of x xᵀ, and so is the loss.")
def doubled(w, w_hat, moment):
    return 2 * _per_output(w, w_hat, moment).mean().item()


@mutant("the loss is halved, as if it were to be differentiated. The mean squared error has no factor 1/2.")
def halved(w, w_hat, moment):
    return _per_output(w, w_hat, moment).mean().item() / 2


@mutant(
    "the errors of the weights are made positive first, so they cannot cancel any more. Equal inputs with errors of "
    "opposite sign leave the output as it is."
)
def magnitudes_of_the_errors(w, w_hat, moment):
    delta = (w_hat - w).abs()
    return ((delta @ moment) * delta).sum().item() / len(w)


@mutant("this is the largest error of an output. Asked for is the mean over the outputs.")
def worst_output(w, w_hat, moment):
    return _per_output(w, w_hat, moment).max().item()


@mutant(
    "only one half of the moment is used, so every pair of inputs is counted once. In the square of a sum it appears "
    "twice: 2ab."
)
def each_pair_once(w, w_hat, moment):
    return _per_output(w, w_hat, moment.triu()).mean().item()


@mutant("the losses of the outputs come back, one each. Return their mean, one number.")
def one_for_each_output(w, w_hat, moment):
    return torch.cat([_per_output(w, w_hat, moment), torch.zeros(1)])


def as_a_trace(w, w_hat, moment):
    """Right, as it is written on the card; the matrix (out, out) is computed for its diagonal alone."""
    delta = (w - w_hat).double()
    return torch.trace(delta @ moment.double() @ delta.T) / w.shape[0]


def with_inputs_made_up(w, w_hat, moment):
    """Right, with other inputs of the same moment: H = Σ λ u uᵀ, so √λ u serve as tokens. A mean of squares then."""
    values, vectors = torch.linalg.eigh(moment.double())
    x = vectors * values.clamp(min=0).sqrt()  # (in, tokens)
    difference = (w_hat.double() - w.double()) @ x
    return difference.square().sum(dim=1).mean().item()


def by_loops(w, w_hat, moment):
    """Right, pair by pair of inputs, in Python's own floats."""
    total = 0.0
    for row, new in zip(w.tolist(), w_hat.tolist(), strict=True):
        errors = [b - a for a, b in zip(row, new, strict=True)]
        for a, line in zip(errors, moment.tolist(), strict=True):
            total += a * sum(b * h for b, h in zip(errors, line, strict=True))
    return total / len(w)


QUESTION = Question(
    id="awq.output_loss",
    title="The error that counts",
    reference=output_loss,
    cases=cases,
    properties=(loss_is_a_number, loss_is_that_of_the_outputs),
    mutants=(
        error_of_the_weights,
        diagonal_only,
        sum_over_the_outputs,
        divided_by_all_weights,
        divided_by_inputs,
        root_taken,
        moment_counted_twice,
        difference_of_energies,
        multiplied_out,
        moment_left_out,
        mean_of_all_elements,
        energy_of_the_output,
        from_the_other_side,
        all_elements_for_the_trace,
        relative_to_the_output,
        doubled,
        halved,
        magnitudes_of_the_errors,
        worst_output,
        each_pair_once,
        one_for_each_output,
    ),
    alternatives=(as_a_trace, with_inputs_made_up, by_loops),
    hints=(
        "Take one output and write its error as a sum over inputs, d[0] x[0] + d[1] x[1] + ... Square it, and average "
        "over tokens: which averages of products x[j] x[k] do you need, and where do they stand in the moment?",
        "For one row d of w_hat - w the mean squared error is d H dᵀ. For all rows these are the diagonal of "
        "delta H deltaᵀ: add them up and divide by the number of rows.",
        "delta = w_hat - w; return ((delta @ moment) * delta).sum().item() / len(w). The product element by element, "
        "summed, is the trace, without the (out, out) matrix.",
    ),
    explanation=(
        "The error of an output is a sum, and its square has a term for every pair of inputs. In the card's example "
        "both rows have errors of 0.1 in size: (0.1, -0.1) costs 0.03, because the inputs tend to have the same sign "
        "and the errors cancel in part; (0.1, 0.1) costs 0.07. The weights alone say 0.02 for both, the diagonal 0.05. "
        "The second moment of a layer with 4,096 inputs is 64 MiB in float32, however many tokens it has seen; 65,536 "
        "stored activations would be 1 GiB. That is why a search over scales can afford a good loss twenty times."
    ),
)
