"""Placement by what NVML says, and by own counts where it says nothing."""

from __future__ import annotations

from balancer.policies import GpuLoad
from balancer.readings import GpuReading
from tests.balancer.made import Clock, Member, Request, members, picks


def _read(member: Member, utilisation: float | None, at: float = 0.0, **more: object) -> None:
    member.gpu = GpuReading(at=at, utilisation=utilisation, **more)  # type: ignore[arg-type]


def _with(*utilisations: float | None) -> list[Member]:
    made = members(*[0] * len(utilisations))
    for member, utilisation in zip(made, utilisations, strict=True):
        _read(member, utilisation)
    return made


def test_the_idle_gpu_is_picked() -> None:
    """Though the busy one has nothing of ours: somebody else's job runs there."""
    candidates = _with(0.9, 0.2, 0.9)
    candidates[1].take()
    assert picks(GpuLoad(1, clock=Clock()), candidates, Request()) == {"r1"}


def test_gpus_as_busy_as_each_other_go_by_requests() -> None:
    """All at 100 %: utilisation says nothing more."""
    candidates = _with(0.99, 1.0, 0.98)
    for member, load in zip(candidates, (3, 1, 2), strict=True):
        for _ in range(load):
            member.take()
    assert picks(GpuLoad(1, clock=Clock()), candidates, Request()) == {"r1"}


def test_a_reading_is_not_compared_with_a_missing_one() -> None:
    """Missing is not idle: requests in flight decide alone. The same for a stale one."""
    clock = Clock(11.0)
    for unknown in (_with(0.9, None, 0.1), _with(0.9, 0.9, 0.1)):
        _read(unknown[0], 0.9, 11.0)
        _read(unknown[2], 0.1, 11.0)
        unknown[2].take()
        unknown[1].take()
        assert picks(GpuLoad(1, clock=clock), unknown, Request()) == {"r0"}


def test_no_herd_between_two_readings() -> None:
    """The one that looks idle gets more, but not everything until the next reading."""
    policy, candidates = GpuLoad(1, clock=Clock()), _with(0.0, 0.1, 0.1, 0.1)
    for _ in range(40):
        policy.pick(candidates, Request()).take()
    assert [one.in_flight for one in candidates] == [16, 8, 8, 8]


def test_utilisation_is_averaged() -> None:
    """One sample of 1 s weighs less than a fifth: a moment's idling attracts nobody."""
    clock = Clock()
    policy, candidates = GpuLoad(1, clock=clock), _with(0.9, 0.5)
    assert picks(policy, candidates, Request()) == {"r1"}
    clock.now = 1.0
    _read(candidates[0], 0.0, 1.0)
    _read(candidates[1], 0.5, 1.0)
    assert picks(policy, candidates, Request()) == {"r1"}
    policy.forget("r0")
    assert picks(policy, candidates, Request()) == {"r0"}


def test_held_down_and_full_gpus_are_left_out() -> None:
    """Unless there is no other."""
    policy, candidates = GpuLoad(1, clock=Clock()), _with(0.0, 0.0, 0.9)
    _read(candidates[0], 0.0, throttled=("hw_thermal",))
    _read(candidates[1], 0.0, memory_share=0.99)
    assert picks(policy, candidates, Request()) == {"r2"}
    assert picks(policy, candidates[:2], Request()) == {"r0", "r1"}
