"""What is found on loopback, and what is left alone."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from balancer.probes.discovery import USUAL_PORTS, Found, discover
from balancer.probes.models import ListedModel, read_models
from balancer.wire.memory import memory_network
from tests.balancer.scripted import Act, ScriptedReplica, Step, answer

Clock = trio.testing.MockClock


@pytest.mark.parametrize(
    ("body", "models"),
    [
        (b'{"object":"list","data":[{"id":"m","created":1}]}', (ListedModel("m"),)),
        (b'{"data":[{"id":"m","owned_by":"vllm"},{"id":"n"}]}', None),
        (b'{"data":[]}', ()),
    ],
)
def test_read_models(body: bytes, models: tuple[ListedModel, ...] | None) -> None:
    """The ids and owners, whatever else is said."""
    expected = (ListedModel("m", "vllm"), ListedModel("n")) if models is None else models
    assert read_models(body) == expected


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"data":{}}', b'{"data":[{"name":"m"}]}', b'{"models":[]}']
)
def test_no_model_list(body: bytes) -> None:
    """Anything else is none."""
    assert read_models(body) is None


def test_too_long_a_list_is_not_read() -> None:
    """It would hold the loop; no engine has a quarter of a MiB of models."""
    body = b'{"data":[' + b",".join([b'{"id":"a"}'] * 30_000) + b"]}"
    assert read_models(body) is None


def models(*names: str) -> list[Step]:
    listed = b",".join(b'{"id":"%b","owned_by":"x"}' % name.encode() for name in names)
    return [answer(b'{"data":[%b]}' % listed)]


async def test_discover(autojump_clock: Clock) -> None:
    """Engines in the order of the ports, with their models; others are left alone."""
    async with memory_network() as network:
        here = "http://127.0.0.1:{}"
        answers: dict[int, list[Step]] = {
            1234: models("last"),
            3000: [answer(b"<html>a dashboard</html>", content_type=b"text/html")],
            8000: [0.3, *models("a", "b")],
            8080: [answer(b'{"data":[]}')],
            11434: [answer(b'{"data":[{"id":"secret"}]}', status=401)],
        }
        for port, steps in answers.items():
            network.serve(here.format(port), ScriptedReplica(steps))
        found = await discover(network)
        assert found == [
            Found("vLLM", here.format(8000), (ListedModel("a", "x"), ListedModel("b", "x"))),
            Found("LM Studio", here.format(1234), (ListedModel("last", "x"),)),
        ]
        assert trio.current_time() == pytest.approx(0.3)
        assert (network.open, network.dialed) == (0, len(USUAL_PORTS))


async def test_takes_no_longer_than_the_limit(autojump_clock: Clock) -> None:
    """Whoever hangs, resets or talks nonsense costs that much and nothing else."""
    async with memory_network() as network:
        scripts: list[list[Step]] = [[Act.HANG], [Act.RESET], [b"+OK\r\n"], [9.0, *models("m")]]
        ports = {str(port): port for port in range(1, 5)}
        for port, steps in enumerate(scripts, 1):
            network.serve(f"http://127.0.0.1:{port}", ScriptedReplica(steps))
        assert await discover(network, limit_s=0.4, ports=ports) == []
        assert trio.current_time() == pytest.approx(0.4)
        assert network.open == 0


async def test_nothing_listens(autojump_clock: Clock) -> None:
    """Costs no time."""
    async with memory_network() as network:
        assert await discover(network) == []
        assert trio.current_time() == 0
