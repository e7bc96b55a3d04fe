"""Calibration: rates found again from times made with known ones, and whole in virtual time."""

from __future__ import annotations

import re
from random import Random

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.wire.memory import memory_network
from balancer.wire.transport import Transport
from bench.engine.profile import Profile
from bench.engine.profiles import find_profile
from bench.load.calibrate import Trial, Trials, measure
from bench.load.fit import nonnegative_fit, solve
from bench.load.rates import Cold, Decoding, as_profile, fit_rates
from tests.balancer.scripted import DONE, STREAM_HEAD, chunk, read_request
from tests.bench.load.rig import FINISH, URL, plan, said, usage

Clock = trio.testing.MockClock
LENGTHS = (64, 256, 512, 1024, 2048, 4096, 8000)
BATCHES = ((1, 128), (8, 128), (32, 128), (1, 4160), (8, 4160))


def ttft_s(profile: Profile, tokens: int) -> float:
    """What the profile says of a cold prompt on an idle engine."""
    total, largest = profile.request_s + profile.request_token_s * tokens, 0
    for begin in range(0, tokens, profile.max_num_batched_tokens):
        largest = min(profile.max_num_batched_tokens, tokens - begin)
        attended = largest * begin + largest * largest / 2
        total += profile.step_time_s(largest, 1, attended=attended)
    return total


def tpot_s(profile: Profile, sequences: int, context: float) -> float:
    return profile.step_time_s(sequences, sequences, context=sequences * context)


def test_solve() -> None:
    """A small system; what is not determined is 0."""
    assert solve([[2, 1], [1, 3]], [5, 10]) == pytest.approx([1, 3])
    assert solve([[0, 0], [0, 2]], [0, 4]) == pytest.approx([0, 2])


@given(st.lists(st.floats(0.1, 10), min_size=3, max_size=3))
def test_fit_finds_what_was_put_in(wanted: list[float]) -> None:
    """Exact data gives the coefficients back, without error."""
    rows = [[1.0, float(x), float(x * x)] for x in range(1, 8)]
    targets = [sum(a * b for a, b in zip(row, wanted, strict=True)) for row in rows]
    found, error = nonnegative_fit(rows, targets, targets)
    assert found == pytest.approx(wanted, rel=1e-4)
    assert error < 1e-6


def test_fit_is_never_negative() -> None:
    """A falling line fits best with a slope of 0 if none below it is allowed."""
    found, _ = nonnegative_fit([[1, 1], [1, 2], [1, 3]], [3, 2, 1], [1, 1, 1])
    assert found == pytest.approx([2, 0])


@pytest.mark.parametrize("name", ["h100-llama-8b", "a100-llama-8b", "rtx4090-llama-8b"])
def test_rates_of_a_known_engine(name: str) -> None:
    """Times made with a profile give its rates back, starting from a base that is another one."""
    truth = find_profile(name)
    base = find_profile("h200-llama-8b", max_num_batched_tokens=truth.max_num_batched_tokens)
    cold = [Cold(length, ttft_s(truth, length)) for length in LENGTHS]
    decoding = [Decoding(n, context, tpot_s(truth, n, context)) for n, context in BATCHES]
    found = as_profile(fit_rates(cold, decoding, base), base, "found")
    for length in (100, 1500, 6000):
        assert ttft_s(found, length) == pytest.approx(ttft_s(truth, length), rel=0.02)
    for sequences, context in ((4, 500), (16, 2000), (64, 300)):
        wanted = tpot_s(truth, sequences, context)
        assert tpot_s(found, sequences, context) == pytest.approx(wanted, rel=0.03)
    assert found.token_s == pytest.approx(truth.token_s, rel=0.05)
    assert found.context_s == pytest.approx(truth.context_s, rel=0.05)
    assert found.request_s == pytest.approx(truth.request_s, rel=0.1)


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_noise_is_borne(seed: int) -> None:
    """Times that are 2 % off give predictions that are within 6 %."""
    random, truth = Random(seed), find_profile("h100-llama-8b")
    cold = [Cold(n, ttft_s(truth, n) * random.uniform(0.98, 1.02)) for n in LENGTHS]
    decoding = [
        Decoding(n, context, tpot_s(truth, n, context) * random.uniform(0.98, 1.02))
        for n, context in BATCHES
    ]
    found = as_profile(fit_rates(cold, decoding, truth), truth, "found")
    assert ttft_s(found, 3000) == pytest.approx(ttft_s(truth, 3000), rel=0.06)
    assert tpot_s(found, 16, 1000) == pytest.approx(tpot_s(truth, 16, 1000), rel=0.06)


def test_too_few_measurements() -> None:
    """Two lengths, or no batch, are refused."""
    base = find_profile("h100-llama-8b")
    with pytest.raises(ValueError, match="three lengths"):
        fit_rates([Cold(1, 0.1), Cold(2, 0.1)], [Decoding(1, 1, 0.1)], base)
    with pytest.raises(ValueError, match="one measurement"):
        fit_rates([Cold(n, 0.1) for n in (1, 2, 3)], [], base)


@pytest.mark.slow
async def test_whole_calibration(autojump_clock: Clock) -> None:
    """Against an engine in memory that keeps a profile's times: its rates are found."""
    truth = find_profile("a100-llama-8b")
    running = 0

    async def engine(stream: Transport) -> None:
        nonlocal running
        while (request := await read_request(stream)) is not None:
            body = msgspec.json.decode(request.partition(b"\r\n\r\n")[2])
            prompt = len(re.findall(r"\w+", body["messages"][0]["content"]))
            await trio.sleep(ttft_s(truth, prompt))
            await stream.send_all(STREAM_HEAD + chunk(said(content="a")))
            running += 1
            for written in range(1, body["max_tokens"]):
                await trio.sleep(tpot_s(truth, running, prompt + written))
                await stream.send_all(chunk(said(content=" b")))
            running -= 1
            last = FINISH + usage(prompt, body["max_tokens"]) + DONE
            await stream.send_all(chunk(last) + b"0\r\n\r\n")

    trials = Trials(
        prompts=LENGTHS,
        repeats=1,
        batches=tuple(Trial(sequences, context - 64) for sequences, context in BATCHES),
        batch_repeats=1,
    )
    async with memory_network() as network:
        network.serve(URL, engine)
        cold, decoding, warnings = await measure(plan(), trials, dialer=network)
    assert warnings == []
    assert [one.tokens for one in cold] == list(LENGTHS)
    found = as_profile(fit_rates(cold, decoding, truth), truth, "found")
    assert found.token_s == pytest.approx(truth.token_s, rel=0.05)
    assert tpot_s(found, 16, 1000) == pytest.approx(tpot_s(truth, 16, 1000), rel=0.03)


async def test_calibration_of_a_failing_replica(autojump_clock: Clock) -> None:
    """Failures are not calibrated."""
    async with memory_network() as network:
        with pytest.raises(ValueError, match="nothing listens"):
            await measure(plan(), Trials(repeats=1), dialer=network)
