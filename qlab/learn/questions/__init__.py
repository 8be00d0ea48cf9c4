"""The graded questions: one file each, in a folder for each exercise set, found by their ids."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib import import_module

from ..question import Question


@dataclass(frozen=True)
class ExerciseSet:
    """An exercise set: the notebooks' file name without .ipynb, and its questions in order.

    Question `linear.zero_point` lies in `questions/linear/zero_point.py` as `QUESTION`.
    """

    name: str  # "02_linear"
    questions: tuple[str, ...]

    @property
    def number(self) -> str:
        return self.name.partition("_")[0]


SETS = (
    ExerciseSet(
        "01_memory_math",
        (
            "memory.parameters",
            "memory.weight_bytes",
            "memory.kv_bytes",
            "memory.batch_that_fits",
            "memory.cards_needed",
            "memory.card_share",
            "memory.popular_cache",
        ),
    ),
    ExerciseSet(
        "02_linear",
        (
            "linear.absmax",
            "linear.clamp",
            "linear.zero_point",
            "linear.clipped_zero_point",
            "linear.per_channel",
            "linear.per_group",
            "linear.pack4",
            "linear.unpack4",
            "linear.pack3",
        ),
    ),
    ExerciseSet(
        "03_nf4_and_codebooks",
        (
            "codebook.nearest",
            "codebook.blockwise",
            "codebook.nf4_levels",
            "codebook.pack_high_first",
            "codebook.dequantize",
            "codebook.bits_per_weight",
            "codebook.double_quant",
        ),
    ),
    ExerciseSet(
        "04_outliers_and_llm_int8",
        (
            "llm_int8.quantize_tokens",
            "llm_int8.int8_product",
            "llm_int8.outlier_columns",
            "llm_int8.linear",
            "llm_int8.outlier_channels",
            "llm_int8.implant",
        ),
    ),
    ExerciseSet(
        "05_smoothquant_w8a8",
        (
            "smoothquant.scales",
            "smoothquant.shared_scales",
            "smoothquant.fold",
            "smoothquant.static_scale",
            "smoothquant.w8a8_linear",
            "smoothquant.best_alpha",
        ),
    ),
    ExerciseSet(
        "06_gptq",
        (
            "gptq.hessian",
            "gptq.damp",
            "gptq.inverse_factor",
            "gptq.update",
            "gptq.quantize_layer",
            "gptq.groups",
            "gptq.act_order",
        ),
    ),
    ExerciseSet(
        "07_awq_and_hqq",
        (
            "awq.importance",
            "awq.scales",
            "awq.fold",
            "awq.fold_gqa",
            "awq.output_loss",
            "awq.search",
            "awq.clip",
            "hqq.shrink",
            "hqq.zero_point",
        ),
    ),
    ExerciseSet(
        "08_fp8_and_kv_cache",
        (
            "float8.decode",
            "float8.encode",
            "float8.quantize_blocks",
            "kv_cache.keys_per_channel",
            "kv_cache.values_per_token",
            "kv_cache.append",
            "kv_cache.bytes_per_token",
        ),
    ),
    ExerciseSet(
        "09_triton_dequant",
        (
            "kernels.scale_rows",
            "kernels.unpack4",
            "kernels.dequantize_int8",
            "kernels.dequantize_int4",
            "kernels.dequantize_nf4",
            "kernels.quantize_tokens",
            "kernels.gemv_int4",
        ),
    ),
    ExerciseSet(
        "10_speed_on_gpu",
        (
            "roofline.work",
            "roofline.bound",
            "roofline.ridge_tokens",
            "roofline.speedup_limit",
            "roofline.break_even",
            "roofline.decode_tokens_per_second",
            "roofline.believable",
        ),
    ),
    ExerciseSet(
        "11_choosing_a_method",
        (
            "choosing.flips",
            "choosing.mean_kl",
            "choosing.sample_size",
            "choosing.pareto",
            "choosing.keep_layers",
            "choosing.route",
            "choosing.canary",
        ),
    ),
    ExerciseSet(
        "12_four_or_eight_bits",
        (
            "deployment.kv_admission",
            "deployment.in_flight",
            "deployment.percentiles",
            "deployment.serve",
            "deployment.usd_per_million",
            "deployment.savings",
            "deployment.cheapest",
        ),
    ),
)


def question(question_id: str) -> Question:
    """The question with that id, loaded when it is first asked for.

    Raises:
        ValueError: there is none; the message names the nearest ids.
    """
    if question_id not in all_ids():
        near = difflib.get_close_matches(str(question_id), all_ids(), n=3, cutoff=0.3) or all_ids()
        raise ValueError(f"question: there is no {question_id!r}; perhaps {' or '.join(near)}")
    loaded: Question = import_module(f".{question_id}", __name__).QUESTION
    return loaded


def all_ids() -> list[str]:
    """The ids of all questions, in the order of the course."""
    return [question_id for exercise_set in SETS for question_id in exercise_set.questions]


def exercise_set(text: str) -> ExerciseSet:
    """The set with that number ("02", "2") or name ("02_linear").

    Raises:
        ValueError: there is none.
    """
    wanted = str(text).strip().removesuffix(".ipynb")
    for one in SETS:
        if wanted == one.name or (wanted.isdecimal() and int(wanted) == int(one.number)):
            return one
    raise ValueError(f"exercise set: there is no {text!r}; choose from {', '.join(one.name for one in SETS)}")
