"""From a request's body to what policies see of it."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer import prompt as prompt_module
from balancer.policies import BLOCK_TOKENS, Ask
from balancer.prompt import Prompt
from balancer.wire.media import MEDIA_TOKENS, without_media
from balancer.wire.page import RENDERED_BYTES
from balancer.wire.prompts import read_prompt

LONG_TEXT = "Berlin, Paris and Rome are towns. " * 40


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", **fields}).encode()


def blocks(tokens: int = 1, /, **fields: Any) -> Sequence[int]:
    """By default in the smallest blocks there are: 4 bytes."""
    return Prompt(body(**fields)).blocks(tokens)


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many numbers two lists begin with in common."""
    pairs = zip(one, other, strict=False)
    return next((k for k, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


# What the model reads.

_texts = st.lists(st.text(max_size=20), min_size=1, max_size=4)
_tool = {"type": "function", "function": {"name": "f", "parameters": {"b": {}, "a": [1, 2.50]}}}


@given(_texts, st.booleans(), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_how_a_body_is_written_does_not_matter(
    texts: list[str], parted: bool, shuffler: random.Random
) -> None:
    """Order of the outer keys, white space, escapes, and what is no part of the prompt."""
    messages = [user(text) for text in texts]
    plain = {"model": "m", "messages": messages, "tools": [_tool]}
    parts = [
        user([{"text": text, "type": "text", "cache_control": {"type": "ephemeral"}}])
        for text in texts
    ]
    other = {
        "temperature": 0.3,
        "stream": True,
        "user": "somebody",
        "max_tokens": 7,
        "messages": parts if parted else messages,
        "tools": [_tool],
        "model": "n",
        "system": None,
        "functions": [],
    }
    members = list(other.items())
    shuffler.shuffle(members)
    first = Prompt(json.dumps(plain).encode())
    second = Prompt(json.dumps(dict(members), indent=1, ensure_ascii=False).encode())
    assert first.blocks(1) == second.blocks(1) != []
    assert first.prompt_tokens == second.prompt_tokens


def test_what_the_model_reads_does_matter() -> None:
    """Each of these is another prompt than each other."""
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    bodies: list[dict[str, Any]] = [
        {"messages": [user("hi")]},
        {"messages": [{"role": "system", "content": "hi"}]},
        {"messages": [user("hi"), user("hi")]},
        {"messages": [user("hi")], "tools": [_tool]},
        {"messages": [user("hi")], "functions": [_tool["function"]]},
        {"messages": [user("hi")], "documents": [{"text": "d"}]},
        {"messages": [user("hi")], "system": "be brief"},
        {"messages": [user("hi") | {"name": "anna"}]},
        {"messages": [{"role": "assistant", "content": "hi"}]},
        {"messages": [{"role": "assistant", "content": "hi", "tool_calls": [call]}]},
        {"messages": [{"role": "assistant", "content": "hi", "reasoning_content": "hmm"}]},
        {"messages": [{"role": "tool", "content": "hi", "tool_call_id": "c1"}]},
        {"messages": [{"role": "tool", "content": "hi", "tool_call_id": "c2"}]},
        {"messages": [user([{"type": "odd", "thing": 1}])]},
        {"messages": [user([{"type": "odd", "thing": 2}])]},
        {"messages": [user({"odd": 1})]},
        {"input": [{"type": "function_call", "call_id": "1", "name": "f", "arguments": ""}]},
        {"input": [{"type": "function_call", "call_id": "1", "name": "f", "arguments": "1"}]},
        {"prompt": "hi there"},
        {"query": "hi", "documents": ["a", "b"]},
    ]
    numbers = [tuple(blocks(**each)) for each in bodies]
    assert len(set(numbers)) == len(numbers)


def test_tools_come_first() -> None:
    """Then the system prompt, then the messages, wherever they stand in the body."""
    text = read_prompt(body(messages=[user("question")], system="be brief", tools=[_tool])).text
    assert text.index(b'"b":{},"a":[1,2.5]') < text.index(b"be brief") < text.index(b"question")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"input": LONG_TEXT}, {"input": [user(LONG_TEXT)]}),
        ({"system": LONG_TEXT}, {"system": [{"type": "text", "text": LONG_TEXT}]}),
        ({"instructions": LONG_TEXT}, {"system": LONG_TEXT}),
        ({"input": [user([{"type": "input_text", "text": LONG_TEXT}])]}, {"input": LONG_TEXT}),
        ({"prompt": LONG_TEXT}, {"prompt": [LONG_TEXT, "another"]}),
        ({"prompt": [1, 2, 3] * 20}, {"prompt": [[1, 2, 3] * 20, [4]]}),
        (
            {"messages": [user(LONG_TEXT)]},
            {"messages": [user(LONG_TEXT) | {"name": None}], "tools": None},
        ),
    ],
)
def test_two_ways_to_say_the_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Texts and their parts, items and their short form."""
    assert blocks(**one) == blocks(**other) != []


def test_a_breakpoint_is_no_part_of_the_prompt() -> None:
    """`cache_control` moves on with every turn."""
    for part in (
        {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}},
        {"type": "tool_result", "tool_use_id": "t", "content": "done"},
        {"type": "image", "source": {"type": "url", "url": "u"}},
        {"type": "thinking", "thinking": "hmm", "signature": "s"},
    ):
        marked = part | {"cache_control": {"type": "ephemeral"}}
        assert blocks(messages=[user([part])]) == blocks(messages=[user([marked])]) != []


def test_a_line_that_is_another_each_time_is_no_prompt() -> None:
    """vLLM leaves it out; with it in, no agent's prompt would ever be found again."""
    line = {"type": "text", "text": "x-anthropic-billing-header: cc_version=2; cch=74943;"}
    text = {"type": "text", "text": LONG_TEXT}
    assert blocks(system=[line, text]) == blocks(system=[text])


# Turns of a conversation.

Turns = Callable[[list[str]], bytes]


def _chat(texts: list[str]) -> bytes:
    roles = ("user", "assistant")
    messages = [{"role": roles[k % 2], "content": text} for k, text in enumerate(texts)]
    return body(messages=[{"role": "system", "content": LONG_TEXT}, *messages], tools=[_tool])


def _agent(texts: list[str]) -> bytes:
    messages: list[dict[str, Any]] = [user(LONG_TEXT)]
    for text in texts:
        function = {"name": "f", "arguments": json.dumps({"x": text})}
        call = {"id": f"call_{len(messages)}", "type": "function", "function": function}
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": text})
    return body(tools=[_tool], messages=messages)


def _messages(texts: list[str]) -> bytes:
    messages: list[dict[str, Any]] = []
    for k, text in enumerate(texts):
        use = {"type": "tool_use", "id": f"t{k}", "name": "f", "input": {"x": text}}
        result = {"type": "tool_result", "tool_use_id": f"t{k}", "content": text}
        messages.append({"role": "assistant", "content": [{"type": "text", "text": text}, use]})
        messages.append(user([result]))
    # The breakpoint stands in the last block of each turn.
    messages[-1]["content"][-1]["cache_control"] = {"type": "ephemeral"}
    return body(system=[{"type": "text", "text": LONG_TEXT}], tools=[_tool], messages=messages)


def _responses(texts: list[str]) -> bytes:
    items: list[dict[str, Any]] = []
    for k, text in enumerate(texts):
        items.append(user([{"type": "input_text", "text": text}]))
        items.append({"type": "function_call", "call_id": f"c{k}", "name": "f", "arguments": text})
        items.append({"type": "function_call_output", "call_id": f"c{k}", "output": text})
    return body(instructions=LONG_TEXT, tools=[_tool], input=items)


def _completion(texts: list[str]) -> bytes:
    return body(prompt=LONG_TEXT + "".join(texts))


def _ids(texts: list[str]) -> bytes:
    return body(prompt=[ord(each) for each in LONG_TEXT + "".join(texts)])


DIALECTS: list[Turns] = [_chat, _agent, _messages, _responses, _completion, _ids]


@pytest.mark.parametrize("turns", DIALECTS)
@given(_texts, _texts)
@settings(max_examples=25)
def test_a_turn_begins_with_the_one_before(turns: Turns, texts: list[str], more: list[str]) -> None:
    """In every API all blocks of the earlier prompt are the first of the later one."""
    before, after = Prompt(turns(texts)), Prompt(turns(texts + more))
    for tokens in (1, BLOCK_TOKENS):
        numbers = before.blocks(tokens)
        assert list(after.blocks(tokens)[: len(numbers)]) == list(numbers)
        assert len(numbers) == before.prompt_tokens // tokens > 0
    assert after.prompt_tokens >= before.prompt_tokens


# Blocks.


@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=60), st.integers(1, 5))
def test_numbers_are_equal_as_far_as_the_prompts_are(
    start: bytes, one: bytes, other: bytes, tokens: int
) -> None:
    """Number k is the same exactly if all up to the end of block k is."""
    a, b = (start + each for each in (one, other))
    common = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
    if common is None:
        common = min(len(a), len(b))
    # Ids of tokens are put as four bytes each: one id, one nominal token.
    first, second = (blocks(tokens, prompt=list(each)) for each in (a, b))
    assert (len(first), len(second)) == (len(a) // tokens, len(b) // tokens)
    assert shared(first, second) == common // tokens
    tails = first[common // tokens :], second[common // tokens :]
    assert not set(tails[0]) & set(tails[1])


def test_ids_are_told_apart() -> None:
    """Prompts of equally many ids are not alike; 64 of them are one block."""
    one, other = ([start + k for k in range(128)] for start in (0, 1000))
    assert len(blocks(64, prompt=one)) == 2
    assert shared(blocks(64, prompt=one), blocks(64, prompt=other)) == 0
    assert blocks(64, prompt=one[:64]) == blocks(64, prompt=one)[:1]
    assert Prompt(body(prompt=one)).prompt_tokens == 128
    assert Prompt(body(prompt=[one, other])).prompt_tokens == 256


def test_any_size_is_answered_again_and_again() -> None:
    """Also after the text was let go of."""
    asked, again = Prompt(_chat(["hi"])), Prompt(_chat(["hi"]))
    assert asked.blocks(64) is asked.blocks(64)
    assert asked.blocks(16) == again.blocks(16)
    assert asked.blocks(64) == again.blocks(64) == Prompt(_chat(["hi"])).blocks(64)
    assert len(asked.blocks(16)) == asked.prompt_tokens // 16


@pytest.mark.parametrize(
    "salt", ["cache_salt", "extra_key", "previous_response_id", "conversation"]
)
def test_what_keeps_caches_apart(salt: str) -> None:
    """With another salt, or after another beginning that is stored elsewhere, nothing is shared."""
    one, other = (blocks(prompt=LONG_TEXT, **{salt: value}) for value in ("a", "b"))
    assert shared(one, other) == shared(one, blocks(prompt=LONG_TEXT)) == 0
    assert one == blocks(prompt=LONG_TEXT, **{salt: "a"})


# Media.

PNG = "data:image/png;base64,"
_MEDIA: dict[str, Callable[[str], dict[str, Any]]] = {
    "chat": lambda data: {"type": "image_url", "image_url": {"url": PNG + data}},
    "audio": lambda data: {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
    "file": lambda data: {"type": "file", "file": {"file_data": data}},
    "responses": lambda data: {"type": "input_image", "image_url": PNG + data},
    "messages": lambda data: {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": data},
    },
}


@pytest.mark.parametrize("form", _MEDIA)
@pytest.mark.parametrize("size", [10, 60_000, 70_000, 300_000])
def test_media_counts_as_so_many_tokens(form: str, size: int) -> None:
    """However large; known by what it holds, wherever it differs."""

    def prompt(data: str, *, indent: int | None = None) -> Prompt:
        parts = [{"type": "text", "text": LONG_TEXT}, _MEDIA[form](data), {"text": LONG_TEXT}]
        document = {"model": "m", "messages": [user(parts)]}
        return Prompt(json.dumps(document, indent=indent).encode())

    data = "".join(random.Random(size).choices("ABCDEFGHIJ+/", k=size))
    without = len(read_prompt(body(messages=[user(LONG_TEXT * 2)])).text)
    numbers = prompt(data).blocks(1)
    assert prompt(data).prompt_tokens == without // 4 + MEDIA_TOKENS
    assert prompt(data, indent=2).blocks(1) == numbers
    before = len("<|user|>\n" + LONG_TEXT) // 4
    for place in (0, size - 1):
        changed = data[:place] + "x" + data[place + 1 :]
        assert shared(prompt(changed).blocks(1), numbers) == before
    # Of a large one not every byte is looked at: what is compressed differs in more than one.
    some = slice(size // 3, size // 3 + size // 8 + 1)
    half = data[: some.start] + data[some][::-1].lower() + data[some.stop :]
    assert shared(prompt(half).blocks(1), numbers) == before
    assert shared(prompt(data + data[:8]).blocks(1), numbers) == before


@pytest.mark.parametrize("before", [0, 1, 30_000, 64_000, 66_000, 131_000])
@pytest.mark.parametrize("between", [0, 40_000, 65_000, 66_000])
def test_long_media_is_not_decoded(before: int, between: int) -> None:
    """Wherever it stands, it is taken out before."""
    image = {"url": PNG + "A" * 65_600}
    texts = ["a", " " * before, "b"], ["c", " " * between, "d"]
    sent = json.dumps([texts[0], image, texts[1], image]).encode()
    short = without_media(sent)
    assert len(sent) - len(short) == pytest.approx(2 * 65_600, abs=100)
    assert without_media(short) is short
    first, one, second, other = json.loads(short)
    assert [first, second] == list(texts)
    assert one == other


def test_a_picture_in_what_a_tool_gave() -> None:
    """Is one as well, and the rest of the result is read."""
    image = _MEDIA["messages"]("A" * 100_000)
    result = {"type": "tool_result", "tool_use_id": "t", "content": [{"text": LONG_TEXT}, image]}
    asked = Prompt(body(messages=[user([result])]))
    assert 0 <= asked.prompt_tokens - len(LONG_TEXT) // 4 - MEDIA_TOKENS < 20


def test_a_long_text_is_no_media() -> None:
    """Only what stands where media stands is taken for it."""
    text = "A" * 100_000
    for fields in (
        {"prompt": text},
        {"messages": [user(text)]},
        {"messages": [user(json.dumps({"data": text}))]},
        {"messages": [user([{"input": {"data": text + '"', "url": "b"}}])]},
    ):
        assert Prompt(body(**fields)).prompt_tokens >= 25_000


# Session and limit.


@pytest.mark.parametrize(
    ("fields", "session"),
    [
        ({"session_id": "s", "prompt_cache_key": "k"}, "s"),
        ({"prompt_cache_key": "k"}, "k"),
        ({"conversation_id": "c"}, "c"),
        ({"conversation": "c"}, "c"),
        ({"conversation": {"id": "c"}}, "c"),
        ({"metadata": {"session_id": "s"}}, "s"),
        ({"metadata": {"user_id": "user_1_account__session_2"}}, "user_1_account__session_2"),
        ({"metadata": {"user_id": "anna"}}, None),
        ({"metadata": None, "session_id": None}, None),
        ({"metadata": [1], "session_id": 3, "conversation": {"id": [4]}}, None),
        ({"session_id": ""}, None),
        ({"session_id": "s" * 257}, None),
        ({"user": "anna"}, None),
        ({"input": "hi"}, None),
    ],
)
def test_session_of_the_body(fields: dict[str, Any], session: str | None) -> None:
    """By the fields that name a conversation; who asks is none."""
    assert Prompt(body(**fields)).session == session


def test_session_of_the_headers() -> None:
    """Before the body's, in the order given, never the request's id."""
    sent = body(session_id="of the body")
    headers = [
        (b"x-request-id", b"1"),
        (b"x-session-id", b"3"),
        (b"x-correlation-id", b"2"),
        (b"x-mine", b"\xe9"),
    ]
    assert Prompt(sent, headers).session == "2"
    assert Prompt(sent, [*headers, (b"x-session-affinity", b"4")]).session == "4"
    assert Prompt(sent, headers, (b"x-mine", b"x-session-id")).session == "\xe9"
    assert Prompt(sent, headers[:1]).session == "of the body"
    assert Prompt(sent, [(b"x-session-id", b"")]).session == "of the body"
    assert Prompt(b"", headers).session == "2"


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_tokens": 5, "max_completion_tokens": 3}, 3),
        ({"max_output_tokens": 0}, 0),
        ({"max_tokens": None}, None),
        ({"max_tokens": -1, "max_completion_tokens": 9}, 9),
        ({"max_tokens": True}, None),
        ({"max_tokens": "5"}, None),
        ({}, None),
    ],
)
def test_output_tokens(fields: dict[str, Any], limit: int | None) -> None:
    """The least of the limits; what is no limit is none."""
    assert Prompt(body(**fields)).output_tokens == limit


# Bodies that are not as expected.

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "type", "text", "source", "input", "name", "id", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
_FIELDS = [
    *("messages", "input", "prompt", "system", "tools", "documents", "query", "instructions"),
    *("max_tokens", "session_id", "conversation", "metadata", "cache_salt", "extra_key"),
]


def see_all(asked: Prompt) -> None:
    assert asked.prompt_tokens >= 0
    assert len(asked.blocks(1)) <= asked.prompt_tokens
    assert asked.output_tokens is None or asked.output_tokens >= 0
    assert asked.session is None or asked.session


@given(st.dictionaries(st.sampled_from(_FIELDS), _json, max_size=4))
@settings(max_examples=300)
def test_any_json_is_read(fields: dict[str, Any]) -> None:
    """Whatever stands where: the engine answers for it."""
    see_all(Prompt(body(**fields)))


@given(st.binary(max_size=40))
def test_any_bytes_are_read(garbage: bytes) -> None:
    """No JSON, no UTF-8, alone and inside of a prompt."""
    see_all(Prompt(garbage))
    see_all(Prompt(b'{"messages":[{"role":"user","content":"' + garbage + b'"}]}'))
    see_all(Prompt(b'{"prompt":' + garbage + b"}"))


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"--form\r\n",
        b'{"messages":' + b"[" * 100_000,
        b'{"messages":' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"prompt":[-1]}',
        b'{"prompt":[4294967296]}',
        b'{"prompt":[1,"a",[2]]}',
        b'{"prompt":[]}',
        b'{"prompt":[[]]}',
        b'{"input":{}}',
        b'{"max_tokens":1e999}',
        b'{"tools":[1e999, 1.50]}',
        b'{"tools":' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"messages":[' + b"{}," * 300_000 + b"{}]}",
        b'{"messages":[{"role":"user","content":[' + b"{}," * 50_000 + b"{}]}]}",
        b'{"messages":[{"role":"user","content":[{"content":['
        + b'{"content":[' * 50
        + b"]}" * 50
        + b"]}]}]}",
    ],
)
def test_hostile_bodies_are_read(sent: bytes) -> None:
    """Deep, many, out of range, or nothing at all."""
    see_all(Prompt(sent))


def test_what_is_no_utf8_is_part_of_the_prompt() -> None:
    """Where nobody has to read it, here as in the relay, its bytes do."""
    asked = Prompt(b'{"tools":["\xff"],"messages":[{"role":"user","content":"\xff"}]}')
    assert asked.prompt_tokens == len(b'["\xff"]{"role":"user","content":"\xff"}') // 4


def test_no_prompt_is_no_number() -> None:
    """What cannot be read is unknown, not guessed."""
    for sent in (b"", body(), body(messages=5), b'{"messages":['):
        asked = Prompt(sent)
        assert (asked.prompt_tokens, list(asked.blocks(1)), asked.session) == (0, [], None)


def test_a_long_prompt_is_read_so_far() -> None:
    """Of what comes after only the length counts; of what engines never take, all."""
    text = "many words and " * 10_000
    messages = [user(text) for _ in range(10)]
    asked, short = Prompt(body(messages=messages)), Prompt(body(messages=messages[:5]))
    assert len(asked.blocks(64)) == RENDERED_BYTES // 256
    assert asked.blocks(64) == short.blocks(64)
    assert asked.prompt_tokens == pytest.approx(len(text) * 10 / 4, rel=0.01)
    huge = Prompt(body(messages=messages * 3))
    assert len(huge.blocks(64)) == 0
    assert huge.prompt_tokens == pytest.approx(len(text) * 30 / 4, rel=0.01)


@pytest.mark.parametrize(
    ("many", "is_read"),
    [
        (b'{"messages":[' + b",".join([b"{}"] * 190_000) + b"]}", False),
        (b'{"prompt":[' + b",".join([b"[1,2]"] * 90_000) + b"]}", False),
        (b'{"prompt":"x","conversation":[' + b",".join([b"{}"] * 190_000) + b"]}", False),
        (b'{"prompt":[' + b",".join([b"1"] * 190_000) + b"]}", True),
    ],
)
def test_what_takes_long_to_read_is_counted_alone(many: bytes, is_read: bool) -> None:
    """Objects take four times as long to make as token ids do: fewer of them are too many."""
    asked = Prompt(many)
    assert bool(asked.blocks(64)) is is_read
    assert is_read or asked.prompt_tokens == len(many) // 4
    began = time.process_time()
    Prompt(many).blocks(64)
    assert time.process_time() - began < 0.05


def test_several_prompts_are_counted() -> None:
    """Embeddings of many texts: all are read by the model, the first is known."""
    asked = Prompt(body(input=[LONG_TEXT] * 9))
    assert asked.prompt_tokens == len(LONG_TEXT) * 9 // 4
    assert len(asked.blocks(1)) == len(LONG_TEXT) // 4


def test_nothing_is_read_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that needs no prompt costs none."""

    def read(_: bytes) -> Any:
        raise AssertionError

    monkeypatch.setattr(prompt_module, "read_prompt", read)
    asked: Ask = Prompt(_chat(["hi"]), [(b"x-session-id", b"s")])
    asked.matches = {"a": 3}
    assert asked.session == "s"
    assert Prompt(b"").matches == {}
    with pytest.raises(AssertionError):
        _ = asked.prompt_tokens
