"""Tools that make files, and sums, times and JSON."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import time
from typing import Any

import pytest
import trio
import trio.lowlevel
from hypothesis import given
from hypothesis import strategies as st

from server.tools.native.json_path import PathError, find
from server.tools.native.maths import evaluate
from server.workflow.services import ToolFailed, ToolOutput
from server.workflow.values import File
from tests.server.tools.native.outside import FakeFiles, FakeWeb, answered, call

TIMES = [
    ("weekday", {"year": 2024, "month": 2, "day": 29}, "February 29, 2024 is Thursday."),
    ("weekday", {"year": 2023, "month": 2, "day": 29}, "Invalid date: Year 2023, Month 2, Day 29."),
    (
        "timezone_conversion",
        {
            "current_time": "2024-01-01 00:30:00",
            "current_timezone": "Asia/Shanghai",
            "target_timezone": "Europe/Berlin",
        },
        "2023-12-31 17:30:00",
    ),
    (
        "localtime_to_timestamp",
        {"localtime": "2024-1-1 8:0:0", "timezone": "Asia/Shanghai"},
        "1704067200",
    ),
    (
        "timestamp_to_localtime",
        {"timestamp": "1704067200", "timezone": "UTC"},
        "2024-01-01 00:00:00",
    ),
]


@pytest.mark.parametrize(("name", "arguments", "text"), TIMES)
async def test_times(name: str, arguments: dict[str, Any], text: str) -> None:
    """Sums with dates and zones."""
    assert (await call("time", name, arguments)).text == text


async def test_current_time_has_its_form() -> None:
    """The form's format and zone count; an unknown zone is named."""
    settings = {"format": "%Y|%Z", "timezone": "Asia/Tokyo"}
    year, zone = (await call("time", "current_time", {}, settings=settings)).text.split("|")
    assert int(year) > 2000
    assert zone == "JST"
    with pytest.raises(ToolFailed, match="Invalid timezone: Mars"):
        await call("time", "current_time", {}, settings={"timezone": "Mars"})


SUMS = [
    ("1 + 2 * 3", 7),
    ("2^10", 1024),
    ("sqrt(16) + max(1, 2.5)", 6.5),
    ("-(3 // 2) % 5", 4),
    ("round(pi, 2)", 3.14),
    ("1 / 4", 0.25),
]


@pytest.mark.parametrize(("expression", "value"), SUMS)
def test_sums(expression: str, value: float) -> None:
    """Operators, functions and constants."""
    assert evaluate(expression) == value


HOSTILE = [
    "__import__('os')",
    "().__class__",
    "9**9**9",
    "2**99999",
    "'a'*9",
    "x",
    "1/0",
    "[1]",
    "f(1)",
    "round(5, -10**9)",
    "round(5, 0.5)",
]


@pytest.mark.parametrize("expression", [*HOSTILE, "(" * 3000, "1+" * 1500 + "1", "-" * 1990 + "1"])
async def test_no_expression_runs_or_hangs(expression: str) -> None:
    """Code, explosions and nonsense are errors, at once."""
    with pytest.raises(ToolFailed):
        await call("maths", "eval_expression", {"expression": expression})


DOCUMENT = {
    "store": {"book": [{"price": 8, "t": "a"}, {"price": 12, "t": "b", "isbn": "x"}]},
    "a b": 1,
    "n": None,
}
PATHS: list[tuple[str, list[Any]]] = [
    ("$", [DOCUMENT]),
    ("['a b']", [1]),
    ("$.store.book[0].t", ["a"]),
    ("store.book[*].price", [8, 12]),
    ("$..price", [8, 12]),
    ("$.store.book[-1:].t", ["b"]),
    ("$.store.book[-1]['t','isbn']", ["b", "x"]),
    ("$.store.book[?(@.price < 10)].t", ["a"]),
    ("$.store.book[?(@.isbn)].t", ["b"]),
    ("$.store.book[?(@.price > 5 && @.t == 'b')].price", [12]),
    ("$.store.*[0].price", [8]),
    ("$.store.book[9]", []),
    ("n", [None]),
]


@pytest.mark.parametrize(("path", "values"), PATHS)
def test_paths(path: str, values: list[Any]) -> None:
    """The forms that exports use."""
    assert [match.value for match in find(path, DOCUMENT)] == values


@given(st.text(alphabet="$.[]'*?@()ab01:-=<>& ,", max_size=30))
def test_any_path_is_found_or_refused(path: str) -> None:
    """No path does anything but give values or a `PathError`."""
    with contextlib.suppress(PathError):
        find(path, DOCUMENT)


def test_path_that_explodes_is_stopped() -> None:
    """Descending again and again is bounded."""
    wide: dict[str, Any] = {}
    here = wide
    for _ in range(200):
        here["a"] = here = {}
    with pytest.raises(PathError, match="more than"):
        find("$" + "..*" * 6, wide)


JSON = [
    ("parse", {"content": '{"a": {"b": [1, 2]}}', "json_filter": "a.b"}, "[1, 2]"),
    ("parse", {"content": '{"a": true}', "json_filter": "$.a"}, "True"),
    (
        "parse",
        {"content": '{"a": "\u00e9"}', "json_filter": "$", "ensure_ascii": 0},
        '{"a": "\u00e9"}',
    ),
    ("parse", {"content": "{}", "json_filter": "a"}, ""),
    ("json_delete", {"content": '{"a": [1, 2, 3]}', "query": "$.a[0,1]"}, None),
    ("json_delete", {"content": '{"a": [1, 2, 3]}', "query": "$.a[:2]"}, '{"a": [3]}'),
    ("json_insert", {"content": '{"a": [1]}', "query": "a", "new_value": "x"}, '{"a": [1, "x"]}'),
    (
        "json_insert",
        {"content": '{"a": {}}', "query": "a", "new_value": '{"b": 1}', "value_decode": "true"},
        '{"a": {"b": 1}}',
    ),
    (
        "json_insert",
        {"content": "{}", "query": "$.a[1].b", "new_value": "x", "create_path": "True"},
        '{"a": [null, {"b": "x"}]}',
    ),
    (
        "json_replace",
        {"content": '{"a": "x-x"}', "query": "a", "replace_pattern": "x", "replace_value": "y"},
        '{"a": "y-y"}',
    ),
    (
        "json_replace",
        {"content": '{"a": 1}', "query": "a", "replace_model": "key", "replace_value": "b"},
        '{"b": 1}',
    ),
    (
        "json_replace",
        {
            "content": '{"a": 1}',
            "query": "a",
            "replace_model": "value",
            "replace_value": "2",
            "value_decode": 1,
        },
        '{"a": 2}',
    ),
]


@pytest.mark.parametrize(("name", "arguments", "text"), JSON)
async def test_json_is_looked_up_and_changed(
    name: str, arguments: dict[str, Any], text: str | None
) -> None:
    """As the four tools of json_process do it; a path that is not understood is told as text."""
    result = await call("json_process", name, arguments)
    assert result.text == text if text is not None else "not understood" in result.text


@pytest.mark.slow
async def test_paths_that_go_far_leave_the_loop_free() -> None:
    """A filter with hundreds of comparisons is worked out in a thread, and has its limits."""
    content = json.dumps([1] * 9_000)
    path = f"$[?({'&&'.join(['@==1'] * 300)})]"
    waited = 0.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_parse, content, path, nursery.cancel_scope)
        while not nursery.cancel_scope.cancel_called:
            began = time.perf_counter()
            await trio.lowlevel.checkpoint()
            waited = max(waited, time.perf_counter() - began)
    assert waited < 0.5


async def _parse(content: str, path: str, done: trio.CancelScope) -> None:
    result = await call("json_process", "parse", {"content": content, "json_filter": path})
    assert "more than" in result.text
    done.cancel()


async def test_what_a_path_finds_twice_is_deleted_once() -> None:
    """Descents overlap."""
    arguments = {"content": '{"a": {"a": {"b": 1, "c": 2}}}', "query": "$..a..b"}
    result = await call("json_process", "json_delete", arguments)
    assert json.loads(result.text) == {"a": {"a": {"c": 2}}}


async def test_json_process_tells_what_is_wrong_as_its_text() -> None:
    """Flows go on with the message, as they do in Dify."""
    result = await call("json_process", "parse", {"content": "```json", "json_filter": "a"})
    assert "not JSON" in result.text


TEXT = """# Title

Some **bold** and *it* and `code` with [a link](https://a.example).

- one
- two
  1. deep

| A | B |
|---|:-:|
| 1 | x\\|y |
| =2+2 | |

```python
print(1)
```
"""


async def made(name: str, **more: Any) -> tuple[ToolOutput, dict[str, bytes]]:
    files = FakeFiles()
    result = await call("md_exporter", name, {"md_text": TEXT} | more, files=files)
    return result, files.kept


async def test_markdown_becomes_a_word_document() -> None:
    """Headings, runs, lists and tables are there."""
    import docx

    result, kept = await made("md_to_docx", output_filename="report")
    assert [file.name for file in result.files] == ["report.docx"]
    document = docx.Document(io.BytesIO(kept["report.docx"]))
    texts = [paragraph.text for paragraph in document.paragraphs]
    assert texts[0] == "Title"
    assert "Some bold and it and code with a link (https://a.example)." in texts
    assert document.paragraphs[0].style is not None
    assert document.paragraphs[0].style.name == "Heading 1"
    assert [cell.text for cell in document.tables[0].rows[1].cells] == ["1", "x|y"]


async def test_markdown_becomes_a_spreadsheet() -> None:
    """Each table is a sheet; formulas stay texts."""
    import openpyxl  # type: ignore[import-untyped]

    _, kept = await made("md_to_xlsx")
    rows = list(openpyxl.load_workbook(io.BytesIO(kept["output.xlsx"])).active.values)
    assert rows == [("A", "B"), ("1", "x|y"), ("'=2+2", None)]


async def test_markdown_becomes_other_files() -> None:
    """CSV, JSON, HTML, markdown and code blocks."""
    _, kept = await made("md_to_csv")
    assert kept["output.csv"].decode("utf-8-sig").splitlines()[1] == "1,x|y"
    _, kept = await made("md_to_json", output_style="json_array")
    assert json.loads(kept["output.json"])[0] == {"A": "1", "B": "x|y"}
    _, kept = await made("md_to_html")
    assert b"<h1>Title</h1>" in kept["output.html"]
    _, kept = await made("md_to_codeblock")
    assert kept == {"output.py": b"print(1)"}
    _, kept = await made("md_to_md", output_filename="../x.md")
    assert list(kept) == [".._x.md"]


async def test_markdown_without_a_table_is_named() -> None:
    """There is nothing to make a CSV file of."""
    with pytest.raises(ToolFailed, match="no table"):
        await call("md_exporter", "md_to_csv", {"md_text": "hi"}, files=FakeFiles())


async def test_tables_do_not_fill_the_memory() -> None:
    """Short rows under a very long head would each be as long as it."""
    text = "|" * 20_000 + "\n|-|\n" + "|\n" * 20_000
    for name in ("md_to_csv", "md_to_json", "md_to_xlsx"):
        with pytest.raises(ToolFailed, match="more than 1000000 cells"):
            await call("md_exporter", name, {"md_text": text}, files=FakeFiles())


async def test_images_are_drawn() -> None:
    """By any service with OpenAI's endpoint; the image is kept as a file."""
    encoded = base64.b64encode(b"PNG").decode()
    web, files = FakeWeb({"data": [{"b64_json": encoded}]}), FakeFiles()
    settings = {"size": "vertical", "n": 1, "quality": "hd"}
    bound = {"openai_base_url": "http://images:9000/v1"}
    result = await call(
        "dalle", "dalle3", {"prompt": "cat"}, settings=settings, bound=bound, web=web, files=files
    )
    assert web.requests[0].url == "http://images:9000/v1/images/generations"
    assert (web.sent["size"], web.sent["quality"]) == ("1024x1792", "hd")
    assert (result.files[0].type, files.kept) == ("image", {"image_1.png": b"PNG"})


async def test_speech_is_made_and_written_down() -> None:
    """Both ways, with the provider's part of the model's name left out."""
    bound = {"base_url": "http://speech:8000/v1", "api_key": "k"}
    web, files = FakeWeb(answered(b"MP3", "audio/mpeg")), FakeFiles()
    settings = {"model": "openai#tts-1", "voice#openai#tts-1": "nova"}
    result = await call(
        "audio", "tts", {"text": "hi"}, settings=settings, bound=bound, web=web, files=files
    )
    assert web.sent == {"model": "tts-1", "input": "hi", "voice": "nova", "response_format": "mp3"}
    web = FakeWeb({"text": "hello"})
    spoken = {"audio_file": result.files[0]}
    heard = await call("audio", "asr", spoken, bound=bound, web=web, files=files)
    assert heard.text == "hello"
    content = web.requests[0].content or b""
    assert b'filename="speech.mp3"' in content
    mark = dict(web.requests[0].headers)["content-type"].partition("boundary=")[2]
    assert content.endswith(f"--{mark}--\r\n".encode())
    assert b"MP3" in content


async def test_asr_wants_a_sound() -> None:
    """Another file is refused by name."""
    file = File(type="document", transfer_method="tool_file", name="a.pdf")
    bound = {"base_url": "http://speech:8000/v1"}
    with pytest.raises(ToolFailed, match="not a valid audio file"):
        await call("audio", "asr", {"audio_file": file}, bound=bound, web=FakeWeb({}))


async def test_file_is_saved() -> None:
    """Its name cannot lead elsewhere."""
    files = FakeFiles()
    arguments = {"content": "x", "filename": "a/b.txt", "mime_type": "text/plain"}
    result = await call("file_tools", "save_as_file", arguments, files=files)
    assert files.kept == {"a_b.txt": b"x"}
    assert result.files[0].mime_type == "text/plain"


async def test_messages_are_sent() -> None:
    """To the bot whose key is given."""
    key = "01234567-89ab-cdef-0123-456789abcdef"
    web = FakeWeb({"errcode": 0})
    settings = {"hook_key": key, "message_type": "markdown"}
    await call("wecom", "wecom_group_bot", {"content": "hi"}, settings=settings, web=web)
    assert web.sent == {"msgtype": "markdown", "markdown": {"content": "hi"}}
    assert web.requests[0].url.endswith(f"?key={key}")
    bad = {"webhook_url": "http://inside/"}
    with pytest.raises(ToolFailed, match=r"hooks\.slack\.com"):
        await call("slack", "slack_webhook", {"content": "hi"}, settings=bad, web=web)


class Code:
    async def run(self, language: str, source: str, arguments: dict[str, Any]) -> Any:
        space: dict[str, Any] = {}
        exec(source, space)
        return space["main"](**arguments)


async def test_regex_runs_where_code_runs() -> None:
    """Never in this process: a pattern may take for ever."""
    arguments = {"content": "a1 b2", "expression": r"([a-z])(\d)"}
    result = await call("regex", "regex_extract", arguments, code=Code())
    assert result.text == "[('a', '1'), ('b', '2')]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n\n" * 5_001, "at most 5000 paragraphs and cells"),
        ("*a* " * 15_000, "at most 20000 pieces of text"),
        ("a" * 200_001, "at most 200000 characters"),
    ],
)
async def test_word_documents_have_limits(text: str, message: str) -> None:
    """Making a larger one would take a core for most of a minute."""
    with pytest.raises(ToolFailed, match=message):
        await made("md_to_docx", md_text=text)
