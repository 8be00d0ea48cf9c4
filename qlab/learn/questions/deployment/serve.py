"""deployment.serve: a server with continuous batching, step by step: first tokens and last ones, as queues form."""

from __future__ import annotations

import math
from collections import deque
from random import Random
from typing import Any

from ....deploy.serving.traffic import lognormal, requests
from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .shared import near, rows


def serve(requests, kv_tokens, fixed, per_prompt, per_decode):
    """Serve requests with continuous batching, and say when the users got their tokens.

    requests: tuples (arrival, prompt, output): seconds, and tokens, 1 or more. They come in
        the order of their arrival; prompt + output is never more than kv_tokens.
    kv_tokens: that the cache holds.
    fixed, per_prompt, per_decode: seconds of a step, see 2.

    1. A step begins when the one before it has ended; with nobody in the batch, when the
       next request arrives. Those who have arrived by then (at that very moment, too) join
       the batch in their order, as long as the cache has room: each holds room for
       prompt + output tokens, its own, until it leaves. Where the first who waits does not
       fit, those behind it wait as well.
    2. The step takes fixed + per_prompt * (tokens of all prompts that join in this step)
       + per_decode * (requests in the batch that joined before).
    3. At its end everybody in the batch gets one token, those who just joined their first.
       Who then has all `output` tokens leaves, and its room is free for the next step.

    Returns a list of (first, last), in the order of the requests: the times at which the
    first and the last token came out, in seconds on the clock of the arrivals.
    """
    answers = [[0.0, 0.0] for _ in requests]
    batch = {}  # number of a request -> tokens that it still gets
    clock, joined = 0.0, 0
    while joined < len(requests) or batch:
        if not batch:
            clock = max(clock, requests[joined][0])
        decoding, prompts = len(batch), 0
        held = sum(requests[number][1] + requests[number][2] for number in batch)
        while joined < len(requests) and requests[joined][0] <= clock:
            _, prompt, output = requests[joined]
            if held + prompt + output > kv_tokens:
                break
            held += prompt + output
            prompts += prompt
            batch[joined] = output
            joined += 1
        clock += fixed + per_prompt * prompts + per_decode * decoding
        for number in list(batch):
            if batch[number] == requests[number][2]:
                answers[number][0] = clock
            batch[number] -= 1
            if batch[number] == 0:
                answers[number][1] = clock
                del batch[number]
    return [tuple(answer) for answer in answers]


CARD = (((0, 4, 3), (0.5, 2, 2), (1, 6, 2), (20, 2, 1)), 12, 1, 0.25, 0.5)


def cases(seed: int) -> list[Case]:
    random = Random(seed)
    return [
        Case("the example of the card", CARD),
        Case(
            "one request alone", (((random.randrange(1, 9) / 4, 100, random.randrange(5, 20)),), 500, *_times(random))
        ),
        Case("all come at once, and the cache holds a few", (_drawn(random, 12, 0), 1500, *_times(random))),
        Case("a small one behind a large one that does not fit", (*_blocked(random), *_times(random))),
        Case("a busy server", (_drawn(random, 25, 0.3), 2500, *_times(random))),
        Case("a quiet server, which is often idle", (_drawn(random, 10, 30), 3000, *_times(random))),
        Case("arrivals just when a step ends", _on_time(random)),
        Case("the last one fits to the token", _full(random)),
        Case("answers of a single token", (_drawn(random, 15, 0.1, most=1), 1400, *_times(random))),
        Case("tiny requests, and a tiny cache", (_tiny(random), 12, *_times(random))),
        Case("recommendations on H100s", (_sent(seed, 40, 18.0, 1024, 8), 36_000, 0.0117, 8.6e-5, 4.2e-4)),
        Case("chat on an L40S with a short cache", (_sent(seed, 25, 2.0, 512, 60), 8727, 0.047, 2.6e-4, 1.1e-3)),
    ]


def _times(random: Random) -> tuple[float, float, float]:
    """Seconds of a step: one third or so for being a step, the rest for prompts and for requests."""
    return random.uniform(0.05, 0.2), random.uniform(2e-4, 9e-4), random.uniform(0.01, 0.05)


def _drawn(random: Random, count: int, gap: float, most: int = 12) -> tuple[Any, ...]:
    now, found = 0.0, []
    for _ in range(count):
        found.append((now, random.randrange(30, 500), random.randrange(1, most + 1)))
        now += random.uniform(0.4, 1.6) * gap
    return tuple(found)


def _tiny(random: Random) -> tuple[Any, ...]:
    return tuple((0.0, random.randrange(1, 5), random.randrange(2, 8)) for _ in range(20))


def _blocked(random: Random) -> tuple[Any, ...]:
    """A cache that is half full, one that needs most of it, and small ones behind it that would fit."""
    first = (0.0, 400 + random.randrange(50), 30)
    large = (0.01, 700 + random.randrange(50), 10)
    small = [(0.02 + 0.01 * n, random.randrange(20, 60), random.randrange(2, 9)) for n in range(3)]
    return (first, large, *small), 900


def _on_time(random: Random) -> tuple[Any, ...]:
    """Times of whole 64ths, which floats add exactly: requests arrive in the very moment in which a step ends."""
    fixed, per_prompt, per_decode = 8 / 64, 1 / 64, random.randrange(2, 6) / 64
    first, output = random.randrange(10, 40), random.randrange(6, 12)
    prefilled = fixed + per_prompt * first
    step = fixed + per_decode
    second = (prefilled + 2 * step, random.randrange(10, 30), 3)
    third = (prefilled + 3 * step + per_prompt * second[1], random.randrange(10, 30), 4)
    return ((0.0, first, output), second, third), 1000, fixed, per_prompt, per_decode


def _full(random: Random) -> tuple[Any, ...]:
    """Two that fill the cache to the last token, and one that has to wait for both or one of them."""
    first, second = (0.0, random.randrange(100, 300), 9), (0.0, random.randrange(100, 300), 5)
    third = (0.0, second[1] + 2, 3)
    return (first, second, third), sum(first[1:]) + sum(second[1:]), *_times(random)


def _sent(seed: int, count: int, rate: float, prompt: int, output: int) -> tuple[Any, ...]:
    """Poisson arrivals with long tails, as the simulator in qlab.deploy draws them."""
    drawn = requests(
        rate, count, lognormal(prompt, 0.5, high=3 * prompt), lognormal(output, 0.7, high=3 * output), seed
    )
    return tuple((one.arrival, one.prompt, one.output) for one in drawn)


def one_pair_for_each(case: Case, got: Any, expected: Any) -> Finding | None:
    found = rows(got)
    if not isinstance(found, tuple) or len(found) != len(expected):
        return Finding(f"return a list of {len(expected)} pairs (first, last), one for each request")
    for number, one in enumerate(found):
        if finding := p.parts(one, "first", "last"):
            return Finding(f"request {number}: {finding.what}")
    return None


def first_tokens(case: Case, got: Any, expected: Any) -> Finding | None:
    return _times_of("first", 0, got, expected)


def last_tokens(case: Case, got: Any, expected: Any) -> Finding | None:
    return _times_of("last", 1, got, expected)


def _times_of(which: str, place: int, got: Any, expected: Any) -> Finding | None:
    for number, (one, right) in enumerate(zip(rows(got), expected, strict=True)):
        if finding := near(one[place], f"the {which} token of request {number}", right[place], "s"):
            return finding
    return None


def _served(
    requests, kv_tokens, fixed, per_prompt, per_decode,
    *, size=None, asks=None, joins=None, fits=None, grows=False, overtakes=False, most=math.inf, seconds=None,
    start=None, early=0.0, alone=False, lingers=0, apart=False, steps=None, silent=0, stamp=None,
):  # fmt: skip
    """The right answer, but for the parts that are given.

    size: tokens that a request holds. asks: those for which there has to be room when it joins. joins(batch): whether
    anybody may join. fits(held, kv_tokens). grows: a request holds what it has so far. most: that join in a step.
    seconds(prompts, new, old): of a step. start(clock, arrival): when a server without a batch begins. early: seconds
    before its arrival from which a request may join. alone: the one that a server without a batch has waited for joins
    whatever `early` says. lingers: steps for which room is held after the last token. apart: prompts have steps in
    which nobody else gets a token. steps(output): in which a request is, of which the first `silent` give it nothing.
    stamp(begin, end): the time of a token.
    """
    size = size or (lambda prompt, output: prompt + output)
    asks = asks or size
    fits = fits or (lambda held, room: held <= room)
    seconds = seconds or (lambda prompts, new, old: fixed + per_prompt * prompts + per_decode * old)
    start, stamp = start or max, stamp or (lambda begin, end: end)
    steps = steps or (lambda output: output + silent)
    answers = [[0.0, 0.0] for _ in requests]
    waiting, batch, left = deque(enumerate(requests)), {}, {}  # steps to come, and steps for which room is still held
    clock = 0.0
    while waiting or batch:
        if not batch:
            clock = start(clock, waiting[0][1][0])
        missing = sum(batch.values()) if grows else 0
        held = sum(size(*requests[number][1:]) for number in [*batch, *left]) - missing
        old, new, passed = list(batch), [], []
        while waiting and len(new) < most and (joins is None or joins(old)):
            if waiting[0][1][0] > clock + early and not (alone and not batch):
                break
            number, (_, prompt, output) = one = waiting.popleft()
            if fits(held + asks(prompt, output), kv_tokens) or not (batch or left):  # never for ever
                held += size(prompt, output) - (output if grows else 0)
                new.append(number)
                batch[number] = steps(output)
            else:
                passed.append(one)
                if not overtakes:
                    break
        waiting.extendleft(reversed(passed))
        left = {number: more - 1 for number, more in left.items() if more > 1}
        old = [] if apart and new else old
        begin = clock
        clock += seconds(sum(requests[number][1] for number in new), len(new), len(old))
        for number in [*old, *new]:
            batch[number] -= 1
            if batch[number] == steps(requests[number][2]) - 1 - silent:
                answers[number][0] = stamp(begin, clock)
            if batch[number] == 0:
                answers[number][1] = stamp(begin, clock)
                del batch[number]
                if lingers:
                    left[number] = lingers
    return [tuple(answer) for answer in answers]


@mutant(
    "nobody joins before the whole batch is finished. That is static batching; here requests join and leave between "
    "two steps."
)
def static_batches(requests, kv_tokens, fixed, per_prompt, per_decode):
    return _served(requests, kv_tokens, fixed, per_prompt, per_decode, joins=lambda batch: not batch)


@mutant("one request is served after the other. They share the steps as far as the cache has room.")
def one_after_the_other(requests, kv_tokens, fixed, per_prompt, per_decode):
    return _served(requests, kv_tokens, fixed, per_prompt, per_decode, joins=lambda batch: not batch, most=1)


@mutant("only one request joins in a step. All that have arrived and fit join together.")
def one_joins_in_a_step(requests, kv_tokens, fixed, per_prompt, per_decode):
    return _served(requests, kv_tokens, fixed, per_prompt, per_decode, most=1)


@mutant("the cache has no limit here. Who does not fit waits.")
def no_limit(requests, kv_tokens, fixed, per_prompt, per_decode):
    return _served(requests, math.inf, fixed, per_prompt, per_decode)


@mutant("only prompts hold room in the cache. A request holds room for prompt + output.")
def output_forgotten(requests, kv_tokens, fixed, per_prompt, per_decode):
    return _served(requests, kv_tokens, fixed, per_prompt, per_decode, size=lambda prompt, output: prompt)


@mutant("only answers hold room in the cache. A request holds room for prompt + output.")
def prompt_forgotten(requests, kv_tokens, fixed, per_prompt, per_decode):
    return _served(requests, kv_tokens, fixed, per_prompt, per_decode, size=lambda prompt, output: output)


@mutant("who joins is asked for the room of its prompt only. There has to be room for its answer, too.")
def joins_with_its_prompt(requests, kv_tokens, fixed, per_prompt, per_decode):
    return _served(requests, kv_tokens, fixed, per_prompt, per_decode, asks=lambda prompt, output: prompt)


@mutant(
    "the cache grows with the answer: a request holds its prompt and the tokens that it has so far, and is let in by "
    "them. Here it holds room for prompt + output from the step in which it joins."
)
def room_for_what_is_there(requests, kv_tokens, fixed, per_prompt, per_decode):
    return _served(
        requests, kv_tokens, fixed, per_prompt, per_decode, grows=True, asks=lambda prompt, output: prompt
    )  # fmt: skip


@mutant(
    "who joins is asked for prompt + output, but those in the batch are counted by the tokens that they have so far. "
    "Each holds room for prompt + output from the step in which it joins."
)
def room_that_grows(requests, kv_tokens, fixed, per_prompt, per_decode):
    return _served(requests, kv_tokens, fixed, per_prompt, per_decode, grows=True)


@mutant("kv_tokens is taken as a number of requests. It counts tokens: add up prompt + output of the batch.")
def tokens_as_requests(requests, kv_tokens, fixed, per_prompt, per_decode):
    return _served(requests, kv_tokens, fixed, per_prompt, per_decode, size=lambda prompt, output: 1)


@mutant("a request that fills the cache to the last token is kept waiting. It fits: <= and not <.")
def not_to_the_last_token(requests, kv_tokens, fixed, per_prompt, per_decode):
    return _served(requests, kv_tokens, fixed, per_prompt, per_decode, fits=lambda held, room: held < room)


@mutant("a small request overtakes one that does not fit. Nobody overtakes here: the large one might wait for ever.")
def overtaking(requests, kv_tokens, fixed, per_prompt, per_decode):
    return _served(requests, kv_tokens, fixed, per_prompt, per_decode, overtakes=True)


@mutant("room is freed one step too late. Who has its last token at the end of a step holds nothing in the next.")
def freed_a_step_late(requests, kv_tokens, fixed, per_prompt, per_decode):
    return _served(requests, kv_tokens, fixed, per_prompt, per_decode, lingers=1)


@mutant("those who just joined are counted among those who decode. Their prompt is what they cost in this step.")
def new_ones_decode_as_well(requests, kv_tokens, fixed, per_prompt, per_decode):
    return _served(
        requests, kv_tokens, fixed, per_prompt, per_decode,
        seconds=lambda prompts, new, old: fixed + per_prompt * prompts + per_decode * (old + new),
    )  # fmt: skip


@mutant("per_prompt is taken for each request that joins. It is for each token of their prompts.")
def prompts_as_requests(requests, kv_tokens, fixed, per_prompt, per_decode):
    return _served(
        requests, kv_tokens, fixed, per_prompt, per_decode,
        seconds=lambda prompts, new, old: fixed + per_prompt * new + per_decode * old,
    )  # fmt: skip


@mutant("per_decode is taken once. It is for each request that joined before.")
def one_decodes(requests, kv_tokens, fixed, per_prompt, per_decode):
    return _served(
        requests, kv_tokens, fixed, per_prompt, per_decode,
        seconds=lambda prompts, new, old: fixed + per_prompt * prompts + per_decode * (old > 0),
    )  # fmt: skip


@mutant("a step in which prompts are computed costs nothing for those who decode. They get their token in it, too.")
def decoding_is_free_beside_a_prompt(requests, kv_tokens, fixed, per_prompt, per_decode):
    return _served(
        requests, kv_tokens, fixed, per_prompt, per_decode,
        seconds=lambda prompts, new, old: fixed + (per_prompt * prompts if new else per_decode * old),
    )  # fmt: skip


@mutant("the fixed part of a step is missing. Every step takes it.")
def fixed_forgotten(requests, kv_tokens, fixed, per_prompt, per_decode):
    return _served(requests, kv_tokens, 0.0, per_prompt, per_decode)


@mutant("the fixed part is taken for prompts and again for those who decode. It is one step, with one fixed part.")
def fixed_twice(requests, kv_tokens, fixed, per_prompt, per_decode):
    return _served(
        requests, kv_tokens, fixed, per_prompt, per_decode,
        seconds=lambda prompts, new, old: fixed * ((new > 0) + (old > 0)) + per_prompt * prompts + per_decode * old,
    )  # fmt: skip


@mutant(
    "prompts have steps of their own, in which the others get no token. Servers were built so; here both share a step."
)
def prompts_in_steps_of_their_own(requests, kv_tokens, fixed, per_prompt, per_decode):
    return _served(requests, kv_tokens, fixed, per_prompt, per_decode, apart=True)


@mutant("requests are served before they arrive. Who is not there at the start of a step cannot join it.")
def arrivals_ignored(requests, kv_tokens, fixed, per_prompt, per_decode):
    return _served(
        requests, kv_tokens, fixed, per_prompt, per_decode, start=lambda clock, arrival: clock, early=math.inf
    )


@mutant(
    "when the batch is empty the clock is set to the next arrival, even if that was long ago: the clock goes back. "
    "Take the later of the two."
)
def clock_goes_back(requests, kv_tokens, fixed, per_prompt, per_decode):
    return _served(requests, kv_tokens, fixed, per_prompt, per_decode, start=lambda clock, arrival: arrival)


@mutant("who arrives in the very moment in which a step begins is left out of it. It has arrived by then: <=, not <.")
def not_at_that_very_moment(requests, kv_tokens, fixed, per_prompt, per_decode):
    return _served(requests, kv_tokens, fixed, per_prompt, per_decode, early=-1e-9)


@mutant(
    "with nobody in the batch the next request joins, but others that arrive in the same moment are left out of the "
    "step. They have arrived by then: <=, not <."
)
def alone_at_that_very_moment(requests, kv_tokens, fixed, per_prompt, per_decode):
    return _served(requests, kv_tokens, fixed, per_prompt, per_decode, early=-1e-9, alone=True)


@mutant("the results are waits, counted from the arrival. Return times on the clock.")
def waits_for_times(requests, kv_tokens, fixed, per_prompt, per_decode):
    right = serve(requests, kv_tokens, fixed, per_prompt, per_decode)
    return [(first - one[0], last - one[0]) for one, (first, last) in zip(requests, right, strict=True)]


@mutant("last is how long the answer took after its first token. Return the time of its last token.")
def seconds_after_the_first(requests, kv_tokens, fixed, per_prompt, per_decode):
    return [(first, last - first) for first, last in serve(requests, kv_tokens, fixed, per_prompt, per_decode)]


@mutant("the results are in the order in which the requests finished. Return them in the order of the requests.")
def in_the_order_of_finishing(requests, kv_tokens, fixed, per_prompt, per_decode):
    return sorted(serve(requests, kv_tokens, fixed, per_prompt, per_decode), key=lambda answer: answer[1])


@mutant("the step that computes a prompt gives no token here, and the first comes one step later. It gives the first.")
def no_token_from_the_prompt(requests, kv_tokens, fixed, per_prompt, per_decode):
    return _served(requests, kv_tokens, fixed, per_prompt, per_decode, silent=1)


@mutant("the first token does not count as one of the `output` tokens: every answer takes a step too many.")
def one_step_too_many(requests, kv_tokens, fixed, per_prompt, per_decode):
    return _served(requests, kv_tokens, fixed, per_prompt, per_decode, steps=lambda output: output + 1)


@mutant("the answers end one token too early.")
def one_step_too_few(requests, kv_tokens, fixed, per_prompt, per_decode):
    return _served(requests, kv_tokens, fixed, per_prompt, per_decode, steps=lambda output: max(1, output - 1))


@mutant("the times are those at which steps begin. Tokens come out when a step ends.")
def starts_of_steps(requests, kv_tokens, fixed, per_prompt, per_decode):
    return _served(requests, kv_tokens, fixed, per_prompt, per_decode, stamp=lambda begin, end: begin)


@mutant("the same request is served as if it were alone: nobody waits, and nobody slows anybody down.")
def everybody_alone(requests, kv_tokens, fixed, per_prompt, per_decode):
    found = []
    for arrival, prompt, output in requests:
        first = arrival + fixed + per_prompt * prompt
        found.append((first, first + (output - 1) * (fixed + per_decode)))
    return found


@mutant("only the last tokens come back. Return a pair (first, last) for each request.")
def last_tokens_alone(requests, kv_tokens, fixed, per_prompt, per_decode):
    return [last for _, last in serve(requests, kv_tokens, fixed, per_prompt, per_decode)]


def with_a_queue(requests, kv_tokens, fixed, per_prompt, per_decode):
    """Right, with a queue, and the room that is free."""
    queue, free, clock = deque(range(len(requests))), kv_tokens, 0.0
    first, last, running = {}, {}, []
    while queue or running:
        if not running and requests[queue[0]][0] > clock:
            clock = requests[queue[0]][0]
        new = []
        while queue and requests[queue[0]][0] <= clock and sum(requests[queue[0]][1:]) <= free:
            new.append(queue.popleft())
            free -= sum(requests[new[-1]][1:])
        step = per_decode * len(running) + per_prompt * sum(requests[one][1] for one in new) + fixed
        clock = clock + step
        for one in new:
            first[one] = clock
            running.append([one, 0])
        for entry in running:
            entry[1] += 1
            one = entry[0]
            if entry[1] == requests[one][2]:
                last[one] = clock
                free += requests[one][1] + requests[one][2]
        running = [entry for entry in running if entry[0] not in last]
    return [[first[one], last[one]] for one in range(len(requests))]


def by_numbers_of_steps(requests, kv_tokens, fixed, per_prompt, per_decode):
    """Right, writing down when each step ends: a request's tokens come from the steps that follow its first."""
    ends, joined_in, now = [], [], 0.0
    while len(joined_in) < len(requests) or any(
        begin + one[2] > len(ends) for begin, one in zip(joined_in, requests, strict=False)
    ):
        inside = [i for i, begin in enumerate(joined_in) if begin + requests[i][2] > len(ends)]
        if not inside:
            now = max(now, requests[len(joined_in)][0])
        room = kv_tokens - sum(requests[i][1] + requests[i][2] for i in inside)
        prompts = 0
        for arrival, prompt, output in requests[len(joined_in) :]:
            if arrival > now or prompt + output > room:
                break
            joined_in.append(len(ends))
            room, prompts = room - prompt - output, prompts + prompt
        now += fixed + per_prompt * prompts + per_decode * len(inside)
        ends.append(now)
    return [(ends[begin], ends[begin + one[2] - 1]) for begin, one in zip(joined_in, requests, strict=True)]


QUESTION = Question(
    id="deployment.serve",
    title="Serve them",
    reference=serve,
    cases=cases,
    properties=(one_pair_for_each, first_tokens, last_tokens),
    mutants=(
        static_batches,
        one_after_the_other,
        one_joins_in_a_step,
        no_limit,
        output_forgotten,
        prompt_forgotten,
        joins_with_its_prompt,
        room_for_what_is_there,
        room_that_grows,
        tokens_as_requests,
        not_to_the_last_token,
        overtaking,
        freed_a_step_late,
        new_ones_decode_as_well,
        prompts_as_requests,
        one_decodes,
        decoding_is_free_beside_a_prompt,
        fixed_forgotten,
        fixed_twice,
        prompts_in_steps_of_their_own,
        arrivals_ignored,
        clock_goes_back,
        not_at_that_very_moment,
        alone_at_that_very_moment,
        waits_for_times,
        seconds_after_the_first,
        in_the_order_of_finishing,
        no_token_from_the_prompt,
        one_step_too_many,
        one_step_too_few,
        starts_of_steps,
        everybody_alone,
        last_tokens_alone,
    ),
    alternatives=(with_a_queue, by_numbers_of_steps),
    hints=(
        "Write one loop whose every turn is one step: let in, add the time, hand out tokens. What do you have to "
        "remember from step to step? The clock, who is in the batch with how many tokens to come, and who is next.",
        "Before a step: if the batch is empty, clock = max(clock, next arrival). Let in while the next has arrived "
        "(<= clock) and its prompt + output still fit; stop at the first that does not. Those who decode are those who "
        "were in the batch before you let anybody in: count them first.",
        "clock += fixed + per_prompt * prompts + per_decode * decoding. Then for everybody in the batch: if it has all "
        "its tokens to come, this is its first; take one off; at 0 write down the last and take it out of the batch. "
        "Loop while somebody is still to come or in the batch.",
    ),
    explanation=(
        "This is the loop of every server since Orca. Three things follow from it. Each prompt that joins makes one "
        "gap longer for everybody in the batch, which is why long prompts are cut into chunks. The fixed part is paid "
        "once for the whole batch, so a fuller batch is cheaper per token and slower per user. And the cache decides "
        "who waits: what small weights leave is room for requests, not speed. qlab.deploy.serving.simulation plays by "
        "the same rules, with chunks and with steps that read the cache."
    ),
)
