"""Confidence in the prefix index follows what answers report, and never leaves 0 to 1."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from balancer.trust import Expected, Trust

PROMPT = 8000


def expect(trust: Trust, cached: int = 6000, *, settled: bool = True) -> Expected | None:
    return trust.expect("a", cached, PROMPT, settled=settled)


def answer(trust: Trust, cached: int | None, *, expected: int = 6000, times: int = 1) -> list[bool]:
    """What `observe` returned for so many answers, each asked after the one before."""
    return [trust.observe(expect(trust, expected), PROMPT, cached) for _ in range(times)]


counts = st.none() | st.integers(-5, 20_000)
events = st.lists(
    st.tuples(
        st.sampled_from(["answer", "answer", "answer", "doubt", "cleared", "forget"]),
        st.sampled_from("ab"),
        st.tuples(st.integers(-5, 20_000), st.integers(-5, 20_000), counts, counts, st.booleans()),
    ),
    max_size=40,
)


@given(events, st.dictionaries(st.sampled_from("abc"), st.integers(1, 10**6)))
def test_confidence_stays_between_nothing_and_all(
    done: list[tuple[str, str, tuple[int, int, int | None, int | None, bool]]],
    matches: dict[str, int],
) -> None:
    """Whatever is reported, sense or not; weighed matches are never more than the matches."""
    trust = Trust()
    for action, replica, (expected, prompt, prompt_told, cached_told, settled) in done:
        if action == "answer":
            kept = trust.expect(replica, expected, prompt, settled=settled)
            trust.observe(kept, prompt_told, cached_told)
        else:
            getattr(trust, action)(replica)
        assert 0.0 < trust.confidence(replica) <= 1.0
    weighed = trust.weigh(matches)
    assert weighed.keys() == matches.keys()
    for name, tokens in matches.items():
        assert weighed[name] == int(tokens * trust.confidence(name)) <= tokens


@given(st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0]), max_size=30))
def test_as_much_as_was_expected_is_full_confidence_in_the_end(shares: list[float]) -> None:
    """However bad it was before, thirty good answers mend it; more than expected is no better."""
    trust = Trust()
    for share in shares:
        answer(trust, int(share * 6000))
    answer(trust, 7000, times=30)
    assert trust.confidence("a") == 1.0


def test_half_of_it_is_half_the_confidence() -> None:
    """In the long run the confidence is what was observed by what was expected."""
    trust = Trust()
    answer(trust, 3000, times=100)
    assert 0.5 < trust.confidence("a") < 0.55
    assert trust.weigh({"a": 1000, "b": 1000}) == {
        "a": int(1000 * trust.confidence("a")),
        "b": 1000,
    }


def test_tokens_are_compared_as_shares() -> None:
    """The replica's tokens are not ours: three quarters of the prompt are three quarters."""
    trust = Trust()
    for _ in range(10):
        assert not trust.observe(expect(trust, 6000), 2 * PROMPT, 12_000)
    assert trust.confidence("a") == 1.0


def test_replica_that_does_not_report_is_believed() -> None:
    """Not reported is not 0."""
    trust = Trust()
    assert answer(trust, None, times=10) == [False] * 10
    assert trust.confidence("a") == 1.0
    matches = {"a": 640}
    assert trust.weigh(matches) is matches


def test_two_surprises_in_a_row_mean_an_empty_cache() -> None:
    """One does not, nor two with a hit in between, nor two where little was expected."""
    trust = Trust()
    assert answer(trust, 0) == [False]
    assert answer(trust, 16) == [False]
    assert answer(trust, 0, times=2) == [False, True]
    assert answer(Trust(), 0, expected=500, times=5) == [False] * 5


def test_empty_cache_explains_its_surprises() -> None:
    """After a restart the confidence is whole again; without any hit since, it stays low."""
    trust = Trust()
    answer(trust, 6000)
    assert answer(trust, 0, times=2) == [False, True]
    assert trust.confidence("a") == 1.0
    assert answer(trust, 0, times=6) == [False, True] * 3
    assert trust.confidence("a") < 0.15


def test_what_was_asked_before_a_purge_proves_nothing_after_it() -> None:
    """Requests in flight at a restart do not purge what was inserted since."""
    trust = Trust()
    kept = [expect(trust) for _ in range(6)]
    assert [trust.observe(each, PROMPT, 0) for each in kept] == [False, True] + [False] * 4
    asked = expect(trust)
    trust.cleared("a")
    assert [trust.observe(asked, PROMPT, 0) for _ in range(3)] == [False] * 3


def test_prefix_that_is_still_being_read_is_no_surprise() -> None:
    """A burst on one prefix: the first is not read yet when the others arrive."""
    trust = Trust()
    burst = [expect(trust, settled=False) for _ in range(15)]
    assert not any(trust.observe(each, PROMPT, 0) for each in burst)
    assert trust.confidence("a") == 1.0
    answer(trust, 0)
    low = trust.confidence("a")
    trust.observe(expect(trust, settled=False), PROMPT, 6000)
    assert trust.confidence("a") > low


def test_nothing_expected_is_nothing_learned() -> None:
    """A cold prompt says nothing, nor does an answer without a prompt."""
    trust = Trust()
    assert expect(trust, 0) is None
    assert not trust.observe(None, PROMPT, 0)
    assert not trust.observe(expect(trust), 0, 0)
    assert trust.confidence("a") == 1.0


def test_doubt_halves_and_answers_mend_it() -> None:
    """A gap in what an engine tells lowers the confidence; so it does again."""
    trust = Trust()
    trust.doubt("a")
    assert trust.confidence("a") == 0.5
    trust.doubt("a")
    assert trust.confidence("a") < 0.5
    answer(trust, 6000, times=30)
    assert trust.confidence("a") == 1.0
    trust.doubt("a")
    trust.forget("a")
    assert trust.confidence("a") == 1.0
