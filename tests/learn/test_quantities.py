"""Numbers in answers: what is written in any supported form is read back, and what can be read in two ways is not."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from qlab.learn.quantities import find, parse, refused
from qlab.learn.units import SPELLINGS, unit

# Read


@pytest.mark.parametrize(
    ("text", "value", "name"),
    [
        ("39.5 GB", 39.5, "GB"), ("39.5GB", 39.5, "GB"), ("39.5 gb", 39.5, "GB"), ("40 GiB", 40, "GiB"),
        ("40 gigabytes", 40, "GB"), ("1,024", 1024, ""), ("1_024", 1024, ""), ("1\u00a0024", 1024, ""),
        ("1,024.5 MB", 1024.5, "MB"), (".5 s", 0.5, "s"), ("1e9", 1e9, ""), ("1.5e-3 s", 0.0015, "s"),
        ("2^30 bytes", 2**30, "byte"), ("2**30", 2**30, ""), ("10⁹ bytes", 1e9, "byte"), ("10^-3 s", 1e-3, "s"),
        ("1.5 x 10^9", 1.5e9, ""), ("1.5 · 10⁹", 1.5e9, ""), ("-3 dB", -3, "dB"), ("−3 %", -3, "%"),
        ("70B", 70e9, ""), ("70 billion", 70e9, ""), ("70B parameters", 70e9, "parameter"),
        ("70 billion parameters", 70e9, "parameter"), ("70 B parameters", 70e9, "parameter"),
        ("8k tokens", 8e3, "token"),
        ("15T tokens", 15e12, "token"), ("two hundred", 200, ""), ("a hundred gigabytes", 100, "GB"),
        ("half a million", 5e5, ""), ("one million tokens", 1e6, "token"), ("3 thousand requests", 3e3, "request"),
        ("4x", 4, "x"), ("4 x", 4, "x"), ("4 times", 4, "x"), ("4-fold", 4, "x"), ("fourfold", 4, "x"),
        ("four-fold", 4, "x"), ("half", 0.5, "x"), ("twice", 2, "x"), ("a third of it", 1 / 3, "x"),
        ("two thirds", 2 / 3, "x"), ("three quarters", 0.75, "x"), ("half a byte", 0.5, "byte"),
        ("half a second", 0.5, "s"), ("0.4 %", 0.4, "%"), ("0.4%", 0.4, "%"), ("4 percent", 4, "%"),
        ("4 per cent", 4, "%"), ("2 percentage points", 2, "point"), ("30 ms", 30, "ms"), ("30ms", 30, "ms"),
        ("12 µs", 12, "µs"), ("12 μs", 12, "µs"), ("12 us", 12, "µs"), ("5 s", 5, "s"), ("5 min", 5, "min"),
        ("3 h", 3, "h"), ("3 hours", 3, "h"), ("2 days", 2, "day"), ("6 months", 6, "month"), ("$3.20", 3.2, "USD"),
        ("US$3.20", 3.2, "USD"), ("USD 3.20", 3.2, "USD"), ("3.20 dollars", 3.2, "USD"), ("$25k", 25e3, "USD"),
        ("$1.2 million", 1.2e6, "USD"), ("50 cents", 50, "cent"), ("$3 an hour", 3, "USD/h"), ("$3/h", 3, "USD/h"),
        ("3.20 USD per million tokens", 3.2, "USD/million tokens"), ("$3.20/Mtok", 3.2, "USD/million tokens"),
        ("$3.20 per 1M tokens", 3.2, "USD/million tokens"), ("$2 per 1,000 requests", 2, "USD/thousand requests"),
        ("3350 GB/s", 3350, "GB/s"), ("3.35 TB per second", 3.35, "TB/s"), ("10 Gbit/s", 10, "Gbit/s"),
        ("989 TFLOPS", 989, "TFLOPS"), ("989 TFLOP/s", 989, "TFLOP/s"), ("989 tflops", 989, "TFLOPS"),
        ("624 TOPS", 624, "TOPS"), ("4.125 bits per weight", 4.125, "bit/weight"), ("4.125 bpw", 4.125, "bit/weight"),
        ("40 tokens per second", 40, "token/s"), ("40 tok/s", 40, "token/s"), ("40 tps", 40, "token/s"),
        ("3 tokens a second", 3, "token/s"), ("5 requests/s", 5, "request/s"), ("5 QPS", 5, "request/s"),
        ("40 tokens/s per user", 40, "token/s/request"), ("5 million per day", 5e6, "/day"),
        ("327,680 bytes per token", 327680, "byte/token"), ("4 B/token", 4, "byte/token"), ("four", 4, ""),
        ("ninety-nine", 99, ""), ("twenty one tokens", 21, "token"), ("forty-two GB", 42, "GB"), ("4-bit", 4, "bit"),
        ("four-bit", 4, "bit"), ("8 bits", 8, "bit"), ("2 GPUs", 2, "GPU"), ("16 users", 16, "request"),
        ("one GPU", 1, "GPU"), ("(35 GB)", 35, "GB"), ("40.", 40, ""), ("80-GB card", 80, "GB"), ("40ish GB", 40, "GB"),
        ("I'd bet on 2x.", 2, "x"), ("It is 3.9x.", 3.9, "x"), ("2x,", 2, "x"), ("2 times.", 2, "x"),
        ("38 gigs", 38, "GB"), ("40G", 40, "GB"), ("an 80G card", 80, "GB"), ("a forty-gig card", 40, "GB"),
        ("330 megs", 330, "MB"), ("40 G/s", 40, "GB/s"),
    ],
)  # fmt: skip
def test_one_number(text: str, value: float, name: str) -> None:
    [one] = find(text)
    assert (one.low, one.high, one.unit) == (pytest.approx(value), pytest.approx(value), name)
    assert text[one.start : one.end] == one.text
    assert parse(text).to(name) == one


@pytest.mark.parametrize(
    "text",
    ["about 40 GB", "around 40 GB", "roughly 40 GB", "approx. 40 GB", "~40 GB", "≈ 40 GB", "40 GB or so", "ca. 40 GB",
     "nearly 40 GB", "some 40 GB", "40ish GB", "it is close to 40 GB"],
)  # fmt: skip
def test_about(text: str) -> None:
    [one] = find(text)
    assert one.approximate and one.value == 40
    assert not find("40 GB exactly")[0].approximate and not find("something 40 GB")[0].approximate


@pytest.mark.parametrize(
    ("text", "low", "high", "name"),
    [
        ("35-40 GB", 35, 40, "GB"), ("35–40 GB", 35, 40, "GB"), ("35 - 40 GB", 35, 40, "GB"),
        ("35 to 40 GB", 35, 40, "GB"),
        ("between 35 and 40 GB", 35, 40, "GB"), ("between about 35 and 40 GB", 35, 40, "GB"),
        ("35 GB to 40 GB", 35, 40, "GB"),
        ("35 GB to 40", 35, 40, "GB"), ("500 MB to 2 GB", 0.5, 2, "GB"), ("1 to 2 million", 1e6, 2e6, ""),
        ("8-16k tokens", 8e3, 16e3, "token"), ("$3-4", 3, 4, "USD"), ("$3-$4/h", 3, 4, "USD/h"),
        ("$3.20 to 4.10 per million tokens", 3.2, 4.1, "USD/million tokens"), ("20 to 40 %", 20, 40, "%"),
        ("40 ± 2 GB", 38, 42, "GB"), ("40 +/- 2 ms", 38, 42, "ms"), ("four to six", 4, 6, ""),
        ("4 to 8-bit", 4, 8, "bit"),
    ],
)  # fmt: skip
def test_ranges(text: str, low: float, high: float, name: str) -> None:
    [one] = find(text)
    assert (one.low, one.high, one.unit) == (pytest.approx(low), pytest.approx(high), name)
    assert one.value == pytest.approx((low + high) / 2)


def test_two_numbers_are_no_range() -> None:
    for text, expected in {
        "from 16 to 4 bits": [16, 4],
        "35 GB\n- 80 GB": [35, 80],
        "35 and 40 GB": [35, 40],
        "8, 16": [8, 16],
        "4 bits to 40 GB": [4, 40],
        "2 x 80 GB": [2, 80],
        "2x80GB": [2, 80],
        "4 + 16/128": [4, 16, 128],
    }.items():
        assert [one.value for one in find(text)] == expected, text


@pytest.mark.parametrize(
    "text",
    [
        "", "INT4", "W8A8", "A100", "Llama-3", "Llama 3", "H200", "FP16", "p4d.24xlarge", "int4-g128", "Llama-3-70B",
        "Qwen2.5-72B-Instruct", "GPT-2", "GPT 4", "e4m3", "x86-64", "24xlarge", "3D", "1st", "v0.15.1", "0.15.1",
        "vLLM 0.6",
        "version 2", "CUDA 12.4", "lesson 02", "section 5", "2026-07-20", "at 10:30", "zero-point", "zero-shot",
        "one of them",
        "two-way", "a third option", "the second", "C021", "compute capability 8.9", "RTX-4090", "sm90", "K/V",
        "half-open",
    ],
)  # fmt: skip
def test_names_hold_no_numbers(text: str) -> None:
    assert find(text) == [] and refused(text) == []
    assert [one.value for one in find(f"With {text}, 39.5 GB are held.")] == [39.5]


def test_a_sentence() -> None:
    text = (
        "Llama-3-70B at INT4 (int4-g128) takes about 39.5 GB, not 35; with 16 users of 4,096 tokens "
        "each the cache adds 21.5 GB, "
        "so one H100 with 80 GB is enough and 8xT4 are not. That is 3.6x less than 141 GB, at $6.88/h."
    )
    found = [(one.value, one.unit) for one in find(text)]
    assert found == [
        (39.5, "GB"), (35, ""), (16, "request"), (4096, "token"), (21.5, "GB"), (80, "GB"), (8, ""), (3.6, "x"),
        (141, "GB"),
        (6.88, "USD/h"),
    ]  # fmt: skip
    assert [one.approximate for one in find(text)][:2] == [True, False]


# Spoken


@pytest.mark.parametrize(
    ("text", "value", "name"),
    [
        ("a hundred and fifty", 150, ""), ("two hundred and fifty ms", 250, "ms"), ("A Hundred gigs", 100, "GB"),
        ("a thousand and twenty-four tokens", 1024, "token"), ("four thousand ninety-six tokens", 4096, "token"),
        ("one hundred twenty-eight", 128, ""), ("fifteen hundred", 1500, ""), ("half a thousand", 500, ""),
        ("a hundred and twenty-eight thousand tokens", 128e3, "token"), ("a quarter of a million", 250e3, ""),
        ("two hundred thousand million", 2e11, ""), ("two hundred and fifty million", 250e6, ""),
        ("a hundredfold", 100, "x"), ("three hundred percent", 300, "%"),
        ("four point one bits", 4.1, "bit"), ("one point eight", 1.8, ""), ("ten point seven gigs", 10.7, "GB"),
        ("zero point five percent", 0.5, "%"), ("one point oh five x", 1.05, "x"), ("one point zero five", 1.05, ""),
        ("three point thirty-five TB/s", 3.35, "TB/s"), ("four point one two five bpw", 4.125, "bit/weight"),
        ("one point five million", 1.5e6, ""), ("one point two points", 1.2, "point"),
        ("two points", 2, "point"), ("one point of accuracy", 1, "point"),
        ("seven and a half ms", 7.5, "ms"), ("one and a half times", 1.5, "x"), ("one and a half", 1.5, ""),
        ("two and a half thousand", 2500, ""), ("7 and a half ms", 7.5, "ms"), ("two and a quarter bits", 2.25, "bit"),
        ("a second and a half", 1.5, "s"), ("an hour and a half", 1.5, "h"), ("two seconds and a half", 2.5, "s"),
        ("a million and a half", 1.5e6, ""), ("2 million and a half dollars", 2.5e6, "USD"),
        ("-2 and a half dB", -2.5, "dB"),
        ("factor of 4", 4, "x"), ("a factor of four", 4, "x"), ("speedup of 1.8", 1.8, "x"),
        ("a speed-up of about two.", 2, "x"), ("by a factor 3", 3, "x"), ("a factor of one", 1, "x"),
        ("a speedup of 30 %", 30, "%"), ("a speedup of 3 ms", 3, "ms"), ("a scale factor of 0.1", 0.1, ""),
        ("a tenth", 0.1, "x"), ("two fifths of it", 0.4, "x"), ("three quarters.", 0.75, "x"),
        ("a sixteenth as much", 1 / 16, "x"), ("two tenths of a second", 0.2, "s"), ("a fifth of a percent", 0.2, "%"),
    ],
)  # fmt: skip
def test_spoken(text: str, value: float, name: str) -> None:
    [one] = find(text)
    assert (one.low, one.high, one.unit) == (pytest.approx(value), pytest.approx(value), name)
    assert find(text.capitalize())[0].to(name).low == one.low


@pytest.mark.parametrize(
    ("text", "value", "name"),
    [
        ("fifteen-ish gigs", 15, "GB"), ("thirty-ish", 30, ""), ("thirtyish", 30, ""), ("seventy-odd gigs", 70, "GB"),
        ("thirty-odd", 30, ""), ("three hundred fifty-ish", 350, ""), ("30-odd GB", 30, "GB"), ("15 GB-ish", 15, "GB"),
        ("forty or so gigs", 40, "GB"), ("a couple of hundred", 200, ""), ("a couple hundred gigs", 200, "GB"),
        ("five-ish thousand", 5000, ""),
    ],
)  # fmt: skip
def test_spoken_about(text: str, value: float, name: str) -> None:
    [one] = find(text)
    assert (one.value, one.unit, one.approximate) == (value, name, True)


@pytest.mark.parametrize(
    ("text", "low", "high", "name"),
    [
        ("five to seven hundred", 500, 700, ""), ("five to seven hundred thousand", 5e5, 7e5, ""),
        ("fifty to a hundred thousand", 50e3, 100e3, ""), ("fifty to two hundred ms", 50, 200, "ms"),
        ("ten to a thousand", 10, 1000, ""), ("five hundred to a thousand", 500, 1000, ""),
        ("five hundred to two thousand", 500, 2000, ""), ("nine to fifteen hundred", 900, 1500, ""),
        ("three or four machines", 3, 4, "machine"), ("10 or 11", 10, 11, ""), ("thirty or forty gigs", 30, 40, "GB"),
        ("35 or 40 GB", 35, 40, "GB"), ("1.8x or 1.9x", 1.8, 1.9, "x"), ("six or seven hundred", 600, 700, ""),
        ("1 or 2 million", 1e6, 2e6, ""), ("one or two GPUs", 1, 2, "GPU"), ("one to two gigs", 1, 2, "GB"),
        ("between a hundred and two hundred ms", 100, 200, "ms"), ("between a hundred and two thousand", 100, 2000, ""),
        ("between a hundred and fifty and two hundred", 150, 200, ""),
        ("between a hundred and fifty ms and two hundred ms", 150, 200, "ms"),
        ("between two and a half and three GB", 2.5, 3, "GB"), ("a factor of 3 to 4", 3, 4, "x"),
        ("a factor of between three and four", 3, 4, "x"),
    ],
)  # fmt: skip
def test_spoken_ranges(text: str, low: float, high: float, name: str) -> None:
    [one] = find(text)
    assert (one.low, one.high, one.unit) == (pytest.approx(low), pytest.approx(high), name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("16 GB/2 TB/s", [(16, "GB"), (2, "TB/s")]), ("140 GB / 4 GPUs", [(140, "GB"), (4, "GPU")]),
        ("$3/1M tokens", [(3, "USD/million tokens")]), ("3 requests per 10 s", [(3, "request/10 s")]),
        ("4 or 8 bits", [(4, ""), (8, "bit")]), ("24 or 32 GB", [(24, ""), (32, "GB")]),
        ("500 to 2 million", [(500, ""), (2e6, "")]), ("one thousand, two thousand", [(1000, ""), (2000, "")]),
        ("two hundred four-bit models", [(200, ""), (4, "bit")]), ("twenty one-shot runs", [(20, "")]),
        ("a hundred and two hundred", [(100, ""), (200, "")]), ("8 GB and half of that", [(8, "GB"), (0.5, "x")]),
        ("a hundred and fifty GB and forty", [(150, "GB"), (40, "")]), ("2x. 3 GB", [(2, "x"), (3, "GB")]),
        ("93 G operations/s", [(93, "")]), ("7B or 8B", [(7.5e9, "")]), ("2 x 80G", [(2, ""), (80, "GB")]),
    ],
)  # fmt: skip
def test_several(text: str, expected: list[tuple[float, str]]) -> None:
    assert [(one.value, one.unit) for one in find(text)] == expected


@pytest.mark.parametrize(
    "text",
    ["nine-tenths", "a few hundred", "several hundred", "hundreds", "a couple of machines", "a tenth option",
     "a third assignment", "the fifth", "one of them or the other", "one to one", "a scale and a zero point",
     "a model and a half-open door"],
)  # fmt: skip
def test_words_that_count_nothing(text: str) -> None:
    assert find(f"With {text} it ran") == refused(text) == []


def test_two_numbers_to_choose_from_are_no_answer() -> None:
    with pytest.raises(ValueError, match="got 'three', 'four machines'; give one number"):
        parse("three or four machines")
    assert (parse("a hundred and fifty").value, parse("three to four").value) == (150, 3.5)


# Refused


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("39,5", "a point for decimals"), ("39,5 GB", "a point for decimals"), ("1,16,128", "a space between numbers"),
        ("1.024,5", "commas for thousands only"), ("40 Gb", "write GB or Gbit"), ("40 Mb", "write MB or Mbit"),
        ("8b", "bits or billion"), ("5m", "minutes, meters or million"), ("5 m", "minutes"), ("70 B",
        "bytes or billion"),
        ("327680B", "bytes or billion"), ("9 TFLOPs", "a count or a rate"), ("€3", "prices here are in USD"),
        ("£3", "USD"), ("EUR 3", "USD"), ("1e999", "too large"), ("9^999", "too large"),
    ],
)  # fmt: skip
def test_what_can_be_read_in_two_ways_is_not_read(text: str, why: str) -> None:
    assert find(text) == []
    [one] = refused(f"It is {text}.")
    assert why in one.why and one.text in text and f"It is {text}."[one.start : one.end] == one.text
    with pytest.raises(ValueError, match=r"answer: got .*; "):
        parse(text)


# Whole answers


def test_an_answer_takes_the_unit_that_was_asked_for() -> None:
    assert (parse("39.5", "GB").unit, parse("39.5 GiB", "GB").unit, parse("39.5").unit) == ("GB", "GiB", "")
    with pytest.raises(ValueError, match=r"unit: got '3 ms', time; GB is memory, and the two cannot be compared"):
        parse("3 ms", "GB")


def test_of_a_calculation_the_result_counts() -> None:
    one = parse("4 + 16/128 = 4.125 bits")
    assert (one.value, one.unit) == (4.125, "bit") and "4 + 16/128 = 4.125 bits"[one.start : one.end] == "4.125 bits"
    assert parse("2 x 80 x 8 x 128 x 2 = 327,680").value == 327680


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds no number"), ("many", "holds no number"), ("INT4", "holds no number"), ("39 or 40",
        "'39', '40'; give one"),
        ("1/2", "give one number"), ("8 = ", "holds no number"),
    ],
)  # fmt: skip
def test_no_answer_or_several(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse(text)


def test_a_word_alone_is_an_answer() -> None:
    assert parse("one").value == 1 and parse(" Zero ").value == 0 and parse("seven").value == 7
    assert find("one") == find("zero") == []


# Units


def test_gb_and_gib_are_two_units() -> None:
    [one] = find("39.5 GB")
    assert one.to("GiB").value == pytest.approx(39.5e9 / 2**30) and one.to("GiB").unit == "GiB"
    assert one.to("bytes").value == 39.5e9 and one.to("Gbit").value == pytest.approx(316)
    assert one.dimension == "memory" and find("3 GB/s")[0].dimension == "memory/time"


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("$3.20 per million tokens", "USD/token", 3.2e-6), ("1 TB/s", "GB/s", 1000), ("1 h", "s", 3600),
        ("4 bits per weight", "byte/parameter", 0.5), ("1 TFLOPS", "TFLOP/s", 1), ("28 %", "x", 0.28), ("half",
        "%", 50),
        ("1 month", "h", 730), ("1 year", "month", 12), ("8 bits", "byte", 1), ("60 requests per minute", "qps", 1),
    ],
)  # fmt: skip
def test_conversions(text: str, name: str, value: float) -> None:
    assert find(text)[0].to(name).value == pytest.approx(value)


@pytest.mark.parametrize("name", ["ms", "token", "GB/s", "USD", ""])
def test_other_dimensions_cannot_be_compared(name: str) -> None:
    with pytest.raises(ValueError, match=r"unit: got '39.5 GB', memory; .* cannot be compared"):
        find("39.5 GB")[0].to(name)
    with pytest.raises(ValueError, match="cannot be compared"):
        find("39.5 GB")[0].holds(39.5, name)


def test_what_a_range_holds() -> None:
    [one] = find("35 to 40 GB")
    assert one.holds(35, "GB") and one.holds(37e9, "byte") and not one.holds(34.9, "GB") and one.holds(34.9, "GB", 0.01)


@pytest.mark.parametrize(
    ("name", "why"), [("parsec", "known are"), ("Gb", "write GB or Gbit"), ("GB extra", "known are")]
)
def test_unknown_units(name: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"unit: got '{name}'; .*{why}"):
        unit(name)


def test_a_unit_knows_its_own_name() -> None:
    for spelling, meant in SPELLINGS.items():
        assert unit(meant.name) == meant, spelling
        if spelling not in ("$", "US$"):
            assert unit(spelling) == meant, spelling


# Whatever is written is read back

NUMBERS = st.one_of(
    st.integers(0, 10**9).map(float),
    st.floats(0.001, 1e6).map(lambda x: float(f"{x:.6g}")),
    st.sampled_from([0.5, 1.0]),
)
UNITS = st.sampled_from(
    [*sorted({one.name for one in SPELLINGS.values()} - {"x", "USD"}), "USD/h", "USD/million tokens"]
)
SPELLED = st.sampled_from(sorted(word for word in SPELLINGS if word not in ("$", "US$", "x", "×", "times", "fold")))


def written(value: float, form: str) -> str:
    whole = value == int(value)
    if form == "thousands" and whole:
        return f"{int(value):,}"
    if form == "underscores" and whole:
        return f"{int(value):_}"
    if form == "exponent":
        return f"{value:.6e}"
    return f"{value:.10f}".rstrip("0").rstrip(".")


FORMS = st.sampled_from(["plain", "thousands", "underscores", "exponent"])


@given(
    NUMBERS,
    FORMS,
    SPELLED,
    st.sampled_from(["", " ", "-", "\u00a0"]),
    st.sampled_from(["", "about ", "It takes ~", "("]),
)
def test_any_number_with_any_unit(value: float, form: str, spelling: str, gap: str, before: str) -> None:
    assume(not (form == "exponent" and not gap))  # 1e3B: where would the number end?
    text = f"{before}{written(value, form)}{gap}{spelling} of it"
    [one] = find(text)
    assert one.low == one.high == pytest.approx(value, rel=1e-6)
    assert one.unit == SPELLINGS[spelling].name and one.approximate is (before in ("about ", "It takes ~"))


@given(NUMBERS, NUMBERS, UNITS, st.sampled_from(["{}-{} {}", "{} to {} {}", "{}–{} {}", "between {} and {} {}"]))
def test_any_range(low: float, high: float, name: str, form: str) -> None:
    assume(low < high)
    [one] = find(form.format(written(low, "plain"), written(high, "plain"), name))
    assert (one.low, one.high, one.unit) == (pytest.approx(low), pytest.approx(high), name)


ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen".split()
ONES += "seventeen eighteen nineteen".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def in_words(value: int, joint: str = "-", link: str = " and ", by_hundreds: bool = False) -> str:
    """ "Forty-two hundred" if `by_hundreds`, else "four thousand two hundred"."""
    if value < 100:
        more = f"{joint}{ONES[value % 10]}" if value % 10 else ""
        return ONES[value] if value < 20 else f"{TENS[value // 10 - 2]}{more}"
    unit_name, size = ("hundred", 100) if by_hundreds or value < 1000 else ("thousand", 1000)
    above, rest = divmod(value, size)
    spoken = f"{in_words(above, joint, link)} {unit_name}"
    between = link if rest < 100 else " "
    return f"{spoken}{between}{in_words(rest, joint, link)}" if rest else spoken


@given(st.integers(0, 9_999), st.sampled_from(["-", " "]), st.sampled_from([" and ", " "]), st.booleans(), UNITS)
@example(1024, "-", " and ", False, "token")
@example(1500, "-", " and ", True, "GB")
def test_any_number_in_words(value: int, joint: str, link: str, by_hundreds: bool, name: str) -> None:
    assume(not (by_hundreds and (value % 1000 < 100 or value < 1100)))  # nobody says "twenty hundred"
    assume(not (value == 0 and name == "point"))  # the zero point is a term
    words = in_words(value, joint, link, by_hundreds)
    [one] = find(f"{words} {name}")
    assert (one.value, one.unit) == (value, name), words
    assert parse(words).value == value


def test_every_number_in_words() -> None:
    said = {n: in_words(n) for n in range(10_000)}
    said |= {-n: f"a {words.removeprefix('one ')}" for n, words in said.items() if words.startswith("one ")}
    assert {words for n, words in said.items() if parse(words).value != abs(n)} == set()


@given(st.integers(0, 9_999), st.integers(0, 999))
def test_any_decimals_in_words(whole: int, decimals: int) -> None:
    digits = f"{decimals:03}"
    [one] = find(f"{in_words(whole)} point {' '.join(ONES[int(digit)] for digit in digits)} ms")
    assert (one.value, one.unit) == (float(f"{whole}.{digits}"), "ms")


@given(st.lists(st.sampled_from(
    "a an and one two ten twenty hundred thousand million point half quarter third tenths zero of or to ish -odd 4 ms "
    "GB gigs couple factor between second x / fold 2 . ,".split()
), max_size=12), st.sampled_from([" ", "-", ""]))  # fmt: skip
def test_no_words_break_it(words: list[str], joint: str) -> None:
    text = joint.join(words)
    for one in (*find(text), *refused(text)):
        assert 0 <= one.start < one.end <= len(text) and text[one.start : one.end] == one.text
    for found in find(text):
        assert found.low <= found.high and unit(found.unit).name == found.unit


@given(NUMBERS, UNITS, UNITS)
def test_there_and_back(value: float, first: str, second: str) -> None:
    one = parse(f"{written(value, 'plain')} {first}")
    if unit(first).dimension == unit(second).dimension:
        assert one.to(second).to(first).low == pytest.approx(one.low)
    else:
        with pytest.raises(ValueError, match="cannot be compared"):
            one.to(second)


@given(st.text(max_size=60) | st.text(alphabet="0123456789.,-–/x ^%$GBkMbitso()ea~±×", max_size=40))
def test_no_text_breaks_it(text: str) -> None:
    for one in (*find(text), *refused(text)):
        assert 0 <= one.start < one.end <= len(text) and text[one.start : one.end] == one.text
    for found in find(text):
        assert found.low <= found.high and unit(found.unit).name == found.unit
