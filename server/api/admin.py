"""What runs, why, and changes to it: `/admin/api/`. It reads snapshots and awaits no replica.

Who may: whoever sends the key as `Authorization: Bearer`, from wherever. That a request comes from
this machine proves nothing: proxies and browsers run there too.
"""

from __future__ import annotations

import hmac
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from urllib.parse import parse_qs

import msgspec
import trio

from balancer.catalog import Catalog
from balancer.decisions import Decisions
from balancer.errors import ConnectionLost
from balancer.replica import Replica
from server.api.admin_views import decision_line, decision_view, pool_view, replica_view
from server.api.respond import ClientLeft, read_body, respond_json
from server.config import ReplicaConfig, check_replica
from server.edge.exchange import Receive, Scope, Send
from server.errors import ApiError
from server.membership import Membership
from server.observe.record import Record

__all__ = ["AdminApi"]

_BODY_BYTES: Final = 65_536
_LATEST_MOST: Final = 1_000


class _Change(msgspec.Struct, forbid_unknown_fields=False):
    model: str
    url: str


class _Drain(msgspec.Struct, forbid_unknown_fields=True):
    url: str
    draining: bool = True
    runs: bool = True


class AdminApi:
    """Every path under `/admin/api/`."""

    def __init__(
        self,
        catalog: Catalog,
        membership: Membership,
        decisions: Decisions,
        *,
        key: str | None,
        refresh: Callable[[], None],
    ) -> None:
        """`refresh` has the pools take what `membership` says now. Without a `key` nobody may."""
        self._catalog = catalog
        self._membership = membership
        self._decisions = decisions
        self.key = key
        self._refresh = refresh

    # Reading

    async def pools(self, record: Record, scope: Scope, receive: Receive, send: Send) -> None:
        """`GET /admin/api/pools`."""
        self._authorize(scope)
        pools = [pool_view(pool) for pool in self._catalog.pools.values()]
        await respond_json(send, record, 200, {"pools": pools})

    async def replicas(self, record: Record, scope: Scope, receive: Receive, send: Send) -> None:
        """`GET /admin/api/replicas`."""
        self._authorize(scope)
        now = trio.current_time()
        for pool in self._catalog.pools.values():
            pool.statistics()  # their room is worked out when somebody asks
        models = self._models()
        shown = [
            replica_view(one, models[one], now, runs=self._runs_of(one))
            for one in self._catalog.replicas
        ]
        await respond_json(send, record, 200, {"replicas": shown})

    async def decision(self, record: Record, scope: Scope, receive: Receive, send: Send) -> None:
        """`GET /admin/api/decisions/{request_id}`."""
        self._authorize(scope)
        request_id = scope["path"].removeprefix("/admin/api/decisions/")
        found = self._decisions.find(request_id)
        if found is None:
            raise ApiError(
                404,
                f"no decision is kept for request {request_id!r}; the latest "
                f"{len(self._decisions)} are",
                code="not_found",
            )
        await respond_json(send, record, 200, decision_view(found))

    async def decisions(self, record: Record, scope: Scope, receive: Receive, send: Send) -> None:
        """`GET /admin/api/decisions?limit=20`: the latest first, in short."""
        self._authorize(scope)
        given = parse_qs(scope["query_string"].decode("latin-1")).get("limit", ["20"])[-1]
        if not (given.isdecimal() and len(given) <= 4 and 1 <= int(given) <= _LATEST_MOST):
            message = f"limit is {given[:20]!r}, expected a number from 1 to {_LATEST_MOST}"
            raise ApiError(400, message, code="invalid_type", param="limit")
        latest = self._decisions.latest(int(given))
        await respond_json(send, record, 200, {"decisions": [decision_line(one) for one in latest]})

    # Changing

    async def add(self, record: Record, scope: Scope, receive: Receive, send: Send) -> None:
        """`POST /admin/api/replicas`: `model` and the keys of a replica in the configuration."""
        self._authorize(scope)
        fields = await self._fields(scope, receive)
        change, config = _read_member(fields)
        added = self._changed(change.model, lambda: self._membership.add(change.model, config))
        answer = {"model": change.model, "url": config.url, "added": added}
        await respond_json(send, record, 201 if added else 200, answer)

    async def remove(self, record: Record, scope: Scope, receive: Receive, send: Send) -> None:
        """`DELETE /admin/api/replicas`: `model` and `url`, in the body or the query."""
        self._authorize(scope)
        query: dict[str, object] = {key: values[-1] for key, values in _query(scope).items()}
        fields = query or await self._fields(scope, receive)
        change, config = _read_member(fields)
        removed = self._changed(
            change.model, lambda: self._membership.remove(change.model, config.url)
        )
        if not removed:
            message = f"{config.url} is no replica of model {change.model!r}"
            raise ApiError(404, message, code="not_found", param="url")
        answer = {"model": change.model, "url": config.url, "removed": True}
        await respond_json(send, record, 200, answer)

    async def drain(self, record: Record, scope: Scope, receive: Receive, send: Send) -> None:
        """`POST /admin/api/replicas/drain`: `url`; `draining` and `runs`, true unless given."""
        self._authorize(scope)
        try:
            asked = msgspec.convert(await self._fields(scope, receive), _Drain)
        except msgspec.ValidationError as exc:
            raise _invalid(str(exc)) from None
        config, _ = check_replica({"url": asked.url})
        for replica in self._catalog.replicas:
            if config is not None and replica.name == config.url:
                replica.drain(asked.draining, runs=asked.runs)
                answer: dict[str, object] = {"url": replica.name, "draining": asked.draining}
                answer |= {"in_flight": replica.in_flight, "runs": self._runs_of(replica)}
                await respond_json(send, record, 200, answer)
                return
        raise ApiError(404, f"{asked.url} is no replica here", code="not_found", param="url")

    def _runs_of(self, replica: Replica) -> int:
        """Runs that its drain waits for; 0 if it does not wait for any."""
        if not replica.keeps_runs:
            return 0
        return sum(pool.runs_of(replica.name) for pool in self._catalog.pools.values())

    def _changed(self, model: str, change: Callable[[], bool]) -> bool:
        try:
            changed = change()
        except KeyError:
            known = ", ".join(sorted(pool.model for pool in self._membership.pools)) or "none"
            raise ApiError(
                404,
                f"no [[pool]] of model {model!r} is configured; those are: {known}",
                code="model_not_found",
                param="model",
            ) from None
        if changed:
            self._refresh()
        return changed

    def _models(self) -> Mapping[Replica, Sequence[str]]:
        found: defaultdict[Replica, list[str]] = defaultdict(list)
        for pool in self._catalog.pools.values():
            for replica in pool.replicas:
                found[replica].append(pool.model)
        return found

    async def _fields(self, scope: Scope, receive: Receive) -> dict[str, object]:
        """The JSON object in the body. Only as JSON: no page of another site can send that."""
        kind = dict(scope["headers"]).get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind != b"application/json":
            shown = repr(kind.decode("latin-1")) if kind else "missing"
            message = f"content-type is {shown}, expected application/json"
            raise ApiError(415, message, code="unsupported_media_type")
        try:
            body = await read_body(receive, _BODY_BYTES)
        except ClientLeft:
            raise ConnectionLost("the client left before its request was complete") from None
        try:
            return msgspec.json.decode(body, type=dict[str, object])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise _invalid(str(exc)) from None

    # Who may

    def _authorize(self, scope: Scope) -> None:
        if self.key is None:
            raise ApiError(
                403,
                "the admin API answers nobody: there is no admin.key, and one of its own could "
                "not be written to a file; set admin.key",
                code="forbidden",
            )
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        sent = next((value for name, value in headers if name == b"authorization"), b"")
        if not hmac.compare_digest(sent, b"Bearer " + self.key.encode()):
            raise ApiError(
                401,
                "the admin API wants its key as `Authorization: Bearer`: admin.key, or if none is "
                "configured what is in triolet/admin-PORT.key below XDG_RUNTIME_DIR or ~/.cache",
                code="invalid_api_key",
                headers=[(b"www-authenticate", b"Bearer")],
            )


def _query(scope: Scope) -> dict[str, list[str]]:
    return parse_qs(scope["query_string"].decode("latin-1"))


def _read_member(fields: dict[str, object]) -> tuple[_Change, ReplicaConfig]:
    try:
        change = msgspec.convert(fields, _Change)
    except msgspec.ValidationError as exc:
        raise _invalid(str(exc)) from None
    config, problems = check_replica({key: fields[key] for key in fields if key != "model"})
    if config is None:
        raise _invalid("; ".join(problems))
    return change, config


def _invalid(why: str) -> ApiError:
    return ApiError(400, f"invalid body: {why}", code="invalid_type")
