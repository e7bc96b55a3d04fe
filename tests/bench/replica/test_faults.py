"""What can be made to go wrong with a simulated replica."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from bench.engine import ProfileError
from bench.replica import Faults, ReplicaSettings, create_app, load_profile
from bench.replica.asgi import Application
from bench.replica.core import EngineDiedError
from bench.replica.faults import Slowness
from tests.bench.replica.driver import Answer, call, chat, post
from tests.bench.replica.test_leaving import scrape
from tests.bench.replica.test_simulated import (
    LONG,
    PROFILE,
    cached,
    content_times,
    itl_s,
    predicted,
    simulated,
    together,
)

FAULTS = "/simulation/faults"


async def change(app: Application, **faults: Any) -> Any:
    answer = await post(app, FAULTS, **faults)
    assert answer.status == 200, answer.body
    return answer.json()


async def mean_itl_s(app: Application) -> float:
    return itl_s(await chat(app, max_tokens=50, stream=True))


async def test_slow_and_foreign_load(autojump_clock: trio.testing.MockClock) -> None:
    """Steps take the factor longer, alone, together, and no more when it is taken back."""
    plain_s = await mean_itl_s(simulated())
    cases: list[tuple[dict[str, Any], float]] = [
        ({"slow": 3.0}, 3.0),
        ({"foreign_load": 0.5}, 2.0),
        ({"slow": 3.0, "foreign_load": 0.5}, 6.0),
    ]
    for faults, factor in cases:
        app = simulated()
        await change(app, **faults)
        assert await mean_itl_s(app) == pytest.approx(factor * plain_s)
        assert await mean_itl_s(simulated(faults=Faults(**faults))) == pytest.approx(
            factor * plain_s
        )
        await change(app, slow=1, foreign_load=0)
        assert await mean_itl_s(app) == pytest.approx(plain_s)


async def test_slow_in_mid_answer(autojump_clock: trio.testing.MockClock) -> None:
    """An answer under way is slower from the next steps on."""
    app = simulated()
    answers: list[Answer] = []

    async def one() -> None:
        answers.append(await chat(app, max_tokens=200, stream=True))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one)
        await trio.sleep(0.5)
        await change(app, slow=10)
    times = content_times(answers[0])
    expected = predicted(PROFILE, 6, 200)
    before = [at for at in times if at < 0.5]
    assert before == pytest.approx(expected[: len(before)], abs=1e-6)
    late_s = (times[-1] - times[-2]) / (expected[-1] - expected[-2])
    assert late_s == pytest.approx(10)


@pytest.mark.parametrize("status", [500, 503])
async def test_error_rate(autojump_clock: trio.testing.MockClock, status: int) -> None:
    """About that share fails, the same requests for the same seed, and health does not."""
    runs = []
    for seed in (1, 1, 2):
        faults = Faults(error_rate=0.3, error_status=status)
        app = simulated(faults=faults, seed=seed)
        answers = [await chat(app, max_tokens=1) for _ in range(200)]
        runs.append([answer.status for answer in answers])
        assert (await call(app, "GET", "/health")).status == 200
        assert (await scrape(app))["vllm:request_success_total/length"] == runs[-1].count(200)
        failed = next(answer for answer in answers if answer.status != 200)
        assert failed.json()["error"]["code"] == status
        assert ("retry-after" in failed.headers) == (status == 503)
    assert {*runs[0]} == {200, status}
    assert 40 < runs[0].count(status) < 80
    assert runs[0] == runs[1] != runs[2]


async def test_stall(autojump_clock: trio.testing.MockClock) -> None:
    """No token comes while it lasts; then all goes on, and no token is lost."""
    app = simulated()
    answers: list[Answer] = []

    async def one() -> None:
        answers.append(await chat(app, max_tokens=300, stream=True))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one)
        await trio.sleep(1.0)
        shown = await change(app, stall_s=5)
        assert shown["stalled_s"] == 5
        await trio.sleep(2)
        assert (await call(app, "GET", FAULTS)).json()["stalled_s"] == pytest.approx(3)
        assert (await scrape(app))["vllm:num_requests_running"] == 1
    times = content_times(answers[0])
    assert len(times) == 300
    assert not [at for at in times if 1.02 < at < 6.0]
    assert times[-1] == pytest.approx(predicted(PROFILE, 6, 300)[-1] + 5, abs=0.02)


async def test_crash_and_restart(autojump_clock: trio.testing.MockClock) -> None:
    """Whoever waits is cut off, all is refused until it is up, and cache and books are new."""
    app = simulated()
    assert (await chat(app, LONG, max_tokens=1)).status == 200
    cut = 0

    async def one(stream: bool) -> None:
        nonlocal cut
        with pytest.raises(EngineDiedError):
            await chat(app, max_tokens=1000, stream=stream)
        cut += 1

    async with trio.open_nursery() as nursery:
        for stream in (True, False):
            nursery.start_soon(one, stream)
        await trio.sleep(1.0)
        with trio.fail_after(0.01):
            await change(app, crash_s=10)
            await trio.testing.wait_all_tasks_blocked()
        assert cut == 2
    for path in ("/health", "/metrics", "/v1/models"):
        assert (await call(app, "GET", path)).status == 503
    refused = await chat(app, max_tokens=1)
    assert refused.status == 503
    assert refused.headers["retry-after"] == "10"
    assert (await call(app, "GET", FAULTS)).json()["down_s"] == pytest.approx(10, abs=0.01)
    await trio.sleep(10)
    assert (await call(app, "GET", "/health")).status == 200
    books = await scrape(app)
    assert books["vllm:generation_tokens_total"] == books["vllm:num_requests_running"] == 0
    assert cached(await chat(app, LONG, max_tokens=1)) == 0
    assert cached(await chat(app, LONG, max_tokens=1)) > 0


async def test_several_answers_of_one_request_are_cut_together(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A crash ends a request with several prompts with one error, streamed or not."""
    for stream in (True, False):
        app = simulated()

        async def one(app: Application = app, stream: bool = stream) -> None:
            with pytest.raises(EngineDiedError):
                await post(
                    app, "/v1/completions", prompt=["a", "b"], max_tokens=1000, stream=stream
                )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            await trio.sleep(1.0)
            await change(app, crash_s=0)


async def test_warm_up(autojump_clock: trio.testing.MockClock) -> None:
    """After a start steps are slower by changing factors, the same for the same seed; then not."""
    runs = []
    for seed in (1, 1, 2):
        app = simulated(faults=Faults(warmup_s=10, warmup_slow=8), seed=seed)
        runs.append([await mean_itl_s(app) for _ in range(40)])
    plain_s = await mean_itl_s(simulated())
    assert runs[0] == pytest.approx(runs[1])
    assert runs[0] != pytest.approx(runs[2])
    assert max(runs[0]) > 1.5 * plain_s
    assert runs[0][-1] == pytest.approx(plain_s)
    app = simulated(faults=Faults(warmup_s=10, warmup_slow=8), seed=1)
    await trio.sleep(60)
    # It starts when it is first used; and again after a crash.
    assert await mean_itl_s(app) == pytest.approx(runs[0][0])
    await trio.sleep(60)
    assert await mean_itl_s(app) == pytest.approx(plain_s)
    await change(app, crash_s=1)
    await trio.sleep(1)
    assert await mean_itl_s(app) == pytest.approx(runs[0][0])


def test_warm_up_declines() -> None:
    """The factor stays within its bound, which falls to 1."""
    faults = Faults(warmup_s=10, warmup_slow=5, slow=2)
    for seed in range(20):
        factors = [Slowness(seed).factor(faults, up_s) for up_s in range(12)]
        assert all(
            2 <= factor <= 2 * (1 + 4 * max(0.0, 1 - stage / 10))
            for stage, factor in enumerate(factors)
        )
        assert factors[-1] == factors[-2] == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"slow": 0},
        {"slow": "fast"},
        {"foreign_load": 0.81},
        {"error_rate": -0.1},
        {"error_status": 404},
        {"warmup_s": -1},
        {"warmup_slow": 0.5},
        {"stall_s": -1},
        {"crash_s": 1e9},
        {"crashes": 1},
    ],
)
async def test_wrong_faults_are_refused(wrong: dict[str, Any]) -> None:
    """400 that names the fault, and nothing is changed."""
    app = simulated()
    before = (await call(app, "GET", FAULTS)).json()
    answer = (
        await post(app, FAULTS, error_rate=0.5, **wrong)
        if "error_rate" not in wrong
        else (await post(app, FAULTS, slow=2, **wrong))
    )
    assert answer.status == 400
    assert next(iter(wrong)) in answer.json()["error"]["message"]
    assert (await call(app, "GET", FAULTS)).json() == before


async def test_only_simulated_replicas_have_faults() -> None:
    """The demo has no such path, and its settings take no faults."""
    assert (await call(create_app(), "GET", FAULTS)).status == 404
    with pytest.raises(ValueError, match="none without a profile"):
        ReplicaSettings(faults=Faults(slow=2))
    with pytest.raises(ValueError, match="profile"):
        create_app().crash(1)


async def test_time_scale(autojump_clock: trio.testing.MockClock) -> None:
    """All times of the engine are multiplied, so that their ratios stay."""
    quick = load_profile("h100-llama-8b", time_scale=0.1)
    fast = await together(simulated(quick), 16, said=LONG, max_tokens=50, stream=True)
    real = await together(simulated(), 16, said=LONG, max_tokens=50, stream=True)
    times = [sorted(at for answer in run for at in content_times(answer)) for run in (fast, real)]
    assert [10 * at for at in times[0]] == pytest.approx(times[1], rel=1e-3)


def test_profiles_are_found_and_changed(tmp_path: Path) -> None:
    """By name or from a file, with changes; the context is what fits into memory."""
    profile = load_profile("rtx4090-llama-8b", max_num_seqs=3)
    assert profile.max_num_seqs == 3
    assert profile.max_model_len == profile.kv_tokens < 50_000
    path = tmp_path / "mine.json"
    path.write_bytes(msgspec.json.encode(profile))
    assert load_profile(str(path), kv_tokens=1024, max_model_len=512).kv_tokens == 1024
    assert load_profile(str(path)) == profile


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "h100-llama"}, "h100-llama-8b"),
        ({"name": "/nowhere/mine.json"}, "/nowhere/mine.json"),
        ({"max_model_len": 10**7}, "does not fit into the memory"),
        ({"max_num_batched_tokens": 100}, "max_num_seqs"),
        ({"kv_tokens": 3}, "one block"),
        ({"time_scale": 0}, "time scale"),
    ],
)
def test_profiles_that_cannot_be(changes: dict[str, Any], words: str) -> None:
    """Refused with what is wrong, as an engine would not start."""
    with pytest.raises(ProfileError, match=words):
        load_profile(**{"name": "h100-llama-8b", **changes})


async def test_state_is_shown_as_json() -> None:
    """GET shows all faults and what is going on."""
    shown = (await call(simulated(faults=Faults(slow=2)), "GET", FAULTS)).json()
    assert shown == {
        **json.loads(msgspec.json.encode(Faults(slow=2))),
        "stalled_s": 0,
        "down_s": 0,
    }
