"""nginx as a reverse proxy: balances by connections, knows nothing of prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bench.peers.gateway import DebianPackage, Gateway, Place, Setup

__all__ = ["NGINX"]

_METHODS: Final = {
    "round_robin": "",
    "least_conn": "least_conn;",
    "random": "random;",
    "random_two": "random two least_conn;",
    "session_hash": "hash $http_x_session_id consistent;",
}

_CONFIG: Final = """\
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log error;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    client_max_body_size 64m;
    # Its workers may not write files below a directory of root's.
    client_body_buffer_size 64m;
    upstream replicas {{
        {method}
{servers}
        keepalive 256;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://replicas;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 600s;
        }}
    }}
}}
"""


def _setup(place: Place, policy: str) -> Setup:
    config = place.directory / "nginx.conf"
    command = [
        *(str(place.home / "usr/sbin/nginx"), "-c", str(config)),
        # Before it has read the configuration, it writes errors to a directory of the system.
        *("-e", str(place.directory / "error.log"), "-p", str(place.directory)),
    ]
    return Setup(
        command,
        files={config: _config(place, policy, place.directory)},
        session_header="x-session-id" if policy == "session_hash" else None,
    )


def _config(place: Place, policy: str, directory: Path) -> str:
    servers = [f"        server {url.removeprefix('http://')};" for url in place.replicas]
    return _CONFIG.format(
        directory=directory,
        method=_METHODS[policy],
        servers="\n".join(servers),
        port=place.port,
    )


NGINX: Final = Gateway(
    name="nginx",
    source=DebianPackage("usr/sbin/nginx", ("nginx", "nginx-light", "nginx-core")),
    policies=tuple(_METHODS),
    setup=_setup,
    workers="one worker process",
)
