"""Rules that several keys keep together. They see the part of the configuration that is sound."""

from __future__ import annotations

from collections.abc import Mapping

from server.config.check import Reporter
from server.config.hints import quoted
from server.config.values import parse_listen


def check_rules(tree: Mapping[str, object], report: Reporter) -> None:
    """Report every rule that is broken. Items that were refused before are passed over."""
    _check_listen(tree, report)
    models: dict[str, int] = {}
    for index, pool in _tables(tree.get("pool")):
        _check_model(pool, index, models, report)
        if not pool.get("replicas") and not pool.get("replicas_file"):
            report(
                f"pool[{index}].replicas", "is missing; expected at least one, or a replicas_file"
            )
        _check_replicas(pool, index, report)
        _check_tiers(pool, index, report)
    _check_fallbacks(tree, models, report)


def _check_listen(tree: Mapping[str, object], report: Reporter) -> None:
    listen = tree.get("listen")
    seen: dict[tuple[str, int], int] = {}
    for index, url in enumerate(listen if isinstance(listen, list) else ()):
        if not isinstance(url, str):
            continue
        key, address = f"listen[{index}]", parse_listen(url)
        if address.scheme == "https" and tree.get("tls") is None:
            report(key, f"found {quoted(url)}, expected [tls] with cert and key for https")
        first = seen.setdefault((address.host, address.port), index)
        if first != index and address.port != 0:
            report(key, f"found {quoted(url)}, whose host and port listen[{first}] already has")


def _check_model(
    pool: Mapping[str, object], index: int, models: dict[str, int], report: Reporter
) -> None:
    model = pool.get("model")
    if isinstance(model, str) and models.setdefault(model, index) != index:
        report(
            f"pool[{index}].model",
            f"found {quoted(model)}, which is the model of pool[{models[model]}]; "
            "expected one pool per model: put all its replicas there",
        )


def _check_replicas(pool: Mapping[str, object], index: int, report: Reporter) -> None:
    seen: dict[str, int] = {}
    for place, replica in _tables(pool.get("replicas")):
        key, url = f"pool[{index}].replicas[{place}]", replica.get("url")
        if isinstance(url, str) and seen.setdefault(url, place) != place:
            report(
                f"{key}.url", f"found {quoted(url)}, which is replicas[{seen[url]}] of this pool"
            )
        headers = replica.get("headers")
        if "api_key" in replica and isinstance(headers, dict) and "authorization" in headers:
            report(f"{key}.headers.authorization", "cannot stand beside api_key; keep one of them")


def _check_tiers(pool: Mapping[str, object], index: int, report: Reporter) -> None:
    seen: dict[str, int] = {}
    for place, tier in _tables(pool.get("tiers")):
        name = tier.get("name")
        if isinstance(name, str) and seen.setdefault(name, place) != place:
            report(
                f"pool[{index}].tiers[{place}].name",
                f"found {quoted(name)}, which is the name of tiers[{seen[name]}]",
            )


def _check_fallbacks(
    tree: Mapping[str, object], models: Mapping[str, int], report: Reporter
) -> None:
    for index, pool in _tables(tree.get("pool")):
        fallback = pool.get("fallback")
        for place, model in enumerate(fallback if isinstance(fallback, list) else ()):
            key = f"pool[{index}].fallback[{place}]"
            if model == pool.get("model"):
                report(key, f"found {quoted(str(model))}, which is the pool's own model")
            elif isinstance(model, str) and model not in models:
                known = ", ".join(map(quoted, models)) or "none"
                report(key, f"found {quoted(model)}, expected the model of a pool: {known}")


def _tables(items: object) -> list[tuple[int, dict[str, object]]]:
    """The tables of a list with their indices."""
    listed = enumerate(items if isinstance(items, list) else ())
    return [(index, item) for index, item in listed if isinstance(item, dict)]
