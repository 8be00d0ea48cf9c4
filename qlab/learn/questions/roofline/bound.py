"""roofline.bound: the least time of some work on a device, and which of its two limits sets it."""

from __future__ import annotations

from random import Random
from typing import Any

from ....deploy import gpu
from ....deploy.roofline import product
from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .devices import near

WORDS = ("memory", "compute")


def bound(moved, operations, bandwidth, rate, with_sparsity):
    """Say how long some work takes at least, and what it waits for.

    moved: bytes.
    operations: a multiplication and an addition are two.
    bandwidth: in GB/s, 10**9 bytes per second.
    rate: in TFLOPS, 10**12 operations per second, as the data sheet prints it.
    with_sparsity: True where that rate counts 2:4 sparsity, which makes it twice the dense
        one. The work is dense.

    Memory and arithmetic work at the same time.

    Returns (seconds, limit): limit is "memory" or "compute", and "memory" where both take
    equally long.
    """
    memory = moved / (bandwidth * 1e9)
    compute = operations / (rate * 1e12 / (2 if with_sparsity else 1))
    return (memory, "memory") if memory >= compute else (compute, "compute")


def cases(seed: int) -> list[Case]:
    random = Random(seed)
    size = 2.0 ** random.randrange(-2, 6)
    return [
        # Rates that are powers of two: equal times are equal in any unit.
        Case("the example of the card, few operations", (512_000_000, 64_000_000_000, 256, 128, True)),
        Case("the example of the card, many operations", (512_000_000, 256_000_000_000, 256, 128, True)),
        Case("the example of the card, equal times", (512_000_000, 128_000_000_000, 256, 128, True)),
        Case("Llama-3-8B down on a T4, one token, 16 bits", _product(1, 4096, 14336, 16, "T4")),
        Case("Llama-3-8B down on an L4, 512 tokens, 4.125 bits", _product(512, 4096, 14336, 4.125, "L4", True)),
        Case("Llama-3-70B up on an A100, 64 tokens, 4.125 bits", _product(64, 28672, 8192, 4.125, "A100-80GB", True)),
        # With the printed rate this one would be bound by memory.
        Case("Llama-3-70B up on an H100, 400 tokens, 16 bits", _product(400, 28672, 8192, 16, "H100-80GB", True)),
        Case("equal times, a dense rate", (size * 3e9, size * 96e12, 1024, 32768, False)),
        Case("equal times, with sparsity", (size * 5e9, size * 20e12, 2048, 16384, True)),
        Case("a long wait for memory", _drawn(random, 3.1, False)),
        Case("a long wait for arithmetic", _drawn(random, 0.3, True)),
        Case("memory a little longer", _drawn(random, 1.02, True)),
        Case("arithmetic a little longer", _drawn(random, 0.98, False)),
    ]


def _product(tokens: int, outputs: int, inputs: int, bits: float, name: str, with_sparsity: bool = False) -> Any:
    """A product on a GPU of the data, with the rate that its maker prints: dense, or twice that."""
    done, found = product(tokens, outputs, inputs, bits), gpu(name)
    rate = found.fp16_tensor_tflops or 0.0
    printed = 2 * rate if with_sparsity else rate
    return done.bytes, done.operations, found.bandwidth_gb_per_s, printed, with_sparsity


def _drawn(random: Random, ratio: float, with_sparsity: bool) -> tuple[Any, ...]:
    """Work whose bytes take that many times as long as its operations."""
    bandwidth, dense = random.randrange(200, 5000), random.randrange(50, 1200)
    seconds = random.uniform(0.5, 5) * 10.0 ** random.randrange(-6, -2)
    moved, operations = round(ratio * seconds * bandwidth * 1e9), round(seconds * dense * 1e12)
    return moved, operations, bandwidth, 2 * dense if with_sparsity else dense, with_sparsity


def the_longer_time(case: Case, got: Any, expected: Any) -> Finding | None:
    if finding := p.parts(got, "seconds", "limit"):
        return finding
    return near(got[0], "the time", expected[0], "seconds")


def the_limit_is_named(case: Case, got: Any, expected: Any) -> Finding | None:
    if got[1] == expected[1]:
        return None
    if got[1] not in WORDS:
        return Finding('the limit must be "memory" or "compute"', expected=repr(expected[1]), got=repr(got[1])[:60])
    return Finding("the time is right, and the limit is not", expected=repr(expected[1]), got=repr(got[1]))


def _times(moved, operations, bandwidth, rate, with_sparsity, *, giga=1e9, tera=1e12, sparse=2):
    return moved / (bandwidth * giga), operations / (rate * tera / (sparse if with_sparsity else 1))


def _longer(memory, compute):
    return (memory, "memory") if memory >= compute else (compute, "compute")


@mutant("the two times are added. Memory and arithmetic work at the same time: the longer one counts.")
def times_added(moved, operations, bandwidth, rate, with_sparsity):
    memory, compute = _times(moved, operations, bandwidth, rate, with_sparsity)
    return memory + compute, _longer(memory, compute)[1]


@mutant("this is the shorter of the two times. The work is done when both are done: take the longer one.")
def the_shorter_time(moved, operations, bandwidth, rate, with_sparsity):
    memory, compute = _times(moved, operations, bandwidth, rate, with_sparsity)
    return (memory, "memory") if memory <= compute else (compute, "compute")


@mutant("the limit is right, and the time beside it is the shorter one. min gives that: take the max of both times.")
def the_shorter_time_beside_the_limit(moved, operations, bandwidth, rate, with_sparsity):
    memory, compute = _times(moved, operations, bandwidth, rate, with_sparsity)
    return min(memory, compute), _longer(memory, compute)[1]


@mutant("the time is right and the words are exchanged: where the bytes take longer, memory is the limit.")
def words_exchanged(moved, operations, bandwidth, rate, with_sparsity):
    seconds, limit = bound(moved, operations, bandwidth, rate, with_sparsity)
    return seconds, "compute" if limit == "memory" else "memory"


@mutant("a rate with sparsity is taken as it is printed. For dense work it is half of that.")
def sparsity_kept(moved, operations, bandwidth, rate, with_sparsity):
    return _longer(*_times(moved, operations, bandwidth, rate, with_sparsity, sparse=1))


@mutant("a rate with sparsity is doubled. It is twice the dense one already: halve it.")
def sparsity_doubled(moved, operations, bandwidth, rate, with_sparsity):
    return _longer(*_times(moved, operations, bandwidth, rate, with_sparsity, sparse=0.5))


@mutant("every rate is halved. That is right only where with_sparsity is True.")
def always_halved(moved, operations, bandwidth, rate, with_sparsity):
    return bound(moved, operations, bandwidth, rate, True)


@mutant("the rate is halved where with_sparsity is False, and kept where it is True: the wrong way round.")
def halved_the_wrong_way(moved, operations, bandwidth, rate, with_sparsity):
    return bound(moved, operations, bandwidth, rate, not with_sparsity)


@mutant("the GB of the bandwidth are taken as GiB. Data sheets count 10**9 bytes.")
def gib_for_gb(moved, operations, bandwidth, rate, with_sparsity):
    return _longer(*_times(moved, operations, bandwidth, rate, with_sparsity, giga=2**30))


@mutant("the T of TFLOPS is taken as 2**40. It is 10**12.")
def binary_tera(moved, operations, bandwidth, rate, with_sparsity):
    return _longer(*_times(moved, operations, bandwidth, rate, with_sparsity, tera=2**40))


@mutant("the T of TFLOPS is taken as 10**9. It is 10**12: giga is 10**9.")
def tera_as_giga(moved, operations, bandwidth, rate, with_sparsity):
    return _longer(*_times(moved, operations, bandwidth, rate, with_sparsity, tera=1e9))


@mutant("the units are not turned into bytes and operations: GB/s are 10**9 and TFLOPS 10**12 per second.")
def units_as_they_are(moved, operations, bandwidth, rate, with_sparsity):
    return _longer(*_times(moved, operations, bandwidth, rate, with_sparsity, giga=1, tera=1))


@mutant("the bandwidth is taken in bits. GB/s, with a capital B, are bytes.")
def bandwidth_in_bits(moved, operations, bandwidth, rate, with_sparsity):
    return _longer(*_times(moved, operations, bandwidth, rate, with_sparsity, giga=1e9 / 8))


@mutant("the operations are counted twice. They are multiplications and additions already.")
def operations_doubled(moved, operations, bandwidth, rate, with_sparsity):
    return bound(moved, 2 * operations, bandwidth, rate, with_sparsity)


@mutant("the operations are halved, as if TFLOPS counted pairs. A rate counts a multiplication and an addition as two.")
def operations_halved(moved, operations, bandwidth, rate, with_sparsity):
    return bound(moved, operations / 2, bandwidth, rate, with_sparsity)


@mutant('where both take equally long, "compute" comes back. Then it is "memory" here: compare with >=.')
def equal_times_are_compute(moved, operations, bandwidth, rate, with_sparsity):
    memory, compute = _times(moved, operations, bandwidth, rate, with_sparsity)
    return (memory, "memory") if memory > compute else (compute, "compute")


@mutant("only the bytes are looked at. With many tokens arithmetic takes longer.")
def memory_alone(moved, operations, bandwidth, rate, with_sparsity):
    return _times(moved, operations, bandwidth, rate, with_sparsity)[0], "memory"


@mutant("only the operations are looked at. With few tokens the bytes take longer.")
def compute_alone(moved, operations, bandwidth, rate, with_sparsity):
    return _times(moved, operations, bandwidth, rate, with_sparsity)[1], "compute"


@mutant("the limit is found with the ridge upside down. Operations per byte are compared with rate / bandwidth.")
def ridge_upside_down(moved, operations, bandwidth, rate, with_sparsity):
    memory, compute = _times(moved, operations, bandwidth, rate, with_sparsity)
    ridge = (bandwidth * 1e9) / (rate * 1e12 / (2 if with_sparsity else 1))
    return max(memory, compute), "compute" if operations / moved > ridge else "memory"


@mutant("the time is in milliseconds. Return seconds.")
def in_milliseconds(moved, operations, bandwidth, rate, with_sparsity):
    seconds, limit = bound(moved, operations, bandwidth, rate, with_sparsity)
    return 1e3 * seconds, limit


@mutant("only the time comes back. Return (seconds, limit).")
def time_alone(moved, operations, bandwidth, rate, with_sparsity):
    return bound(moved, operations, bandwidth, rate, with_sparsity)[0]


def by_intensity(moved, operations, bandwidth, rate, with_sparsity):
    """Right, by operations per byte against the ridge of the device."""
    tera = rate * 0.5 if with_sparsity else rate
    if operations / moved > tera * 1000 / bandwidth:
        return operations / tera * 1e-12, "compute"
    return moved / bandwidth * 1e-9, "memory"


def the_larger_of_two(moved, operations, bandwidth, rate, with_sparsity):
    """Right, by the maximum of (time, word): "memory" comes after "compute" in the alphabet, so it wins a tie."""
    dense = rate - rate / 2 * with_sparsity
    return list(max((moved / bandwidth / 1e9, "memory"), (operations / dense / 1e9 / 1e3, "compute")))


QUESTION = Question(
    id="roofline.bound",
    title="Memory or arithmetic",
    reference=bound,
    cases=cases,
    properties=(the_longer_time, the_limit_is_named),
    mutants=(
        times_added,
        the_shorter_time,
        the_shorter_time_beside_the_limit,
        words_exchanged,
        sparsity_kept,
        sparsity_doubled,
        always_halved,
        halved_the_wrong_way,
        gib_for_gb,
        binary_tera,
        tera_as_giga,
        units_as_they_are,
        bandwidth_in_bits,
        operations_doubled,
        operations_halved,
        equal_times_are_compute,
        memory_alone,
        compute_alone,
        ridge_upside_down,
        in_milliseconds,
        time_alone,
    ),
    alternatives=(by_intensity, the_larger_of_two),
    hints=(
        "There are two times: one for the bytes, one for the operations. What is the unit of each rate?",
        "memory = moved / (bandwidth * 1e9). The rate is rate * 1e12, and half of that where it was printed with "
        "sparsity. Both run at the same time, so the longer one counts.",
        'dense = rate * 1e12 / (2 if with_sparsity else 1); compute = operations / dense; return (memory, "memory") '
        'if memory >= compute, and else (compute, "compute").',
    ),
    explanation=(
        "The longer time is a bound and not a forecast: it knows nothing of unpacking, of launches, or of how well a "
        "kernel is written. The printed rate matters: an H100's 1,979 TFLOPS are with sparsity, and with them a "
        "product of 400 tokens would seem to wait for memory, although arithmetic takes 1.3 times as long."
    ),
)
