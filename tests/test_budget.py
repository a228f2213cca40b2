"""The rate budget lets an even stream of creates through, and learns from headers and 429s how dense it may be."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import median

import pytest

from o3pro_bg._budget import Limits, RateBudget, tokens_of
from o3pro_bg._records import JobRequest

NONE = 0.0  # the luck that shortens a pause the most


def accept(budget: RateBudget, now: float, limits: Limits | None = None, tokens: int = 0) -> None:
    """Let a create go and have it accepted at once."""
    budget.accepted(budget.take(now, tokens), now, limits)


def refuse(budget: RateBudget, now: float, retry_after: float | None = None, luck: float = 1.0) -> bool:
    """Let a create go and have it refused at once."""
    return budget.throttled(budget.take(now), now, luck, retry_after)


def stream(budget: RateBudget, begin: float, seconds: float, limits: Limits | None = None) -> list[float]:
    """Answer when creates leave in so many seconds, each accepted at once."""
    now, left = begin, []
    while now < begin + seconds:
        if (pause := budget.wait(now)) > 0:
            now += pause
        else:
            left.append(now)
            accept(budget, now, limits)
            assert len(left) < 10_000, "there is no rate"
    return left


def test_a_fresh_budget_lets_a_few_go_and_more_with_each_answer() -> None:
    """Before the service has said anything four creates go at once; each that is accepted makes room for one more."""
    budget = RateBudget()
    first = [budget.take(0.0) for _ in range(4)]
    assert budget.wait(0.0) == math.inf
    for reservation in first:
        budget.accepted(reservation, 1.0)
    taken = 0
    while budget.wait(1.0) == 0.0:
        budget.take(1.0)
        taken += 1
    assert taken == 8


@pytest.mark.parametrize(("limits", "most"), [(None, 16), (Limits(requests=1e6), 40)])
def test_creates_on_their_way_are_bounded(limits: Limits | None, most: int) -> None:
    """Sixteen creates are on their way at the most as long as no limit is told, and else as many as requests may be."""
    budget = RateBudget(40)
    for _ in range(100):
        accept(budget, 0.0, limits)
    taken = 0
    while budget.wait(10.0) == 0.0:
        budget.take(10.0)
        taken += 1
    assert taken == most


def test_a_told_limit_becomes_an_even_stream() -> None:
    """A limit of 60 a minute lets one create a second go, and two where it came late; never more than 60 a minute."""
    budget = RateBudget()
    accept(budget, 0.0, Limits(requests=60))
    left = stream(budget, 1.0, 300.0, Limits(requests=60))
    assert len(left) == pytest.approx(300, abs=1)
    assert all(later - at <= 2.0 for at, later in pairwise(left))
    assert all(later - at > 60.0 - 1e-6 for at, later in zip(left, left[60:], strict=False))
    budget.take(400.0)
    budget.take(400.0)
    assert budget.wait(400.0) == pytest.approx(1.0)


def test_a_create_counts_for_a_minute_from_its_answer_on() -> None:
    """What was on its way for 30 seconds may have come to the service in the last of them, and counts from there."""
    budget = RateBudget()
    slow = budget.take(0.0)
    accept(budget, 0.0, Limits(requests=2))
    assert budget.wait(20.0) == 40.0
    budget.accepted(slow, 30.0)
    accept(budget, 60.0)
    assert budget.wait(60.0) == 30.0


def test_what_others_use_is_theirs() -> None:
    """Where the service has nothing left, though little was sent from here, the next create waits for the refill."""
    budget = RateBudget()
    accept(budget, 0.0, Limits(60, 0))
    assert budget.wait(0.0) == pytest.approx(1.0)
    assert budget.wait(0.25) == pytest.approx(0.75)
    accept(budget, 1.0, Limits(None, 30))
    assert budget.wait(2.0) == 0.0


def test_the_limit_is_guessed_from_what_is_left() -> None:
    """A service that tells only what is left is taken to give it back within a minute."""
    budget = RateBudget()
    accept(budget, 0.0, Limits(None, 2))
    budget.take(0.0)
    budget.take(0.0)
    assert budget.wait(0.0) == pytest.approx(20.0)


def test_tokens_are_set_aside() -> None:
    """A create that may answer with more tokens than the minute has left waits until earlier ones count no longer."""
    budget, limits = RateBudget(), Limits(tokens=100_000)
    accept(budget, 0.0, limits, tokens=60_000)
    assert budget.wait(1.0, 30_000) == 0.0
    assert budget.wait(1.0, 50_000) == 59.0
    assert budget.wait(60.0, 50_000) == 0.0
    accept(budget, 60.0, Limits(None, None, None, 1000), tokens=1000)
    assert budget.wait(60.0, 6000) == pytest.approx(3.0), "others use the rest, which is there again within a minute"


def test_what_is_too_much_for_a_minute_goes_alone() -> None:
    """A create that sets aside more than a whole minute allows goes when nothing else counts: the service tells."""
    budget = RateBudget()
    accept(budget, 0.0, Limits(tokens=1000), tokens=10)
    assert budget.wait(1.0, 5000) == 59.0
    assert budget.wait(60.0, 5000) == 0.0


def test_tokens_of_a_request() -> None:
    """The question and the instructions count a token for three bytes, the output as many as it may have."""
    options = {"max_output_tokens": 1000, "instructions": "三文字"}
    assert tokens_of(JobRequest("x" * 30, "low", options=options)) == 10 + 3 + 1000
    assert tokens_of(JobRequest("\ud800xx", "low", options={"max_output_tokens": "many", "instructions": 5})) == 1


@pytest.mark.parametrize(
    ("most", "tokens"), [(-1, 0), (-(10**400), 0), (True, 1), (10**9, 10**9), (10**20, 10**9), (10**400, 10**9)]
)
def test_tokens_of_a_slip(most: int, tokens: int) -> None:
    """An output that nobody can want is reckoned with as far as that harms no other create."""
    assert tokens_of(JobRequest("xxx", "low", options={"max_output_tokens": most})) == 1 + tokens


@pytest.mark.parametrize("asked", [0.5, 20.0, 300.0, 86_400.0])
def test_a_429_closes_for_as_long_as_asked(asked: float) -> None:
    """No create leaves before the time that the service named, however long, and one leaves then."""
    budget = RateBudget()
    assert refuse(budget, 100.0, asked)
    assert [budget.wait(now) for now in (100.0, 100.0 + asked / 2, 100.0 + asked)] == [asked, asked / 2, 0.0]
    budget.take(100.0 + asked)
    assert budget.wait(100.0 + asked) == math.inf, "the others wait for its answer"


@pytest.mark.parametrize("retry_after", [None, 0.0])
@pytest.mark.parametrize("luck", [NONE, 1.0])
def test_429s_without_a_time_close_for_longer_each_time(retry_after: float | None, luck: float) -> None:
    """429s that name no time, or none at all, close the gate for 1, 2, 4 seconds, or by luck for half of that."""
    budget, now, pauses = RateBudget(), 0.0, []
    for _ in range(3):
        refuse(budget, now, retry_after, luck)
        assert budget.is_refused
        pauses.append(budget.wait(now))
        now += pauses[-1]
    assert pauses == [part * (1 + luck) for part in (0.5, 1.0, 2.0)]
    accept(budget, now)
    assert not budget.is_refused
    refuse(budget, now + 1, retry_after, luck)
    assert budget.wait(now + 1) == 0.5 * (1 + luck), "a create that was accepted begins it anew"


def test_while_a_429_keeps_all_back_nobody_waits_for_answers() -> None:
    """How long a 429 closes for is told, though creates are on their way; once that is over, it is 0."""
    budget = RateBudget()
    first, *_ = [budget.take(0.0) for _ in range(4)]
    budget.throttled(first, 1.0, NONE, 10.0)
    assert budget.wait(1.0) == budget.closed(1.0) == 10.0
    assert budget.closed(12.0) == 0.0
    assert budget.wait(12.0) == math.inf


def test_the_limits_of_a_429_are_heard() -> None:
    """What the headers of a refusal tell holds: half of the six a minute that they allow are sent after it."""
    budget = RateBudget()
    budget.throttled(budget.take(0.0), 0.0, NONE, 10.0, Limits(requests=6))
    assert stream(budget, 10.0, 59.0) == [10.0, 30.0, 50.0]


def test_after_a_429_the_stream_begins_anew_with_one_create() -> None:
    """What may leave early, to make up for what came late, is nothing in the moment in which the gate opens."""
    budget = RateBudget()
    accept(budget, 0.0)
    refuse(budget, 0.0, 10.0)
    assert stream(budget, 10.0, 5.0) == [10.0, 12.0, 14.0], "30 a minute, at the least"


def test_429s_that_arrive_together_count_once() -> None:
    """Of the creates that were on their way at a 429 the others are no new one, and open the gate no earlier."""
    budget = RateBudget()
    together = [budget.take(0.0) for _ in range(4)]
    assert [budget.throttled(each, 1.0, NONE, 10.0 - n) for n, each in enumerate(together)] == [
        True,
        False,
        False,
        False,
    ]
    assert budget.wait(1.0) == 10.0
    assert refuse(budget, 11.0)
    assert budget.wait(11.0) == 2.0


def test_a_429_teaches_the_rate() -> None:
    """A hundred creates in ten seconds, and then twenty of refusal, are a rate of 200 a minute."""
    budget = RateBudget()
    for number in range(100):
        accept(budget, number / 10)
    refuse(budget, 10.0, 20.0)
    left = stream(budget, 30.0, 30.0)
    assert len(left) == pytest.approx(100, abs=5)
    assert max(sum(1 for at in left if second <= at < second + 1) for second in range(30, 60)) <= 8


@pytest.mark.parametrize(
    ("times", "at", "pause", "apart"),
    [
        pytest.param([0.0, *[10.0] * 39], 20.0, 10.0, 60 / 80, id="40 in half a minute"),
        pytest.param([60.0, *[70.0] * 39], 80.0, 10.0, 60 / 80, id="wherever the clock stands"),
        pytest.param([0.0] * 40, 0.0, 80.0, 60 / 40, id="40 in more than a minute"),
    ],
)
def test_the_rate_is_what_the_service_let_through(times: list[float], at: float, pause: float, apart: float) -> None:
    """A 429 cuts the rate down to the creates of the last minute, over the time from the first of them to the next."""
    budget = RateBudget()
    for accepted_at in times:
        accept(budget, accepted_at)
    refuse(budget, at, pause)
    first, second, *_ = stream(budget, at + pause, 10.0)
    assert second - first == pytest.approx(apart)


def test_half_of_a_rate_is_kept_where_nothing_was_let_through() -> None:
    """After an idle minute a 429 cuts a told rate of 60 a minute down to 30, and not to nothing."""
    budget = RateBudget()
    accept(budget, 0.0, Limits(requests=60))
    refuse(budget, 100.0, 1.0)
    assert stream(budget, 101.0, 5.0) == [101.0, 103.0, 105.0]


@pytest.mark.parametrize(("refusals", "apart"), [(1, 0.0), (2, 2.0)])
def test_a_second_429_in_a_row_makes_a_rate(refusals: int, apart: float) -> None:
    """Where the service lets nothing through, one 429 teaches no rate, and a second one 30 a minute."""
    budget, now = RateBudget(), 0.0
    for _ in range(refusals):
        refuse(budget, now, 10.0)
        now += 10.0
    accept(budget, now)
    accept(budget, now + 5)
    accept(budget, now + 5)
    assert budget.wait(now + 5) == max(2 * apart - 1, 0.0)


@pytest.mark.parametrize(
    ("refused_at", "factors"), [((60.0,), (1, 2, 2, 2)), ((60.0, 121.0), (1, 1.02, 1.04, 1.08, 1.16))]
)
def test_a_rate_grows_by_more_and_more(refused_at: tuple[float, ...], factors: tuple[float, ...]) -> None:
    """After a first 429 the rate doubles in each minute; after a second one it grows by 2 %, by 4 %, by 8 %."""
    budget, left = RateBudget(), []
    for number in range(60):
        accept(budget, float(number))
    for at in refused_at:
        refuse(budget, at, 1.0)
        left = stream(budget, at + 1, 59.5 if at < refused_at[-1] else 60.0 * len(factors))
    rates: list[list[float]] = [[] for _ in factors]
    for before, after in pairwise(left):
        rates[int((after - left[0]) // 60)].append(60 / (after - before))
    grown = [median(later) / median(rate) for rate, later in pairwise(rates)]
    assert grown == pytest.approx(list(factors[1:]), rel=0.005)


@pytest.mark.parametrize(("refused_at", "grown"), [((60.0,), 120), ((60.0, 121.0), 61)])
def test_a_first_guess_is_doubled_and_a_confirmed_rate_raised_by_a_little(
    refused_at: tuple[float, ...], grown: int
) -> None:
    """A minute after a first 429, which may be a whim, the rate doubles; after a second one at it, it grows by 2 %."""
    budget = RateBudget()
    for number in range(60):
        accept(budget, float(number))
    for at in refused_at:
        refuse(budget, at, 1.0)
        assert len(stream(budget, at + 1, 59.5)) == pytest.approx(60, abs=2)
    accept(budget, refused_at[-1] + 60.5)
    assert len(stream(budget, refused_at[-1] + 61, 59.0)) == pytest.approx(grown, abs=5)


def test_a_rate_is_never_below_one_a_minute() -> None:
    """A service that refuses all is asked again once a minute at the least, as far as it names no time."""
    budget, now = RateBudget(), 0.0
    for _ in range(60):
        accept(budget, now)
        now += 1.0
    for _ in range(20):
        refuse(budget, now, 1.0)
        now += 61.0
    accept(budget, now)
    assert budget.wait(now) == 60.0


@pytest.mark.parametrize("verb", ["spent", "returned"])
def test_what_became_of_a_create_is_told_once(verb: str) -> None:
    """One that may have arrived counts, one that did not counts nothing; what is told later changes neither."""
    budget = RateBudget()
    accept(budget, 0.0, Limits(requests=2))
    reservation = budget.take(10.0)
    budget.spent(reservation, 10.0) if verb == "spent" else budget.returned(reservation)
    budget.spent(reservation, 20.0)
    budget.accepted(reservation, 20.0)
    assert budget.wait(55.0) == (5.0 if verb == "spent" else 0.0)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_what_is_told_twice_makes_no_room(times: int) -> None:
    """However often it is told that a create did not arrive, four others may be on their way, and no more."""
    budget = RateBudget()
    never = budget.take(0.0)
    for _ in range(times):
        budget.returned(never)
    for _ in range(4):
        assert budget.wait(0.0) == 0.0
        budget.take(0.0)
    assert budget.wait(0.0) == math.inf


# --- what headers and jobs may do to it ---------------------------------------------------------------------------


def test_absurd_requests_count_like_the_largest() -> None:
    """However many tokens a job asks for, or fewer than none, the sums stay whole numbers and come to nothing again."""
    assert tokens_of(JobRequest("", "low", options={"max_output_tokens": 10**400})) == 10**9
    assert tokens_of(JobRequest("", "low", options={"max_output_tokens": -(10**6)})) == 0
    budget = RateBudget()
    accept(budget, 0.0, Limits(tokens=6000))
    huge = budget.take(1.0, 10**9)
    budget.returned(huge)
    assert budget.wait(86_400.0, 5000) == 0.0


@pytest.mark.parametrize("left", [0, 10, 990])
def test_what_is_too_much_for_a_minute_waits_a_minute_at_the_most(left: int) -> None:
    """Whatever the service has left, a create that never fits goes once nothing else counts, and not days later."""
    budget = RateBudget()
    accept(budget, 0.0, Limits(None, None, 1000, left), tokens=10)
    assert 0 < budget.wait(1.0, 100_000) <= 60
    assert budget.wait(61.0, 100_000) == 0.0
    accept(budget, 61.0, Limits(None, None, None, 0), tokens=10)
    assert 0 < budget.wait(62.0, 20_000) <= 60


def test_a_limit_that_rises_is_used_at_once() -> None:
    """A limit that was told once holds until another one is told."""
    budget = RateBudget()
    accept(budget, 0.0, Limits(requests=1))
    assert budget.wait(1.0) == pytest.approx(59.0, abs=1)
    accept(budget, 60.0, Limits(requests=600))
    assert len(stream(budget, 120.0, 10.0, Limits(requests=600))) == pytest.approx(110, abs=11)


@pytest.mark.parametrize("early", [0.0005, 0.0])
def test_in_the_moment_in_which_the_gate_opens_one_goes(early: float) -> None:
    """Half a millisecond early or just in time, a single create goes after a 429."""
    budget = RateBudget()
    refuse(budget, 0.0, 10.0)
    assert budget.wait(10.0 - early) == 0.0
    budget.take(10.0 - early)
    assert budget.wait(10.0 - early) == math.inf


@pytest.mark.parametrize("named", [0.01, 0.5, 2.0])
def test_a_time_that_is_named_and_not_kept_is_no_measure(named: float) -> None:
    """A service that refuses again after the time it named is asked after 2, 4, 8 seconds at the earliest."""
    budget, now, pauses = RateBudget(), 0.0, []
    for _ in range(4):
        refuse(budget, now, named)
        pauses.append(budget.wait(now))
        now += pauses[-1]
    assert pauses == pytest.approx([named, 2.0, 4.0, 8.0])
    accept(budget, now + 60)
    assert budget.wait(now + 60) > 0, "by now there is a rate"


def test_a_create_that_counts_already_is_taken_back_by_a_429() -> None:
    """A long create counts from its start; refused after all, it is none that was let through."""
    budget = RateBudget()
    for number in range(10):
        accept(budget, float(number))
    long = [budget.take(10.0) for _ in range(4)]
    for reservation in long:
        budget.spent(reservation, 10.0)
    for reservation in long:
        budget.throttled(reservation, 10.0, NONE, 50.0)
    assert len(stream(budget, 70.0, 57.0)) == pytest.approx(30, abs=3), "30 a minute, as ten in a minute teach"
    budget.returned(long[0])


def test_what_is_taken_back_counts_neither_then_nor_later() -> None:
    """A create that counted, and was refused after all, leaves its tokens and its place to others, once."""
    budget = RateBudget()
    accept(budget, 0.0, Limits(requests=2, tokens=1000), tokens=10)
    long = budget.take(1.0, 500)
    budget.spent(long, 20.0)
    assert budget.wait(31.0, 1) == 29.0, "two in this minute"
    budget.returned(long)
    assert budget.wait(31.0, 600) == 0.0
    accept(budget, 100.0, tokens=500)
    assert budget.wait(129.0, 500) == 0.0
    assert budget.wait(129.0, 501) == 31.0
    accept(budget, 129.0)
    assert budget.wait(130.0) == 30.0


def test_idle_minutes_teach_nothing() -> None:
    """A rate that was learnt is not forgotten while nothing is sent."""
    budget = RateBudget()
    for number in range(60):
        accept(budget, float(number))
    refuse(budget, 60.0, 1.0)
    accept(budget, 20_000.0)
    assert len(stream(budget, 20_001.0, 59.0)) == pytest.approx(60, abs=3)
