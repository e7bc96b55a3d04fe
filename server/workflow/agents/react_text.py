"""Reading the plain text of an agent that thinks and acts, as it streams. Pure.

    Thought: what it is about            -> thought
    Action: {"action": .., ...}          -> an action; in a code fence or not, several if need be
    Action: name / Action Input: {...}   -> an action, as other prompts have taught models
    Observation: ...                     -> made up by the model: it and what follows is dropped
    Final Answer: ...                    -> the answer, handed out piece by piece

What is read does not depend on how the text was cut into pieces: a decision waits until no further
text can change it. <think> blocks are thought, whatever they hold. A text without action and
without final answer is an answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

__all__ = ["Action", "Broken", "ReactText", "Reading", "action_of"]

_MARK: Final = re.compile(
    r"(?<![\w\"'`])(?P<bold>\*\*)?(?:"
    r"(?P<answer>final[ _]?answer)|(?P<input>action[ _]?input)|(?P<action>action)"
    r"|(?P<observation>observation(?: ?\([^()\n`{:\uff1a<]{1,64}\))?)|(?P<thought>thought)"
    r")(?:\*\*)? ?[:\uff1a]"
    r"|(?P<think><think>)|(?P<brace>(?<![^\n`])[ \t]{0,8}\{)",
    re.IGNORECASE,
)
_LONGEST_MARK: Final = 96
"""No mark is longer; so much of the tail may still become one."""

_BEFORE_ACTION: Final = re.compile(r"(?:\s|\*)*(?:```[a-zA-Z]*(?=[^a-zA-Z`]))?(?:\s|\*)*")
_MAYBE_FENCE: Final = re.compile(r"`{1,2}|```[a-zA-Z]*")
"""What may yet become the opening of a code fence."""

_FENCE: Final = re.compile(r"```[a-zA-Z]*")
_IDENTIFIER: Final = re.compile(r"[\w.\-/]{0,64}")
_NO_ACTION: Final = frozenset({"", "none", "n/a", "null"})
_ANSWER: Final = frozenset({"final answer", "finalanswer", "final_answer"})
_NO_JSON: Final = object()
_SAYS_ACTION: Final = re.compile(r'"action"\s{0,8}:')


class Action(msgspec.Struct, frozen=True):
    """A tool's name and what to give it: an object, or whatever the model wrote."""

    name: str
    input: Any


class Broken(msgspec.Struct, frozen=True):
    """An action whose JSON is not right. Mending it may take long: it is left to who reads."""

    written: str


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """A whole reply. `answer` is None if it did not give one; with `actions` it never does."""

    thought: str
    actions: tuple[Action | Broken, ...]
    answer: str | None
    spoken: str
    """The reply up to its last action: what the model is shown of it later."""


class ReactText:
    """Feed it the text; it hands out the answer as it comes."""

    def __init__(self) -> None:
        self._text = ""
        self._at = 0
        """Where reading goes on."""
        self._seen = 0
        """Up to here no mark begins."""
        self._thought: list[str] = []
        self._actions: list[Action | Broken] = []
        self._answer: list[str] | None = None
        self._named: str | None = None
        self._spoken = 0
        self._mark = ""
        self._mark_end = 0
        self._begins_line = True
        """Whether the last mark stands first in its line."""
        self._json = _Json()
        self._json_start = 0
        self._braces_count = True
        """Whether a brace may begin an action: until one was found to be left open."""
        self._json_then: Callable[[str], None] = self._bare_json
        self._final = False
        self._skip_bold = False
        self._state: Callable[[], bool] = self._in_thought

    def feed(self, piece: str) -> str:
        """Take a piece; what it adds to the final answer."""
        self._text += piece
        before = len(self._answer) if self._answer is not None else 0
        while self._state():
            pass
        return "".join((self._answer or [])[before:])

    def end(self) -> tuple[str, Reading]:
        """There is no more. The rest of the answer, and the whole reading."""
        self._final = True
        rest = self.feed("")
        self._flush_named()
        thought = "".join(self._thought).strip()
        if self._actions:
            thought = _FENCE.sub("", thought).strip()
        answer = "".join(self._answer or [])
        if not answer and not self._actions:
            rest = answer = thought
        return rest, Reading(
            thought=thought,
            actions=tuple(self._actions),
            answer=None if self._actions or not answer else answer,
            spoken=self._text[: self._spoken].rstrip() if self._actions else self._text,
        )

    # Each state reads on and says whether there is more to read now.

    def _in_thought(self) -> bool:
        mark = _MARK.search(self._text, max(self._at, self._seen))
        if mark is None:
            self._seen = max(self._seen, len(self._text) - _LONGEST_MARK)
            if self._final:
                self._keep(len(self._text))
                self._at = self._seen = len(self._text)
            return False
        self._keep(mark.start())
        self._at = self._seen = mark.end()
        self._skip_bold = mark["bold"] is not None
        return self._follow(mark)

    def _follow(self, mark: re.Match[str]) -> bool:
        self._mark, self._mark_end = mark[0], mark.end()
        before = self._text[max(0, mark.start() - _LONGEST_MARK) : mark.start()]
        self._begins_line = not before.rstrip(" \t*#>-") or before.rstrip(" \t*#>-")[-1] == "\n"
        if mark["brace"] is not None and not self._braces_count:
            self._thought.append(mark[0])
        elif mark["brace"] is not None:
            self._at = mark.end() - 1
            self._begin_json(self._input_json if self._named else self._bare_json)
        elif mark["input"] is not None:
            self._state = self._before_input
        elif mark["action"] is not None:
            self._state = self._before_action
        elif mark["think"] is not None:
            self._state = self._in_think
        else:
            self._flush_named()
            self._follow_words(mark)
        return True

    def _follow_words(self, mark: re.Match[str]) -> None:
        if mark["answer"] is not None:
            self._state = self._ended if self._actions else self._before_answer
            self._answer = None if self._actions else []
        elif mark["observation"] is not None and self._actions:
            self._state = self._ended
        elif mark["observation"] is not None or not self._begins_line:
            self._thought.append(mark[0])

    def _keep(self, up_to: int) -> None:
        self._thought.append(self._text[self._at : up_to])

    def _in_think(self) -> bool:
        end = self._text.find("</think>", max(self._at, self._seen))
        if end < 0:
            self._seen = max(self._at, len(self._text) - len("</think>"))
            if self._final:
                self._keep(len(self._text))
                self._at = self._seen = len(self._text)
            return False
        self._keep(end)
        self._at = self._seen = end + len("</think>")
        self._state = self._in_thought
        return True

    def _before_answer(self) -> bool:
        rest = self._text[self._at :]
        bare = rest.lstrip()
        if self._skip_bold and bare.startswith("**"):
            self._at += len(rest) - len(bare) + 2
            self._skip_bold = False
            return True
        if not bare or (self._skip_bold and bare == "*" and not self._final):
            return False
        self._at += len(rest) - len(bare)
        self._state = self._in_answer
        return True

    def _in_answer(self) -> bool:
        if self._at < len(self._text) and self._answer is not None:
            self._answer.append(self._text[self._at :])
            self._at = len(self._text)
        return False

    def _before_action(self) -> bool:
        if not self._reach_content():
            return False
        if self._text[self._at] in "{[":
            self._begin_json(self._marked_json)
            return True
        end = self._text.find("\n", self._at)
        if end < 0 and not self._final:
            return False
        end = len(self._text) if end < 0 else end
        self._state = self._in_thought
        if not self._name(self._text[self._at : end], end):
            self._thought.append(self._mark)
            end = self._mark_end
        self._at = self._seen = end
        return True

    def _name(self, written: str, end: int) -> bool:
        """Take a tool's bare name; False if this is but a sentence."""
        name = written.strip().strip("*`\"' ").strip()
        if not (self._begins_line and _IDENTIFIER.fullmatch(name)):
            return False
        self._flush_named()
        self._spoken = end
        if name.lower() not in _NO_ACTION:
            self._named = name
        return True

    def _flush_named(self) -> None:
        """A name without an input is a call without arguments."""
        if self._named is not None:
            self._actions.append(Action(self._named, {}))
            self._named = None

    def _before_input(self) -> bool:
        if not self._reach_content():
            return False
        if self._text[self._at] in "{[":
            self._begin_json(self._input_json)
            return True
        end = self._text.find("\n", self._at)
        if end < 0 and not self._final:
            return False
        end = len(self._text) if end < 0 else end
        self._take_input(self._text[self._at : end].strip().strip("`"), end)
        return True

    def _take_input(self, given: Any, end: int) -> None:
        if self._named is not None:
            self._actions.append(Action(self._named, given))
            self._named = None
        self._spoken = self._at = self._seen = end
        self._state = self._in_thought

    def _reach_content(self) -> bool:
        """Go past blanks, stars and the opening of a code fence; False if more may come."""
        skipped = _BEFORE_ACTION.match(self._text, self._at)
        start = skipped.end() if skipped else self._at
        rest = self._text[start:]
        if rest and not _MAYBE_FENCE.fullmatch(rest):
            self._at = start
            return True
        if self._final:
            self._at = self._seen = len(self._text)
            self._state = self._in_thought
        return False

    def _begin_json(self, then: Callable[[str], None]) -> None:
        self._json = _Json()
        self._json_start = self._at
        self._json_then = then
        self._state = self._in_json

    def _in_json(self) -> bool:
        end = self._json.scan(self._text, self._at)
        if end is None:
            self._at = len(self._text)
            if not self._final:
                return False
            end = self._left_open()
        self._at = self._seen = end
        self._state = self._in_thought
        self._json_then(self._text[self._json_start : end])
        return True

    def _left_open(self) -> int:
        """Where JSON without an end ends: an action takes all the rest, a mere brace itself."""
        written = self._text[self._json_start :]
        if self._json_then != self._bare_json or _SAYS_ACTION.search(written):
            return len(self._text)
        self._braces_count = False
        return self._json_start + 1

    def _bare_json(self, written: str) -> None:
        """JSON without a mark before it: an action only if it says so."""
        found = _loaded(written)
        if found is _NO_JSON and _SAYS_ACTION.search(written):
            self._take_broken(written)
        elif not self._act(found, strictly=True):
            self._thought.append(written)

    def _marked_json(self, written: str) -> None:
        found = _loaded(written)
        if found is _NO_JSON:
            self._take_broken(written)
        elif not self._act(found, strictly=False):
            self._thought.append(written)

    def _take_broken(self, written: str) -> None:
        self._flush_named()
        self._spoken = self._at
        self._actions.append(Broken(written))

    def _input_json(self, written: str) -> None:
        found = _loaded(written)
        self._take_input(written if found is _NO_JSON else found, self._at)

    def _act(self, found: Any, *, strictly: bool) -> bool:
        items = found if isinstance(found, list) else [found]
        actions = [action_of(item, strictly=strictly) for item in items]
        known = [action for action in actions if action is not None]
        if not known or len(known) < len(items):
            return False
        self._flush_named()
        self._spoken = self._at
        for action in known:
            self._take(action)
        return True

    def _take(self, action: Action) -> None:
        if action.name.lower() in _ANSWER:
            if not self._actions and self._answer is None:
                given = action.input
                self._answer = [given if isinstance(given, str) else _plain_answer(given)]
                self._state = self._ended
        elif action.name.lower() not in _NO_ACTION:
            self._actions.append(action)

    def _ended(self) -> bool:
        return False


class _Json:
    """Finds where an object or a list ends."""

    def __init__(self) -> None:
        self._depth = 0
        self._quoted = False
        self._escaped = False

    def scan(self, text: str, at: int) -> int | None:
        """Read on at `at`; one past its end, or None if it goes on."""
        for place in range(at, len(text)):
            if self._ends(text[place]):
                return place + 1
        return None

    def _ends(self, letter: str) -> bool:
        if self._escaped:
            self._escaped = False
        elif self._quoted:
            self._escaped = letter == "\\"
            self._quoted = letter != '"'
        elif letter == '"':
            self._quoted = True
        elif letter in "{[":
            self._depth += 1
        elif letter in "}]":
            self._depth -= 1
            return self._depth <= 0
        return False


def _loaded(written: str) -> Any:
    """The JSON; `_NO_JSON` if it is broken."""
    try:
        return json.loads(written, strict=False)
    except (ValueError, RecursionError):
        return _NO_JSON


_NAME_KEYS: Final = ("action", "tool", "tool_name", "name", "function")
_INPUT_KEYS: Final = ("action_input", "input", "arguments", "args", "parameters", "tool_input")


def action_of(found: Any, *, strictly: bool = False) -> Action | None:
    """{"action": name, "action_input": ...}, and the like of it where a mark says what it is."""
    if not isinstance(found, Mapping):
        return None
    keys = {str(key).strip().lower().replace(" ", "_"): value for key, value in found.items()}
    names = _NAME_KEYS[:1] if strictly and not _both(keys) else _NAME_KEYS
    name = next((keys[key] for key in names if isinstance(keys.get(key), str)), None)
    if name is None:
        return None
    given: Any = next((keys[key] for key in _INPUT_KEYS if key in keys), {})
    return Action(name.strip(), {} if given is None else given)


def _both(keys: Mapping[str, Any]) -> bool:
    return any(key in keys for key in _NAME_KEYS) and any(key in keys for key in _INPUT_KEYS)


def _plain_answer(given: Any) -> str:
    if isinstance(given, Mapping) and len(given) == 1:
        only = next(iter(given.values()))
        if isinstance(only, str):
            return only
    return json.dumps(given, ensure_ascii=False)
