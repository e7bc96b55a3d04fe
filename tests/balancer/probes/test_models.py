"""Model lists of engines: names, owners, and how much a model reads."""

from __future__ import annotations

import pytest

from balancer.probes.models import read_models


@pytest.mark.parametrize(
    ("told", "tokens"),
    [
        (b"", None),
        (b', "max_model_len": 32768', 32768),
        (b', "max_model_len": null, "meta": null', None),
        (b', "meta": {"n_ctx_train": 131072, "n_params": 8e9}', 131072),
        (b', "meta": {"n_ctx_train": 131072, "n_ctx": 4096}', 4096),
        (b', "max_model_len": "many", "meta": [1]', None),
        (b', "max_model_len": -1', None),
        (b', "max_model_len": true', None),
    ],
)
def test_how_much_a_model_reads(told: bytes, tokens: int | None) -> None:
    """As vLLM and SGLang say it, or llama.cpp; nonsense there spoils no list."""
    models = read_models(b'{"data": [{"id": "m", "owned_by": "x"' + told + b"}]}")
    assert models is not None
    assert [(one.id, one.owned_by, one.context_tokens) for one in models] == [("m", "x", tokens)]


@pytest.mark.parametrize("body", [b"", b"{}", b'{"data": [{}]}', b"[" * 1000, b" " * 300_000])
def test_what_is_no_list(body: bytes) -> None:
    """None."""
    assert read_models(body) is None
