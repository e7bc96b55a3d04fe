"""Texts with placeholders."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.workflow.sizes import MOST_TEXT, TooLarge
from server.workflow.template import Template
from server.workflow.variables import Variables


def pool() -> Variables:
    variables = Variables()
    variables.add("n", {"a": 1.0, "list": ["x", "y"], "object": {"k": "v"}, "empty": None})
    return variables


@pytest.mark.parametrize(
    ("source", "text", "markdown"),
    [
        ("", "", ""),
        ("plain", "plain", "plain"),
        ("{{#n.a#}}", "1.0", "1.0"),
        ("a {{#n.a#}} b", "a 1.0 b", "a 1.0 b"),
        ("{{#n.a#}}{{#n.a#}}", "1.01.0", "1.01.0"),
        ("{{#n.list#}}", '["x", "y"]', "- x\n- y"),
        ("{{#n.object.k#}}", "v", "v"),
        ("{{#n.empty#}}|", "|", "|"),
        ("{{#n.gone#}}|", "n.gone|", "n.gone|"),
        ("{{#n.object.gone#}}", "n.object.gone", "n.object.gone"),
        ("{{#n#}}", "{{#n#}}", "{{#n#}}"),
        ("{{# n.a #}}", "{{# n.a #}}", "{{# n.a #}}"),
        ("{{#n.1a#}}", "{{#n.1a#}}", "{{#n.1a#}}"),
        ("{{#context#}}", "{{#context#}}", "{{#context#}}"),
        ("{{ n.a }}", "{{ n.a }}", "{{ n.a }}"),
        ("{{{#n.a#}}}", "{1.0}", "{1.0}"),
        ("{{#" + "n" * 51 + ".a#}}", "{{#" + "n" * 51 + ".a#}}", "{{#" + "n" * 51 + ".a#}}"),
    ],
)
def test_rendering(source: str, text: str, markdown: str) -> None:
    """Placeholders of the one form are replaced; all else stays, down to what looks like one."""
    template = Template(source)
    assert template.text(pool()) == text
    assert template.markdown(pool()) == markdown


def test_selectors_are_in_order_with_repeats() -> None:
    """What the import's report and the stream order are made of."""
    template = Template("{{#b.x#}} {{#a.y.z#}}{{#b.x#}}")
    assert template.selectors == [("b", "x"), ("a", "y", "z"), ("b", "x")]


@given(st.text())
def test_text_without_placeholders_is_itself(source: str) -> None:
    """Whatever braces a text has, only whole placeholders are touched."""
    template = Template(source)
    if not template.selectors:
        assert template.text(Variables()) == source


@given(st.lists(st.one_of(st.text(alphabet="ab{}#. \n"), st.just("{{#n.a#}}"))))
def test_segments_put_together_are_the_source(parts: list[str]) -> None:
    """Cutting a text up loses nothing."""
    source = "".join(parts)
    again = "".join(
        part if isinstance(part, str) else "{{#" + ".".join(part) + "#}}"
        for part in Template(source).segments
    )
    assert again == source


def test_what_is_filled_in_is_limited() -> None:
    """A long variable that is named often: refused before the text is made."""
    variables = Variables()
    variables.add("a", {"x": "x" * (MOST_TEXT // 4)})
    four = Template("{{#a.x#}}" * 4 + "and more")
    assert len(four.text(variables)) == len(four.markdown(variables)) == MOST_TEXT + 8
    five = Template("{{#a.x#}}" * 5)
    for fill in (five.text, five.markdown):
        with pytest.raises(TooLarge, match=f"more than {MOST_TEXT} characters"):
            fill(variables)
