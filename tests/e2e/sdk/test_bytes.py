"""Bodies pass through to the byte: what the client sent is what the replica got, and back."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest

from tests.e2e.sdk.replica import Asked, ScriptedReplica, whole
from tests.e2e.sdk.serving import Relay, relaying

CHAT = "/v1/chat/completions"
TRANSCRIPTIONS = "/v1/audio/transcriptions"

# What a JSON decoder and encoder would change: digits, exponents, escapes, repeated keys, space.
ODD = (
    '{ "temperature" : 0.10000000000000000555, "seed":1E+2,"big":123456789012345678901234567890,\n'
    '\t"minus": -0.0, "model": "scripted", "text": "\\u00e9\\/é😀\\ud83d\\ude00",\r\n'
    ' "empty" : { },'
    '  "nested": {"model": "scripted", "list": [1.0, 1, 1e0, "model"]}, "unknown": null,\n'
    '  "messages":[{"role":"user","content":"say \\"model\\": \\"scripted\\""}], "n": 1, "n": 2 }\n'
).encode()


async def _post(relay: Relay, path: str, body: bytes, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        headers = {"content-type": "application/json", **headers}
        return await client.post(relay.url + path, content=body, headers=headers)


async def test_a_body_is_not_touched() -> None:
    """Unknown fields, odd numbers, escapes and white space reach the replica as they are."""
    replica = ScriptedReplica({CHAT: whole({})})
    async with relaying(replica) as relay:
        answer = await _post(relay, CHAT, ODD)
    assert answer.status_code == 200
    assert replica.asked[0].body == ODD


async def test_an_alias_replaces_the_name_and_nothing_else() -> None:
    """With `served_model`, the top-level `model` differs, and not one byte more."""
    replica = ScriptedReplica({CHAT: whole({})})
    body = ODD.replace(b'"model": "scripted", "text"', b'"model": "public", "text"')
    async with relaying(replica, model="public", served_model='org/"inner" ü') as relay:
        await _post(relay, CHAT, body)
    expected = body.replace(b'"public"', '"org/\\"inner\\" ü"'.encode())
    assert replica.asked[0].body == expected


async def test_the_sdk_and_an_alias() -> None:
    """Through the SDK: the replica is asked for its own name, extra fields are kept."""
    sent: list[bytes] = []
    replica = ScriptedReplica({CHAT: whole({"choices": []})})
    async with (
        relaying(replica, model="public", served_model="inner") as relay,
        _recording_client(relay, sent) as client,
    ):
        await client.chat.completions.create(
            model="public",
            messages=[{"role": "user", "content": "my model is public"}],
            extra_body={"top_k": 3, "chat_template_kwargs": {"model": "nested"}},
        )
    [asked] = replica.asked
    assert sent[0].count(b'"public"') == 1
    assert asked.body == sent[0].replace(b'"public"', b'"inner"')
    assert asked.json["chat_template_kwargs"] == {"model": "nested"}
    assert asked.json["top_k"] == 3


async def test_an_answer_is_not_touched() -> None:
    """The replica's body and headers come back as they are; the model's name is the replica's."""
    handler = whole(ODD, headers={"x-engine": "scripted 1", "x-request-id": "replica's own"})
    replica = ScriptedReplica({CHAT: handler})
    async with relaying(replica) as relay:
        answer = await _post(relay, CHAT, b'{"model":"scripted"}', **{"x-request-id": "mine"})
    assert answer.content == ODD
    assert answer.headers["x-engine"] == "scripted 1"
    assert answer.headers.get_list("x-request-id") == ["mine"]
    assert replica.asked[0].headers["x-request-id"] == "mine"


async def test_path_query_and_headers_go_on() -> None:
    """The query, the key and unknown headers reach the replica; hop-by-hop ones do not."""
    replica = ScriptedReplica({CHAT: whole({})})
    async with relaying(replica) as relay:
        await _post(
            relay,
            f"{CHAT}?beta=true&x=%20",
            b'{"model":"scripted"}',
            authorization="Bearer mine",
            **{"x-anything": "kept", "te": "trailers", "connection": "x-hop", "x-hop": "gone"},
        )
    [asked] = replica.asked
    assert asked.target == f"{CHAT}?beta=true&x=%20"
    assert asked.headers["authorization"] == "Bearer mine"
    assert asked.headers["x-anything"] == "kept"
    assert {"te", "x-hop", "accept-encoding"} & set(asked.headers) == set()
    assert asked.headers["host"] == replica.url.removeprefix("http://")


# --- forms

# Bytes that look like the end of a part, and that are no text.
AUDIO = (
    b'RIFF\x00\xff\r\n--not the boundary\r\nname="model"\r\n\r\nnone\r\n' + bytes(range(256)) * 40
)


def _recording_client(relay: Relay, sent: list[bytes]) -> openai.AsyncOpenAI:
    async def record(request: Any) -> None:
        sent.append(await request.aread())

    http_client = openai.DefaultAsyncHttpxClient(event_hooks={"request": [record]})
    return openai.AsyncOpenAI(
        base_url=relay.base_url, api_key="unused", max_retries=0, http_client=http_client
    )


async def _transcribe(replica: ScriptedReplica, **pool: Any) -> tuple[Asked, bytes, str]:
    sent: list[bytes] = []
    async with relaying(replica, **pool) as relay, _recording_client(relay, sent) as client:
        answer = await client.audio.transcriptions.create(
            model=str(pool.get("model", "scripted")),
            file=("speech.wav", AUDIO, "audio/wav"),
            language="fr",
            response_format="json",
        )
    return replica.asked[0], sent[0], answer.text


async def test_a_form_is_not_touched() -> None:
    """A transcription reaches the replica byte for byte, under the boundary the SDK chose."""
    replica = ScriptedReplica({TRANSCRIPTIONS: whole({"text": "Bonjour"})})
    asked, sent, text = await _transcribe(replica)
    assert text == "Bonjour"
    assert asked.body == sent
    assert AUDIO in asked.body
    boundary = asked.headers["content-type"].partition("boundary=")[2]
    assert asked.body.rstrip().endswith(f"--{boundary}--".encode())


async def test_an_alias_in_a_form() -> None:
    """In a form the name is replaced in its own part; file and length are right."""
    replica = ScriptedReplica({TRANSCRIPTIONS: whole({"text": "Bonjour"})})
    asked, sent, _ = await _transcribe(replica, model="public", served_model="org/inner")
    assert sent.count(b"\r\n\r\npublic\r\n") == 1
    assert asked.body == sent.replace(b"\r\n\r\npublic\r\n", b"\r\n\r\norg/inner\r\n")


async def test_speech_is_bytes() -> None:
    """Audio that a replica answers with arrives as it was sent."""
    replica = ScriptedReplica({"/v1/audio/speech": whole(AUDIO, content_type="audio/wav")})
    async with relaying(replica) as relay, _recording_client(relay, []) as client:
        answer = await client.audio.speech.create(model="scripted", voice="alloy", input="Hi")
        assert answer.content == AUDIO
        assert answer.response.headers["content-type"] == "audio/wav"


async def test_rerank() -> None:
    """An endpoint that no SDK has: it is relayed like the others."""
    replica = ScriptedReplica({"/v1/rerank": whole({"results": [{"index": 0}]})})
    async with relaying(replica) as relay:
        answer = await _post(relay, "/v1/rerank", b'{"model":"scripted","query":"q"}')
    assert answer.json() == {"results": [{"index": 0}]}


@pytest.mark.parametrize(
    ("body", "place"),
    [(b'{"model": "scripted",}', "byte 21"), (b"", "truncated"), (b'{"model": 5}', "$.model")],
)
async def test_malformed_bodies_name_the_place(body: bytes, place: str) -> None:
    """400, and the message says where."""
    async with relaying(ScriptedReplica({})) as relay:
        answer = await _post(relay, CHAT, body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert place in error["message"]
    assert error["type"] == "invalid_request_error"
