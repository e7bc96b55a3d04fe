"""`triolet run` on a real terminal: a conversation, and Ctrl-C at its prompt."""

from __future__ import annotations

import os
import pty
import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.cli_run.replica import ScriptedReplica, serving
from tests.server.running.exports import chat

ROOT = Path(__file__).parents[3]
_LIMIT_S = 20.0

pytestmark = [
    pytest.mark.slow,
    # Between fork and exec the child does nothing that another thread could hold a lock of.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


class Terminal:
    """A chat in a process of its own that has this terminal."""

    def __init__(self, directory: Path, *flags: str) -> None:
        arguments = [sys.executable, "-m", "server.cli", "run", "app.yml", *flags]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.pid, self._descriptor = pty.fork()
        if not self.pid:
            os.chdir(directory)
            os.execve(sys.executable, arguments, environment)
        self.shown = ""

    def until(self, text: str) -> str:
        """What is shown up to and with `text`, since the last look."""
        end_s = time.monotonic() + _LIMIT_S
        while text not in self.shown and time.monotonic() < end_s:
            if select.select([self._descriptor], [], [], 0.1)[0]:
                self.shown += self._read()
        before, found, self.shown = self.shown.partition(text)
        assert found, f"{text!r} was not shown: {before!r}"
        return before + found

    def _read(self) -> str:
        try:
            return os.read(self._descriptor, 65_536).decode(errors="replace")
        except OSError:  # Linux says so at the end
            return ""

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def exit_code(self) -> int:
        """Of the process, once it has ended; what it showed to the last is in `shown`."""
        end_s = time.monotonic() + _LIMIT_S
        while time.monotonic() < end_s:
            if select.select([self._descriptor], [], [], 0.01)[0]:
                self.shown += self._read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
        raise AssertionError("it does not end")

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, 9)
            os.waitpid(self.pid, 0)
        os.close(self._descriptor)


@pytest.fixture
def replica() -> Iterator[ScriptedReplica]:
    with serving() as found:
        yield found


@pytest.fixture
def terminal(replica: ScriptedReplica, tmp_path: Path) -> Iterator[Terminal]:
    (tmp_path / "app.yml").write_text(chat(), encoding="utf-8")
    opened = Terminal(tmp_path, *replica.pool())
    try:
        yield opened
    finally:
        opened.close()


def test_a_conversation_ends_with_the_input(terminal: Terminal, replica: ScriptedReplica) -> None:
    """Each turn is answered, and the second one knows the first."""
    terminal.until("> ")
    terminal.type("first\n")
    terminal.until("first \r\n> ")
    terminal.type("second\n")
    terminal.until("second \r\n> ")
    terminal.type("\x04")
    assert terminal.exit_code() == 0
    said = [message["content"].strip() for message in replica.asked[1]["messages"]]
    assert said[-3:] == ["first", "first", "second"]


def test_ctrl_c_at_the_prompt_ends_it(terminal: Terminal) -> None:
    """With the exit code of an interrupt, and without a traceback."""
    terminal.until("> ")
    terminal.type("\x03")
    assert terminal.exit_code() == 130
    assert "Traceback" not in terminal.shown
    assert "Fatal" not in terminal.shown


def test_ctrl_c_while_a_model_answers_ends_the_turn_and_the_conversation(
    terminal: Terminal, replica: ScriptedReplica
) -> None:
    """The replica sees its client leave."""
    replica.hangs = True
    terminal.until("> ")
    terminal.type("begun\n")
    terminal.until("begun ")
    terminal.type("\x03")
    assert terminal.exit_code() == 130
    assert replica.gone.wait(_LIMIT_S)
