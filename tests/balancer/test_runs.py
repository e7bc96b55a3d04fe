"""Where runs were last: bounded in number and in time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from balancer.runs import Runs

CALLS = st.lists(
    st.tuples(
        st.sampled_from("abcdef"),
        st.sampled_from(["r1", "r2", "r3"]),
        st.floats(0, 40, allow_nan=False),
    )
)


@given(CALLS, st.integers(1, 5))
def test_it_tells_the_last_replica_of_those_heard_of_lately(
    calls: list[tuple[str, str, float]], most: int
) -> None:
    """As a plain list of all calls would; never more than `most`, never one that is too old."""
    runs, now = Runs(keep_s=60, most=most), 0.0
    seen: dict[str, tuple[float, str]] = {}
    for run, replica, passed in calls:
        now += passed
        runs.went(run, replica, now)
        seen.pop(run, None)
        seen[run] = now, replica
        kept = dict(list(seen.items())[-most:])
        expected = {name: at for name, at in kept.items() if now - at[0] <= 60}
        assert len(runs) <= most
        for name in "abcdef":
            assert runs.home(name, now) == (expected[name][1] if name in expected else None)
        for replica_name in ("r1", "r2", "r3"):
            held = sum(name == replica_name for _, name in expected.values())
            assert runs.of(replica_name, now) == held


def test_a_replica_is_forgotten() -> None:
    """After a restart nobody's cache is there."""
    runs = Runs()
    for run in "abc":
        runs.went(run, "r1" if run != "b" else "r2", 0)
    runs.forget("r1")
    assert [runs.home(run, 0) for run in "abc"] == [None, "r2", None]
