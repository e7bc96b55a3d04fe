"""The command `triolet replicas`: asks a running Triolet, again and again, and prints a table."""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import shutil
import ssl
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Final
from urllib.parse import urlsplit

import click

__all__ = ["AdminClient", "NoAnswer", "replicas"]

_FAILED: Final = 1
_LIMIT_S: Final = 5.0
_MOST_BYTES: Final = 67_108_864


class NoAnswer(Exception):
    """Why there is nothing to show. `passing`: asking again may help."""

    def __init__(self, why: str, *, passing: bool = False) -> None:
        super().__init__(why)
        self.passing = passing


class AdminClient:
    """Asks the admin API of the Triolet at `url`, directly: never through a proxy."""

    def __init__(self, url: str, key: str | None) -> None:
        """`url` is canonical; `key` is sent as it is."""
        self._url = url
        self._headers = {} if key is None else {"authorization": f"Bearer {key}"}

    def get(self, path: str) -> bytes:
        """What it answers. Raises `NoAnswer`."""
        parts = urlsplit(self._url)
        connection = self._connection(parts.scheme, parts.hostname or "", parts.port)
        try:
            connection.request("GET", parts.path + path, headers=self._headers)
            answer = connection.getresponse()
            body = answer.read(_MOST_BYTES)
        except (OSError, http.client.HTTPException) as exc:
            raise NoAnswer(self._unreachable(exc), passing=True) from exc
        finally:
            connection.close()
        if answer.status != 200:
            raise NoAnswer(self._refused(answer.status, body), passing=answer.status >= 500)
        return body

    def _connection(self, scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
        if scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=_LIMIT_S)
        return http.client.HTTPConnection(host, port, timeout=_LIMIT_S)

    def _unreachable(self, failure: Exception) -> str:
        why = getattr(failure, "strerror", None) or str(failure) or type(failure).__name__
        if isinstance(failure, ssl.SSLCertVerificationError):
            return f"the certificate of {self._url} cannot be trusted: {failure.verify_message}"
        return f"no answer from {self._url}: {why}; is `triolet serve` running there (--url)?"

    def _refused(self, status: int, body: bytes) -> str:
        if status == 401:
            return (
                f"{self._url} wants its admin.key: give it as --key or TRIOLET_ADMIN__KEY; "
                "if it has none, ask on its own machine and as the user that runs it"
            )
        if status == 404:
            return f"{self._url} has no admin API: it is an older Triolet, or none"
        return f"{self._url} answered {status}: {_said(body)}"


def _said(body: bytes) -> str:
    """The words of an error answer, if it is one of ours."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return "no words"


@click.command("replicas")
@click.option(
    "--url",
    default="http://127.0.0.1:8746",
    show_default=True,
    metavar="URL",
    help="Where Triolet listens.",
)
@click.option(
    "--key",
    envvar="TRIOLET_ADMIN__KEY",
    metavar="KEY",
    help="Its admin.key; not needed for your own Triolet on this machine.",
)
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(min=0.1, max=3600),
    default=2.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--once", is_flag=True, help="Print one table and end.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with all there is.")
def replicas(url: str, key: str | None, interval_s: float, once: bool, as_json: bool) -> None:
    """Show the replicas of a running Triolet, live."""
    client = _client(url, key)
    look = partial(_json_lines, client) if as_json else _Table(client).look
    terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    redraws = terminal and not (as_json or once)
    screen = _Screen(redraws=redraws, between=[] if as_json else [""])
    try:
        screen.show(look())
        while not once:
            time.sleep(interval_s)
            _show_again(screen, look)
    except NoAnswer as exc:
        click.echo(f"triolet: {exc}", err=True)
        sys.exit(_FAILED)
    except KeyboardInterrupt:  # how it is meant to end
        sys.exit(0)


def _client(url: str, key: str | None) -> AdminClient:
    from server.config import parse_replica_url
    from server.config.check import Source
    from server.config.values import read_api_key

    try:
        canonical = parse_replica_url(url)
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="--url") from exc
    try:
        found = read_api_key(key, Source("--key", "", os.environ)) if key else None
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="--key") from exc
    return AdminClient(canonical, found or _own_key(canonical))


def _own_key(url: str) -> str | None:
    """The key that a Triolet on this machine made for itself, if we may read it."""
    from server.admin_key import key_file, read_key_file

    parts = urlsplit(url)
    host = parts.hostname or ""
    if host != "localhost" and not _is_loopback(host):
        return None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return read_key_file(key_file(port, os.environ))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _show_again(screen: _Screen, look: Callable[[], list[str]]) -> None:
    """What was seen before may be away for a while: then that is said, and it comes back."""
    try:
        screen.show(look())
    except NoAnswer as exc:
        if not exc.passing:
            raise
        screen.trouble(f"triolet: {exc}")


def _json_lines(client: AdminClient) -> list[str]:
    pools, found = client.get("/admin/api/pools"), client.get("/admin/api/replicas")
    try:
        return [json.dumps({**json.loads(pools), **json.loads(found)}, separators=(",", ":"))]
    except (ValueError, TypeError) as exc:
        raise NoAnswer(f"what answers is not Triolet's admin API: {exc}") from exc


class _Table:
    """The table, with what was seen before."""

    def __init__(self, client: AdminClient) -> None:
        from server.replicas_table import Rates

        self._client = client
        self._rates = Rates()

    def look(self) -> list[str]:
        from server.replicas_table import read_snapshot, table

        pools = self._client.get("/admin/api/pools")
        found = self._client.get("/admin/api/replicas")
        try:
            snapshot = read_snapshot(time.monotonic(), pools, found)
        except ValueError as exc:
            raise NoAnswer(f"what answers is not Triolet's admin API: {exc}") from exc
        self._rates.add(snapshot)
        return table(snapshot, self._rates)


class _Screen:
    """Draws over what it drew before, on a terminal; prints one after the other elsewhere."""

    def __init__(self, *, redraws: bool, between: list[str]) -> None:
        """`between`: the lines between two, where they are not drawn over."""
        self._redraws = redraws
        self._between = between
        self._drawn = 0

    def show(self, lines: list[str]) -> None:
        if self._redraws:
            self._draw(lines)
            return
        for line in [*(self._between if self._drawn else []), *lines]:
            click.echo(line)
        self._drawn = len(lines)

    def trouble(self, text: str) -> None:
        """Say why there is nothing new."""
        if self._redraws:
            self._draw([text])
        else:
            click.echo(text, err=True)

    def _draw(self, lines: list[str]) -> None:
        from server.replicas_table import fitted

        columns, rows = shutil.get_terminal_size()
        lines = fitted(lines, columns, rows - 1)
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        click.echo(f"{up}\r\x1b[J" + "\n".join(lines), color=True)
        self._drawn = len(lines)
