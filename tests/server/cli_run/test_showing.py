"""What goes to the terminal: in order, bounded, without holding up anything else."""

from __future__ import annotations

import io
import json
import threading

import pytest
import trio
import trio.testing

from server.cli_run.showing import Output, TerminalSink, result_json, value_text
from server.workflow.events import Chunk, Event, RunStarted
from server.workflow.values import File


class Slow(io.BytesIO):
    """Takes nothing before it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = threading.Event()

    def write(self, data: object) -> int:
        assert self.let.wait(10)
        return super().write(data)  # type: ignore[arg-type]


class Broken(io.BytesIO):
    def write(self, data: object) -> int:
        raise BrokenPipeError


class Failing(io.BytesIO):
    def __init__(self, error: OSError) -> None:
        super().__init__()
        self._error = error

    def write(self, data: object) -> int:
        raise self._error


def chunk(text: str) -> Event:
    return Chunk(
        node_run_id="r", node_id="n", node_type="llm", title="n", selector=("n", "text"),
        text=text, answer_id="a",
    )  # fmt: skip


async def test_what_is_said_is_written_in_order() -> None:
    """And all of it is out after a drain to nothing."""
    stream = io.BytesIO()
    output = Output(stream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(output.run)
        for word in ("one ", "two ", "thrée\ud800"):
            output.put(word)
            await output.drain()
        await output.drain(0)
        nursery.cancel_scope.cancel()
    assert stream.getvalue().decode() == "one two thrée?"


async def test_a_slow_reader_holds_up_who_drains() -> None:
    """Until enough of it is out; nobody else waits."""
    stream = Slow()
    output, done = Output(stream), trio.Event()

    async def drain() -> None:
        await output.drain(10)
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(output.run)
        output.put("x" * 100)
        nursery.start_soon(drain)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not done.is_set()
        stream.let.set()
        with trio.fail_after(5):
            await done.wait()
        nursery.cancel_scope.cancel()


async def test_nobody_reads_any_more() -> None:
    """Then nothing is kept, and nobody waits."""
    output = Output(Broken())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(output.run)
        output.put("x" * 1000)
        with trio.fail_after(5):
            await output.drain(0)
        assert output.broken
        output.put("more")
        await output.drain(0)
        nursery.cancel_scope.cancel()


async def test_a_sink_keeps_what_the_timeline_needs() -> None:
    """Only if it is asked to."""
    event = RunStarted(run_id="r", inputs={}, at=1.0)
    for keeps, count in ((True, 1), (False, 0)):
        sink = TerminalSink(Output(io.BytesIO()), keeps=keeps)
        sink.put(event)
        assert len(sink.moments) == count


async def test_text_is_shown_only_where_it_is_wanted() -> None:
    """Chunks, joined."""
    for text, streamed in ((True, ["a", "b"]), (False, [])):
        sink = TerminalSink(Output(io.BytesIO()), text=text)
        sink.put(chunk("a"))
        sink.put(chunk("b"))
        assert sink.streamed == streamed


def test_outputs_for_people_and_for_programs() -> None:
    """A single text as it is; files as clients get them; what JSON does not have as its text."""
    file = File(type="image", transfer_method="remote_url", name="a.png", url="http://h/a.png")
    assert value_text({"a": "text"}) == "text"
    assert value_text({"a": 1, "b": "x"}) == '{\n  "a": 1,\n  "b": "x"\n}'
    assert '"filename": "a.png"' in value_text({"f": file})
    assert '"filename":"a.png"' in result_json({"outputs": {"f": [file]}})
    assert result_json({"x": 1 + 2j}) == '{"x":"(1+2j)"}\n'


def test_half_a_character_is_shown_all_the_same() -> None:
    """As a question mark: an argument or an answer need not be valid."""
    assert json.loads(result_json({"a": "x\ud800"})) == {"a": "x?"}
    assert json.loads(value_text({"a": "x\ud800", "b": 1}))["a"] == "x?"
    output = Output(io.BytesIO())
    TerminalSink(output, events=True).put(RunStarted(run_id="r", inputs={"q": "\udcff"}, at=1.0))


async def test_an_output_that_cannot_be_written_says_why() -> None:
    """Unless its reader just went away; without any output nothing is kept."""
    full = OSError(28, "No space left")
    for error, fault in ((full, "No space left"), (BrokenPipeError(), None)):
        output = Output(Failing(error))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(output.run)
            output.put("x")
            await output.drain(0)
            nursery.cancel_scope.cancel()
        assert output.broken
        assert output.fault == fault


def test_without_a_standard_output_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process was started with it closed."""
    monkeypatch.setattr("sys.stdout", None)
    assert Output().broken
