"""Rules that several keys keep together. They see the part of the configuration that is sound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import msgspec

from server.config.check import Reporter
from server.config.hints import joined, quoted
from server.config.model import BreakerConfig, OutlierConfig
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
        check_replicas(pool.get("replicas"), f"pool[{index}].replicas", report)
        _check_tiers(pool.get("tiers"), f"pool[{index}].tiers", report)
        _check_order(pool.get("outliers"), OutlierConfig, f"pool[{index}].outliers", report)
    _check_fallbacks(tree, models, report)
    _check_shared_replicas(tree, report)
    _check_order(tree.get("breaker"), BreakerConfig, "breaker", report)
    _check_probes(tree.get("probes"), report)
    workflow = tree.get("workflow")
    if isinstance(workflow, dict):
        _check_tiers(workflow.get("tiers"), "workflow.tiers", report)


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


def check_replicas(replicas: object, key: str, report: Reporter) -> None:
    """The rules of one list of replicas, which is at `key`."""
    seen: dict[str, int] = {}
    for place, replica in _tables(replicas):
        own_key, url = f"{key}[{place}]", replica.get("url")
        if isinstance(url, str) and seen.setdefault(url, place) != place:
            message = f"found {quoted(url)}, which is replicas[{seen[url]}] of this pool"
            report(f"{own_key}.url", message)
        check_replica_rules(replica, own_key, report)


def check_replica_rules(replica: Mapping[str, object], key: str, report: Reporter) -> None:
    """The rules of one replica, which is at `key`."""
    headers = replica.get("headers")
    if "api_key" in replica and isinstance(headers, dict) and "authorization" in headers:
        name = joined(joined(key, "headers"), "authorization")
        report(name, "cannot stand beside api_key; keep one of them")
    url = replica.get("url")
    if replica.get("resolve") and isinstance(url, str):
        _check_beside(replica, urlsplit(url).hostname, key, report)


def _check_beside(
    replica: Mapping[str, object], host: str | None, key: str, report: Reporter
) -> None:
    """With `resolve` each address is a replica, and what is beside it is looked for there."""
    kv_events = replica.get("kv_events")
    events = kv_events if isinstance(kv_events, dict) else {}
    for name, given in (
        ("metrics", replica.get("metrics")),
        ("gpu_exporter", replica.get("gpu_exporter")),
        ("kv_events.endpoint", events.get("endpoint")),
        ("kv_events.replay", events.get("replay")),
    ):
        if isinstance(given, str) and urlsplit(given).hostname != host:
            message = f"found {quoted(given)}, expected the host of url, as it has resolve"
            report(f"{key}.{name}" if key else name, message)


def _check_shared_replicas(tree: Mapping[str, object], report: Reporter) -> None:
    """A replica in several pools is one replica: it is sent the same whoever asks."""
    seen: dict[str, tuple[str, object]] = {}
    for index, pool in _tables(tree.get("pool")):
        for place, replica in _tables(pool.get("replicas")):
            key, url = f"pool[{index}].replicas[{place}]", replica.get("url")
            if not isinstance(url, str):
                continue
            sent = (replica.get("api_key"), replica.get("headers") or {})
            first_key, first_sent = seen.setdefault(url, (key, sent))
            if sent != first_sent:
                report(key, f"has another api_key or headers than {first_key}, which has this url")


def _check_order(table: object, kind: type[msgspec.Struct], key: str, report: Reporter) -> None:
    """What grows up to a bound must not begin beyond it."""
    given: dict[str, object] = {one.name: one.default for one in msgspec.structs.fields(kind)}
    given |= table if isinstance(table, dict) else {}
    for name, bound in (("rest_s", "rest_max_s"), ("eject_s", "eject_max_s")):
        first, most = given.get(name), given.get(bound)
        if isinstance(first, float) and isinstance(most, float) and first > most:
            report(f"{key}.{name}", f"found {first:g}, expected at most {bound}, which is {most:g}")


def _check_probes(probes: object, report: Reporter) -> None:
    for name in ("engine_s", "gpu_s"):
        given = probes.get(name) if isinstance(probes, dict) else None
        if isinstance(given, float) and 0 < given < _SHORTEST_S:
            report(f"probes.{name}", f"found {given:g}, expected 0, or {_SHORTEST_S:g} or more")


_SHORTEST_S: Final = 0.05


def _check_tiers(tiers: object, key: str, report: Reporter) -> None:
    seen: dict[str, int] = {}
    for place, tier in _tables(tiers):
        name = tier.get("name")
        if isinstance(name, str) and seen.setdefault(name, place) != place:
            message = f"found {quoted(name)}, which is the name of tiers[{seen[name]}]"
            report(f"{key}[{place}].name", message)
        slots, reserve = tier.get("slots"), tier.get("reserve")
        if isinstance(slots, int) and isinstance(reserve, int) and reserve > slots:
            message = f"found {reserve}, expected at most its own slots, which are {slots}"
            report(f"{key}[{place}].reserve", message)


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
