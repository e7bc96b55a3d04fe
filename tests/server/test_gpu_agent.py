"""`triolet gpu-agent`: its page, and the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import trio
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from balancer.probes.exposition import read_samples
from balancer.probes.gpu_exporter import read_gpus
from balancer.probes.gpu_sample import CLOCK_REASONS, GpuProcess, GpuSample
from balancer.wire.poller import open_poller
from server.cli_gpu import gpu_agent
from server.edge.accept import bind
from server.edge.http1 import Http1Server
from server.gpu_agent import GpuAgent, render_page
from tests.balancer.probes.fake_nvml import (
    GPU_A,
    GPU_B,
    ROOT,
    FakeNvml,
    build,
    environment,
    loaded,
)

REASONS = tuple(CLOCK_REASONS.values())
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
BYTES = st.none() | st.integers(0, 2**40)

SAMPLES = st.lists(
    st.builds(
        GpuSample,
        uuid=TEXT,
        index=st.none() | st.integers(0, 99),
        parent=st.none() | TEXT,
        utilisation=st.none() | st.floats(0, 1),
        memory_used_bytes=BYTES,
        memory_free_bytes=BYTES,
        power_w=st.none() | st.floats(0, 2000),
        temperature_c=st.none() | st.floats(0, 120),
        throttled=st.sets(st.sampled_from(REASONS)).map(
            lambda found: tuple(reason for reason in REASONS if reason in found)
        ),
        xid=st.none() | st.integers(1, 200),
        fault=st.none() | TEXT,
        processes=st.none()
        | st.lists(
            st.builds(
                GpuProcess,
                st.integers(1, 2**22),
                BYTES,
                st.lists(st.integers(1, 65535), max_size=3).map(tuple),
            ),
            max_size=4,
        ).map(tuple),
    ),
    max_size=4,
    unique_by=lambda sample: sample.uuid,
)


@given(SAMPLES)
def test_page_is_read_as_it_was_meant(samples: list[GpuSample]) -> None:
    """What the agent writes, a Triolet reads back, whatever it is."""
    assert read_gpus(render_page(samples).encode()) == samples


def test_page_is_prometheus_text() -> None:
    """Prometheus' own parser accepts it: one family after another, each with its type."""
    from prometheus_client.parser import text_string_to_metric_families

    sample = GpuSample(
        uuid='GPU-"x"', index=0, power_w=3.5, fault="a\\b\n", processes=(GpuProcess(1, None, (8,)),)
    )
    families = {
        family.name: family.samples
        for family in text_string_to_metric_families(render_page([sample]))
    }
    assert families["triolet_gpu_power_watts"][0].value == 3.5
    assert families["triolet_gpu_fault"][0].labels["fault"] == "a\\b\n"
    assert families["triolet_gpu_process_memory_bytes"][0].value == -1
    assert "triolet_gpu_temperature_celsius" not in families


async def test_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last sample over HTTP; 503 with the reason while there is none; `/healthz` anyway."""
    poller, listener = open_poller(), bind("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with loaded(tmp_path, monkeypatch) as fake, trio.fail_after(10):
        fake.say({"init": "!9"})
        agent = GpuAgent(interval_s=0.005)
        async with trio.open_nursery() as nursery, httpx.AsyncClient(base_url=url) as client:
            await nursery.start(poller.run)
            await nursery.start(Http1Server(agent.app, poller).serve, [listener])
            await nursery.start(agent.run)
            refused = await client.get("/metrics")
            assert refused.status_code == 503
            assert "kernel module is not loaded" in refused.text
            assert (await client.get("/healthz")).status_code == 200
            fake.say({"init": None})
            while agent.trouble:  # noqa: ASYNC110 - what is asked for sets no event
                await trio.sleep(0.001)
            answer = await client.get("/metrics")
            assert answer.status_code == 200
            assert [sample.uuid for sample in read_gpus(answer.content)] == [GPU_A, GPU_B]
            nursery.cancel_scope.cancel("the test is over")


@contextmanager
def running(env: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The agent as a process, and its URL."""
    script = "from server.cli_gpu import gpu_agent; gpu_agent()"
    command = [sys.executable, "-c", script, "--listen", "http://127.0.0.1:0", "--interval", "0.1"]
    with subprocess.Popen(
        command, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("GPU agent serves http://127.0.0.1:"), process.communicate()
            yield process, line.split()[-1]
        finally:
            process.kill()


def fetch(url: str, status: int) -> bytes:
    """The page, once it is answered with this status."""
    deadline = time.monotonic() + 10
    while True:
        answer = httpx.get(url, trust_env=False)
        if answer.status_code == status or time.monotonic() > deadline:
            assert answer.status_code == status, answer.text
            return answer.content
        time.sleep(0.01)


@pytest.mark.slow
def test_process(tmp_path: Path) -> None:
    """The command finds the library as any program does, serves its GPUs, and knows which port a
    process with a GPU serves: here its own."""
    fake = FakeNvml(tmp_path / "nvml")
    with running(environment(fake.path, build())) as (process, url):
        fake.say({"0.processes": f"{process.pid}:7"})
        own_port = int(url.rsplit(":", 1)[1].split("/")[0])
        deadline = time.monotonic() + 10
        while True:
            sample = read_gpus(fetch(url, 200))[0]
            assert time.monotonic() < deadline
            if sample.processes == (GpuProcess(process.pid, 7, (own_port,)),):
                break
            time.sleep(0.01)
        process.terminate()
        assert process.wait(timeout=5) == 0
        assert process.communicate()[1] == ""


@pytest.mark.slow
def test_process_ends_while_the_driver_hangs(tmp_path: Path) -> None:
    """SIGTERM ends the process at once, although a call into the driver does not return."""
    fake = FakeNvml(tmp_path / "nvml")
    with running(environment(fake.path, build())) as (process, url):
        fetch(url, 200)
        fake.say({"hang": 1})
        time.sleep(0.3)  # until the next sample is under way
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
        assert time.monotonic() - started < 2


@pytest.mark.slow
def test_process_without_a_driver() -> None:
    """On a machine without a GPU it starts, and says why there is nothing."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with running(env) as (process, url):
        if os.path.exists("/dev/nvidiactl"):
            pytest.skip("this machine has an NVIDIA GPU")
        assert b"no NVIDIA driver" in fetch(url, 503)
        assert read_samples(fetch(url, 503), b"triolet_gpu_info") == []
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=5) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--listen", "nonsense"], "--listen"),
        (["--listen", "https://127.0.0.1:0"], "plain http"),
        (["--interval", "0"], "--interval"),
    ],
)
def test_wrong_options(options: list[str], words: str) -> None:
    """A wrong option is named, before anything is opened."""
    result = CliRunner().invoke(gpu_agent, options)
    assert result.exit_code == 2
    assert words in result.output


def test_address_in_use() -> None:
    """An address that is taken is told in one line."""
    with bind("127.0.0.1", 0) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        result = CliRunner().invoke(gpu_agent, ["--listen", url])
    assert result.exit_code == 1
    assert "cannot listen" in result.output
