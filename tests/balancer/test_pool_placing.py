"""What a pool does besides handing out room: tiers, places taken back, prefixes, slow starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import trio
import trio.testing

from balancer.admission import BATCH, INTERACTIVE, Standing
from balancer.errors import AnswerLost, PoolBusy
from balancer.lease import Lease, ReclaimReason
from balancer.policies import BLOCK_TOKENS, Ask, Bookless, Explanation, Outcome
from balancer.policies.loaded import R
from balancer.pool import Pool
from balancer.prefix import PrefixIndex
from balancer.readings import Gauges
from balancer.replica import Replica
from balancer.wire.connect import Dialer

Clock = trio.testing.MockClock


class Reads(Bookless):
    """Sends everything to the replica that holds most of it, else to the first."""

    reads_prompt = True

    def __init__(self) -> None:
        self.matches: list[dict[str, int]] = []
        self.forgotten: list[str] = []

    def pick(self, candidates: Sequence[R], ask: Ask) -> R:
        self.matches.append(dict(ask.matches))
        return max(candidates, key=lambda one: ask.matches.get(one.name, 0))

    def forget(self, replica: str) -> None:
        self.forgotten.append(replica)


class Text:
    """A request whose prompt is a row of blocks."""

    def __init__(self, *blocks: int, tokens: int | None = None) -> None:
        self._blocks = blocks
        self.prompt_tokens = len(blocks) * BLOCK_TOKENS if tokens is None else tokens
        self.output_tokens = None
        self.session = None
        self.run = None
        self.streams = True
        self.matches: Mapping[str, int] = {}

    def blocks(self, tokens: int) -> Sequence[int]:
        return self._blocks


def replicas_(*names: str, limit: int | None = None) -> list[Replica]:
    return [
        Replica(f"http://{name}", Dialer(), max_in_flight=limit, chance=lambda: 0.5)
        for name in names
    ]


def pool_(replicas: list[Replica], policy: Reads | None = None) -> Pool:
    return Pool(
        "m",
        replicas,
        policy or Reads(),
        prefixes=PrefixIndex(BLOCK_TOKENS),
        tiers=[INTERACTIVE, BATCH],
        chance=lambda: 0.5,
    )


def standing(tier: str) -> Standing:
    return Standing(tier, trio.current_time())


def leased(pool: Pool, ask: Ask, tier: str = "interactive") -> Lease:
    lease = pool.lease_nowait((), ask, standing(tier))
    assert lease is not None
    return lease


class Holder:
    """Holds a lease, and waits again when it is taken back."""

    def __init__(self, pool: Pool, nursery: trio.Nursery) -> None:
        self.pool, self.nursery = pool, nursery
        self.reasons: list[ReclaimReason] = []
        self.lease: Lease | None = None

    async def hold(self, standing: Standing) -> None:
        self.lease = await self.pool.lease((), Text(1, 2), standing)

        def taken(reason: ReclaimReason) -> None:
            self.reasons.append(reason)
            self.lease = None
            self.nursery.start_soon(self.hold, standing)

        self.lease.on_reclaim = taken


async def test_batch_gives_its_place_to_interactive(autojump_clock: Clock) -> None:
    """One that has sent nothing is put back in line, and gets the next place."""
    (a,) = replicas_("a", limit=1)
    pool = pool_([a])
    async with trio.open_nursery() as nursery:
        batch = Holder(pool, nursery)
        await batch.hold(standing("batch"))
        lease = await pool.lease((), Text(9), standing("interactive"))
        assert (batch.reasons, batch.lease, a.in_flight) == (["put_back"], None, 1)
        await trio.testing.wait_all_tasks_blocked()
        assert pool.statistics().waiting == 1
        lease.answered()
        lease.release()
        await trio.testing.wait_all_tasks_blocked()
        assert batch.lease is not None
        batch.lease.release()
    assert (a.in_flight, pool.statistics().waiting) == (0, 0)


async def test_what_has_been_answered_keeps_its_place(autojump_clock: Clock) -> None:
    """A batch request whose answer has begun is finished."""
    (a,) = replicas_("a", limit=1)
    pool = pool_([a])
    async with trio.open_nursery() as nursery:
        batch = Holder(pool, nursery)
        await batch.hold(standing("batch"))
        assert batch.lease is not None
        batch.lease.answered()
        with trio.move_on_after(1), pytest.raises(PoolBusy):
            await pool.lease((), Text(9), Standing("interactive", trio.current_time(), 0.5))
        assert batch.reasons == []
        batch.lease.release()
    assert a.in_flight == 0


async def test_an_engine_gets_no_more_batch_than_it_can_use() -> None:
    """With 4,096 tokens to read, or a KV cache in use to four fifths, more of it waits here."""
    (a,) = replicas_("a")
    pool = pool_([a])
    first = leased(pool, Text(1, tokens=5000), "batch")
    assert pool.lease_nowait((), Text(2), standing("batch")) is None
    leased(pool, Text(3, tokens=5000)).release()
    first.answered()
    leased(pool, Text(2), "batch").release()
    a.gauges = Gauges(at=trio.current_time(), kv_share=0.85)
    assert pool.lease_nowait((), Text(4), standing("batch")) is None
    first.release()
    leased(pool, Text(4), "batch").release()  # an idle one always may


async def test_who_waits_for_a_lost_replica_is_told(autojump_clock: Clock) -> None:
    """Nobody listens there any more: what it has not answered is taken back, the rest goes on."""
    a, b = replicas_("a", "b")
    pool = pool_([a, b])
    answered = leased(pool, Text(1))
    answered.answered()
    async with trio.open_nursery() as nursery:
        holder = Holder(pool, nursery)
        await holder.hold(standing("interactive"))
        a.probed(False, trio.current_time(), refused=True)
        await trio.testing.wait_all_tasks_blocked()
        assert holder.reasons == ["replica_lost"]
        assert holder.lease is not None
        assert holder.lease.replica is b
        assert a.in_flight == 1
        holder.lease.release()
    answered.release()


async def test_prompts_are_remembered_where_they_went() -> None:
    """The next prompt that begins alike goes there; what was never read is forgotten again."""
    a, b = replicas_("a", "b")
    policy = Reads()
    pool = pool_([a, b], policy)
    with leased(pool, Text(1, 2)) as lease:
        lease.answered()
    with leased(pool, Text(1, 2, 3)) as lease:
        assert lease.matched_tokens == 2 * BLOCK_TOKENS
        assert lease.charge.uncached_tokens == BLOCK_TOKENS
    leased(pool, Text(1, 2, 3)).release()
    assert policy.matches == [{}, {a.name: 128}, {a.name: 128}]


async def test_a_cache_that_was_lost_is_not_believed_in() -> None:
    """Started again: cleared at once. Two surprises in a row: cleared too."""
    a, b = replicas_("a", "b")
    policy = Reads()
    pool = pool_([a, b], policy)
    prompt = tuple(range(1, 21))

    def ask(cached: int) -> int:
        with leased(pool, Text(*prompt)) as lease:
            lease.answered()
            lease.outcome = Outcome(True, prompt_tokens=1280, cached_tokens=cached)
            return lease.matched_tokens

    assert [ask(0), ask(1264)] == [0, 1280]
    a.restarted()
    assert policy.forgotten == [a.name]
    assert [ask(0), ask(0), ask(0), ask(0)] == [0, 1280, 1280, 0]


async def test_a_member_that_comes_later_starts_slowly() -> None:
    """One request at a time, unless all are new."""
    a, b = replicas_("a", "b")
    pool = pool_([a])
    leases = [leased(pool, Text()) for _ in range(3)]
    pool.update([a, b])
    leases += [leased(pool, Text()) for _ in range(3)]
    assert (b.room, b.in_flight <= 1) == (1, True)
    for lease in leases:
        lease.release()
    assert (a.in_flight, b.in_flight) == (0, 0)


async def test_an_outlier_is_left_out_and_comes_back(autojump_clock: Clock) -> None:
    """It fails every second request where the others fail none; after a while it may try again."""
    replicas = replicas_("a", "b", "c")
    pool = Pool("m", replicas, Turns(), chance=lambda: 0.5)
    bad = replicas[0]
    ejected_at = back_at = None
    while back_at is None:
        with leased(pool, Text()) as lease:
            if lease.replica is bad and bad.requests % 3 == 0:
                lease.failed(AnswerLost("a", "reset"))
            else:
                lease.answered()
            if lease.replica is bad and ejected_at is not None:
                back_at = trio.current_time()
        if ejected_at is None and pool.outliers.ejected(bad.name, trio.current_time()):
            ejected_at = trio.current_time()
            assert bad.requests >= 20
        await trio.sleep(0.1)
    assert back_at - (ejected_at or 0) == pytest.approx(10, abs=0.5)


class Turns(Bookless):
    """One after the other."""

    def __init__(self) -> None:
        self._turn = 0

    def pick(self, candidates: Sequence[R], ask: Ask) -> R:
        self._turn += 1
        return candidates[self._turn % len(candidates)]


async def test_a_lease_tells_why() -> None:
    """It keeps the policy's explanation of this very pick."""

    class Explains(Turns):
        def pick(self, candidates: Sequence[R], ask: Ask) -> R:
            picked = super().pick(candidates, ask)
            self.explanation = Explanation("s", ("wait",), (), len(candidates), float(self._turn))
            return picked

    pool = Pool("m", replicas_("a", "b"), Explains())
    for turn in (1.0, 2.0):
        with leased(pool, Text()) as lease:
            assert lease.explanation is not None
            assert lease.explanation.predicted_ttft_s == turn


async def test_a_retry_goes_back_rather_than_wait_for_long(autojump_clock: Clock) -> None:
    """The other replica asked for a minute; the one that failed once is idle."""
    a, b = replicas_("a", "b", limit=1)
    pool = pool_([a, b])
    with leased(pool, Text()) as lease:
        failed = lease.replica
        other = b if failed is a else a
        lease.failed(AnswerLost("a", "reset"))
    other.pause.refused(trio.current_time(), 60.0)
    pool.on_change()
    assert not pool.fit_elsewhere([failed])
    with await pool.lease([failed]) as lease:
        assert (lease.replica, trio.current_time()) == (failed, 0.0)
    await trio.sleep(58.5)
    assert pool.fit_elsewhere([failed])
    with await pool.lease([failed]) as lease:
        assert (lease.replica, trio.current_time()) == (other, 60.0)


async def test_a_replica_that_comes_back_as_a_member_is_a_stranger() -> None:
    """What was learned of it went with it: its cache, the doubt in it, its failures."""
    a, b = replicas_("a", "b")
    policy = Reads()
    pool = pool_([a, b], policy)
    prompt = tuple(range(1, 21))
    for cached in (1280, 0, 1280, 0):
        with leased(pool, Text(*prompt)) as lease:
            lease.answered()
            lease.outcome = Outcome(True, prompt_tokens=1280, cached_tokens=cached)
    assert pool.trust.confidence(a.name) < 1
    pool.update([b])
    assert policy.forgotten == [a.name]
    assert (pool.trust.confidence(a.name), a.name in pool.outliers.known) == (1.0, False)
    pool.update([a, b])
    policy.matches.clear()
    leased(pool, Text(*prompt)).release()
    assert policy.matches == [{}]


async def test_a_restart_forgives_what_the_cache_was_doubted_for() -> None:
    """Its cache is another one."""
    (a,) = replicas_("a")
    pool = pool_([a])
    pool.trust.doubt(a.name)
    assert pool.trust.confidence(a.name) < 1
    a.restarted()
    assert pool.trust.confidence(a.name) == 1


async def test_an_outlier_that_comes_back_starts_slowly(autojump_clock: Clock) -> None:
    """A stream that is cut counts as a failure too."""
    replicas = replicas_("a", "b", "c")
    pool = Pool("m", replicas, Turns(), chance=lambda: 0.5)
    bad = replicas[0]
    for _ in range(300):
        with leased(pool, Text()) as lease:
            lease.answered()
            if lease.replica is bad and bad.requests % 3 == 0:
                lease.cut()
        await trio.sleep(0.01)
    assert pool.outliers.ejected(bad.name, trio.current_time())
    await trio.sleep(12)
    for _ in range(9):
        leased(pool, Text())
    assert bad.in_flight == 1


async def test_if_all_are_new_nobody_is_spared(autojump_clock: Clock) -> None:
    """All came back at once: there is nobody else to do the work."""
    a, b = replicas_("a", "b")
    pool = pool_([a, b])
    for replica in (a, b):
        replica.probed(False, trio.current_time())
        replica.probed(True, trio.current_time())
    for _ in range(6):
        leased(pool, Text())
    assert (a.ramp.cap, a.in_flight) == (1, 6)


async def test_a_retired_pool_sees_every_change() -> None:
    """It is told of none, so it looks itself."""
    a, b = replicas_("a", "b")
    pool = pool_([a, b])
    leased(pool, Text()).release()
    pool.retire()
    a.drain()
    with leased(pool, Text()) as lease:
        assert lease.replica is b


async def test_a_restart_ends_an_ejection(autojump_clock: Clock) -> None:
    """It was another process that failed: the new one is not left out for it."""
    replicas = replicas_("a", "b", "c")
    pool = Pool("m", replicas, Turns(), chance=lambda: 0.5)
    bad = replicas[0]
    while not pool.ejected():
        with leased(pool, Text()) as lease:
            if lease.replica is bad and bad.requests % 3 == 0:
                lease.failed(AnswerLost("a", "reset"))
            else:
                lease.answered()
        await trio.sleep(0.1)
    assert pool.ejected() == [bad.name]
    bad.restarted()
    before = bad.requests
    for _ in range(3):
        with leased(pool, Text()) as lease:
            lease.answered()
    assert (pool.ejected(), bad.requests) == ([], before + 1)
