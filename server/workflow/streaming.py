"""From a model's stream to a node's: the text as it comes, thoughts where they belong."""

from __future__ import annotations

from server.workflow.events import ReasoningChunk
from server.workflow.node import NodeRun
from server.workflow.reasoning import Piece, ReasoningSplitter, split_reasoning
from server.workflow.services import Completion

__all__ = ["SeparatedText", "TaggedText"]

_TEXT = "text"


class TaggedText:
    """Thoughts stay in the text, in tags; those that the engine sends apart are put there."""

    __slots__ = ("_pieces", "_run", "_stream", "_thinks")

    def __init__(self, run: NodeRun) -> None:
        self._run = run
        self._stream = run.stream
        self._pieces: list[str] = []
        self._thinks = False

    def text(self, piece: str) -> None:
        if self._thinks:
            self._thinks = False
            piece = f"\n</think>{piece}"
        self._pieces.append(piece)
        self._stream(_TEXT, piece)

    def reasoning(self, piece: str) -> None:
        if not self._thinks:
            self._thinks = True
            piece = f"<think>\n{piece}"
        self._pieces.append(piece)
        self._stream(_TEXT, piece)

    async def drain(self) -> None:
        await self._run.drain()

    def finish(self, completion: Completion) -> tuple[str, str]:
        """The whole text, and the thoughts apart from it: none."""
        if self._thinks:
            self.text("")
        return "".join(self._pieces), ""


class SeparatedText:
    """Thoughts are told apart, whether the engine sent them so or in tags."""

    __slots__ = ("_run", "_splitter", "_thought")

    def __init__(self, run: NodeRun) -> None:
        self._run = run
        self._splitter = ReasoningSplitter()
        self._thought = False

    def text(self, piece: str) -> None:
        for found in self._splitter.feed(piece):
            self._put(found)

    def reasoning(self, piece: str) -> None:
        self._put(Piece("reasoning", piece))

    def _put(self, piece: Piece) -> None:
        if piece.kind == "text":
            self._run.stream(_TEXT, piece.text)
        else:
            self._thought = True
            self._run.tell(ReasoningChunk, text=piece.text)

    async def drain(self) -> None:
        await self._run.drain()

    def finish(self, completion: Completion) -> tuple[str, str]:
        """The whole text without thoughts, and the thoughts."""
        for piece in self._splitter.finish():
            self._put(piece)
        if self._thought:
            self._run.tell(ReasoningChunk, text="", final=True)
        clean, tagged = split_reasoning(completion.text)
        thoughts = (completion.reasoning.strip(), tagged)
        return clean, "\n".join(filter(None, thoughts))
