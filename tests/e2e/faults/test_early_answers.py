"""Replicas that answer before they have read the request, and close."""

from __future__ import annotations

import pytest

from tests.e2e.faults.client import post
from tests.e2e.faults.scripted import CLOSE, FakeReplica, Peer, json_answer, say
from tests.e2e.kit import relaying

BODY = b'{"error": {"message": "too large", "code": "too_large"}}'
LARGE = post(input="x" * 8_388_608)


async def read_head(peer: Peer) -> None:
    """And nothing of the body but what came with it."""
    read = b""
    while b"\r\n\r\n" not in read:
        data = await peer.sock.recv(4_096)
        assert data
        read += data


@pytest.mark.parametrize("status", ["413 Content Too Large", "401 Unauthorized"])
async def test_refused_while_the_body_comes(status: str) -> None:
    """The client gets that refusal, once; no other replica is bothered with the same body."""
    refusing = json_answer(BODY, status, b"connection: close")
    fake, other = FakeReplica([read_head, say(refusing), CLOSE]), FakeReplica()
    async with relaying(fake, other, retries=2) as triolet:
        answer = await triolet.call(LARGE)
        assert answer.whole
        assert (answer.status, answer.body) == (int(status[:3]), BODY)
        assert answer.headers["x-triolet-attempts"] == "1"
        assert answer.headers["x-triolet-replica"] == fake.url
        line = await triolet.logged()
        assert (line["status"], line["outcome"]) == (int(status[:3]), "status")
        assert line["attempts"] == 1
        assert len(fake.peers) == 1
        assert other.peers == []
        assert triolet.failed_attempts() == {"status": 1}
