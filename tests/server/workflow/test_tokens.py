"""Estimates of tokens, and what is learned of each model."""

from __future__ import annotations

import pytest

from server.workflow.tokens import TokenRatios, estimate_messages, estimate_tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("a", 1), ("x" * 400, 100), ("你好世界" * 10, 28), ("你好 hello!", 4), ("ü" * 8, 2)],
)
def test_texts(text: str, tokens: int) -> None:
    """Four characters are a token; of Chinese a character is nearly one."""
    assert estimate_tokens(text) == tokens


def test_a_long_text_is_estimated_by_samples() -> None:
    """About as its parts are, and no pattern walks over all of it."""
    page = "Sehr schöne Grüße. 你好世界这是一个测试。" * 40
    assert estimate_tokens(page * 500) == pytest.approx(500 * estimate_tokens(page), rel=0.05)
    halves = "ü" * 200_000 + "你" * 200_000
    assert estimate_tokens(halves) == pytest.approx(190_000, rel=0.05)


def test_messages() -> None:
    """Each has its frame; a picture counts as one, whatever its bytes."""
    text = {"role": "user", "content": "x" * 40}
    picture = {"type": "image_url", "image_url": {"url": "data:" + "x" * 10_000}}
    parts = {"role": "user", "content": [{"type": "text", "text": "x" * 40}, picture]}
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
    assert estimate_messages([text]) == 14
    assert estimate_messages([parts]) == 814
    assert estimate_messages([call]) > 4
    assert estimate_messages([]) == 0


def test_a_ratio_is_learned() -> None:
    """The first call tells most, the next ones correct it; short ones and nonsense do not."""
    ratios = TokenRatios()
    assert ratios.of("m") == 1
    ratios.learn("m", 100, 150)
    assert ratios.of("m") == 1.5
    ratios.learn("m", 100, 100)
    assert ratios.of("m") == pytest.approx(1.4)
    ratios.learn("m", 3, 300)
    ratios.learn("m", 100, 0)
    assert ratios.of("m") == pytest.approx(1.4)
    ratios.learn("n", 100, 100_000)
    assert ratios.of("n") == 4


def test_the_memory_is_bounded() -> None:
    """The model that was learned of longest ago is forgotten."""
    ratios = TokenRatios(most=2)
    for model in "abac":
        ratios.learn(model, 100, 200)
    assert [ratios.of(model) for model in "abc"] == [2, 1, 2]
