"""The layer rules of the house, checked on the imports that the source really contains.

Every import counts: at the top, inside a function, under TYPE_CHECKING, and by literal name through
import_module. A new module directly under ``server`` needs a layer in SERVER_LAYERS.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("balancer", "bench", "server")

# What a package may import of the other two: a name here allows all that is below it.
ALLOWED_BETWEEN_PACKAGES: dict[str, tuple[str, ...]] = {
    "balancer": (),
    "bench": ("balancer",),
    "server": ("balancer", "bench.replica"),
}

# From the bottom up. A layer imports its own and those before it.
SERVER_LAYERS = (
    {"config", "errors"},
    {"workflow", "store", "observe", "membership", "listing", "admin_key"},
    {"sandbox", "web", "files", "pool_models"},
    {"dify", "governance", "knowledge", "tools"},
    {"apps", "running"},
    {"edge", "api"},
    {
        *("main", "announce", "demo", "pools", "probing", "__main__"),
        *("cli", "cli_gpu", "gpu_agent", "cli_replicas", "replicas_table"),
        *("cli_apps", "cli_run", "engine_bench", "supply", "timeline"),
    },
)
SERVER_RANK = {name: rank for rank, layer in enumerate(SERVER_LAYERS) for name in layer}

# Foreign packages that only one place may know.
ONLY_IN: dict[str, tuple[str, ...]] = {
    "quart": ("server.edge", "server.api"),
    "quart_trio": ("server.edge", "server.api"),
    "hypercorn": ("server.edge", "server.api"),
    "sqlite3": ("server.store",),
    "apsw": ("server.store",),
    "psycopg": ("server.store",),
    "psycopg_pool": ("server.store",),
}
IN_ONE_MODULE = ("httpcore", "httpx", "pynvml")

# Pure logic: takes `now` and bytes, does no I/O and waits for nothing.
PURE_MODULES = (
    *("balancer.admission", "balancer.admission.*", "balancer.policies", "balancer.policies.*"),
    *("balancer.breaker", "balancer.faults", "balancer.hedge", "balancer.outliers"),
    *("balancer.patience", "balancer.presence", "balancer.ramp", "balancer.retry"),
    *("balancer.foreign", "balancer.load", "balancer.speed", "balancer.window"),
    *("balancer.payload", "balancer.prefix", "balancer.prompt", "balancer.segments"),
    *("balancer.readings", "balancer.staleness", "balancer.trust"),
    *("balancer.probes.engine_metrics", "balancer.probes.engine_names"),
    *("balancer.probes.engine_places", "balancer.probes.engine_status"),
    *("balancer.probes.exposition", "balancer.probes.models"),
    *("balancer.wire.media", "balancer.wire.messages", "balancer.wire.openai"),
    *("balancer.wire.page", "balancer.wire.prompts", "balancer.wire.sse"),
    *("server.membership", "server.replicas_table", "server.observe.histogram"),
    *("server.workflow.values", "server.workflow.variables", "server.workflow.template"),
    *("server.workflow.app", "server.workflow.reading", "server.workflow.events"),
    *("server.workflow.answers", "server.workflow.readiness", "server.workflow.topology"),
    *("server.workflow.graph", "server.workflow.failures", "server.workflow.sizes"),
    *("server.workflow.conditions", "server.workflow.comparing", "server.workflow.inputs"),
    *("server.workflow.model_names", "server.workflow.tokens", "server.workflow.reasoning"),
    *("server.workflow.history", "server.workflow.context", "server.workflow.extracted"),
    *("server.workflow.code_outputs", "server.workflow.schedules", "server.workflow.assigning"),
    *("server.dify", "server.dify.*", "server.timeline", "server.timeline.*"),
    *("server.sandbox.scan", "server.sandbox.filter", "server.sandbox.syscalls"),
)
# Policies whose choice depends on the time. They get a clock; unless told otherwise it is Trio's,
# and that is all that they may know of Trio.
TIMED_POLICIES = frozenset(
    {
        "balancer.policies.expected_cost",
        "balancer.policies.gpu_load",
        "balancer.policies.session",
    }
)
IMPURE = (
    *("anyio", "asyncio", "trio", "threading", "subprocess", "time"),
    *("http.client", "httpx", "select", "selectors", "socket", "ssl", "urllib.request"),
)


@dataclass(frozen=True)
class Import:
    """One import: `module` (dotted) at `line` of the file `path` takes in `target` (dotted)."""

    module: str
    path: Path
    line: int
    target: str

    def breaks(self, rule: str) -> str:
        """Says where this import stands and which `rule` it breaks."""
        return f"{self.path}:{self.line}: {self.module} imports {self.target}: {rule}"


def below(name: str, parents: tuple[str, ...]) -> bool:
    """Whether the dotted `name` is one of `parents` or inside one."""
    return any(name == parent or name.startswith(parent + ".") for parent in parents)


def source_files(root: Path) -> dict[str, Path]:
    """Returns the path of every module of the three packages under `root`, by dotted name."""
    files = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def imported_base(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    """The dotted name after ``from``, with leading dots resolved against `module`."""
    if node.level == 0:
        return node.module or ""
    parents = module.split(".")
    kept = parents[: len(parents) - node.level + is_package]
    return ".".join([*kept, node.module] if node.module else kept)


def literal_import(node: ast.Call) -> Iterator[str]:
    """Yields the module that ``import_module("name")`` or ``__import__("name")`` names."""
    function = node.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if name in {"import_module", "__import__"} and node.args:
        argument = node.args[0]
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            yield argument.value


def targets(node: ast.AST, module: str, is_package: bool, known: set[str]) -> Iterator[str]:
    """Yields what `node` imports; ``from a import b`` is a.b where that is a module, else a."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = imported_base(node, module, is_package)
        for alias in node.names:
            inner = f"{base}.{alias.name}"
            yield inner if inner in known else base
    elif isinstance(node, ast.Call):
        yield from literal_import(node)


def read_imports(root: Path) -> list[Import]:
    """Reads every import of every module of the three packages under `root`."""
    files = source_files(root)
    known = set(files)
    return [
        Import(module, path.relative_to(root), getattr(node, "lineno", 0), target)
        for module, path in files.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path)))
        for target in targets(node, module, path.name == "__init__.py", known)
    ]


def between_packages(imports: list[Import]) -> Iterator[str]:
    """Each package imports of the other two only what ALLOWED_BETWEEN_PACKAGES names."""
    for item in imports:
        home, away = item.module.split(".")[0], item.target.split(".")[0]
        if away in {"tests", "scripts"}:
            yield item.breaks("the product does not import its tests or scripts")
        elif away in PACKAGES and away != home:
            allowed = ALLOWED_BETWEEN_PACKAGES[home]
            if not below(item.target, allowed):
                yield item.breaks(f"{home} may import only {' and '.join(allowed) or 'itself'}")


def between_server_layers(imports: list[Import]) -> Iterator[str]:
    """Inside server no layer imports a higher one; ``server/__init__.py`` imports none of them."""
    for item in imports:
        home, away = item.module.split("."), item.target.split(".")
        if home[0] != "server" or away[0] != "server" or len(away) == 1:
            continue
        here = SERVER_RANK.get(home[1]) if len(home) > 1 else -1
        there = SERVER_RANK.get(away[1])
        if here is not None and there is not None and there > here:
            yield item.breaks("a lower layer of server does not import a higher one")


def server_names_without_layer(root: Path) -> list[str]:
    """Names directly under server that SERVER_LAYERS does not place."""
    names = {module.split(".")[1] for module in source_files(root) if module.startswith("server.")}
    return sorted(names - set(SERVER_RANK))


def foreign_packages(imports: list[Import]) -> Iterator[str]:
    """Web framework and SQL stay in their place; httpx and pynvml in one module each."""
    for item in imports:
        places = ONLY_IN.get(item.target.split(".")[0])
        if places is not None and not below(item.module, places):
            yield item.breaks(f"only {' and '.join(places)} may")
    for package in IN_ONE_MODULE:
        users = {item.module: item for item in imports if below(item.target, (package,))}
        if len(users) > 1:
            yield from (item.breaks(f"only one module may ({package})") for item in users.values())


def impure_imports(imports: list[Import]) -> Iterator[str]:
    """Pure modules import nothing that waits, reads a clock or touches the outside."""
    for item in imports:
        pure = any(fnmatch(item.module, pattern) for pattern in PURE_MODULES)
        clock = item.target == "trio" and item.module in TIMED_POLICIES
        if pure and below(item.target, IMPURE) and not clock:
            yield item.breaks("a pure module does no I/O and takes `now` as an argument")


def more_than_the_clock(root: Path) -> Iterator[str]:
    """Of Trio the timed policies use `current_time`, and nothing else."""
    for module, path in source_files(root).items():
        tree = ast.parse(path.read_text(encoding="utf-8")) if module in TIMED_POLICIES else None
        for node in ast.walk(tree) if tree is not None else ():
            of_trio = isinstance(node, ast.Attribute) and ast.unparse(node.value) == "trio"
            from_trio = isinstance(node, ast.ImportFrom) and node.module == "trio"
            if from_trio or (of_trio and node.attr != "current_time"):  # type: ignore[attr-defined]
                yield f"{module} uses {ast.unparse(node)}: a policy waits for nothing"


def violations(root: Path) -> list[str]:
    """Checks the tree under `root` against every rule; one line per broken one."""
    imports = read_imports(root)
    unplaced = server_names_without_layer(root)
    return [
        *between_packages(imports),
        *between_server_layers(imports),
        *foreign_packages(imports),
        *impure_imports(imports),
        *more_than_the_clock(root),
        *(f"server.{name} has no layer: add it to SERVER_LAYERS" for name in unplaced),
    ]


def plant(root: Path, files: dict[str, str]) -> None:
    """Writes `files` (path to source) under `root`."""
    for name, source in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")


def test_house_keeps_its_layers() -> None:
    """No module of the tree breaks a layer rule."""
    assert violations(ROOT) == []


def test_every_package_is_read() -> None:
    """The check above has looked at all three packages, and at imports in them."""
    assert {module.split(".")[0] for module in source_files(ROOT)} == set(PACKAGES)
    assert {item.module.split(".")[0] for item in read_imports(ROOT)} == set(PACKAGES)


def test_every_named_module_is_there() -> None:
    """A module that was renamed does not leave its rules behind."""
    modules = list(source_files(ROOT))
    named = {*PURE_MODULES, *TIMED_POLICIES}
    assert [name for name in sorted(named) if not any(fnmatch(one, name) for one in modules)] == []


LATE = "def f() -> None:\n    import server.api.openai\n"
TYPING = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from trio import Event\n"

PLANTED = [
    ("balancer/pool.py", "import server.config\n"),
    ("balancer/pool.py", "from bench import replica\n"),
    ("bench/load.py", "from server.errors import ApiError\n"),
    ("bench/load.py", "import tests.conftest\n"),
    ("server/main.py", "from bench.load import run\n"),
    ("server/main.py", "import bench\n"),
    ("server/config/loading.py", "from ..observe import metrics\n"),
    ("server/errors.py", "from server import api\n"),
    ("server/observe/log.py", LATE),
    ("server/api/openai.py", "import importlib\nimportlib.import_module('server.main')\n"),
    ("server/__init__.py", "from . import api\n"),
    ("server/relay.py", ""),
    ("server/main.py", "import hypercorn.trio\n"),
    ("balancer/pool.py", "from quart import Quart\n"),
    ("server/api/admin.py", "import sqlite3\n"),
    ("balancer/policies/random.py", "import time\n"),
    ("balancer/breaker.py", TYPING),
    ("balancer/policies/session.py", "import trio\ntrio.sleep(1)\n"),
    ("balancer/policies/gpu_load.py", "from trio import current_time\n"),
    ("balancer/admission/line.py", "import trio\n"),
    ("server/membership.py", "import socket\n"),
    ("server/membership.py", "from server import api\n"),
    ("balancer/wire/sse.py", "from socket import socket\n"),
]


@pytest.mark.parametrize(("path", "source"), PLANTED)
def test_planted_violation_is_found(tmp_path: Path, path: str, source: str) -> None:
    """Each kind of forbidden import, alone in a tree, is reported with its module."""
    plant(tmp_path, {"server/api/__init__.py": "", "bench/replica/__init__.py": "", path: source})
    found = violations(tmp_path)
    assert len(found) == 1
    assert path.removesuffix(".py").replace("/", ".").removesuffix(".__init__") in found[0]


@pytest.mark.parametrize("package", IN_ONE_MODULE)
def test_second_user_of_a_single_home_package_is_found(tmp_path: Path, package: str) -> None:
    """One module may import httpx (or pynvml); with two, both are named."""
    plant(tmp_path, {"balancer/probes/health.py": f"import {package}\nimport {package}.inner\n"})
    assert violations(tmp_path) == []
    plant(tmp_path, {"server/knowledge/fetch.py": f"from {package} import anything\n"})
    assert len(violations(tmp_path)) == 2


def test_allowed_imports_pass(tmp_path: Path) -> None:
    """What the house allows is not reported."""
    allowed = {
        "balancer/pool.py": "import time\nimport trio\nfrom .policies import random\n",
        "balancer/policies/__init__.py": "from . import random\n",
        "balancer/policies/random.py": "import random\n",
        "balancer/policies/session.py": "import trio\nnow = trio.current_time\n",
        "bench/load.py": "from balancer.wire import http1\n",
        "bench/replica/__init__.py": "",
        "server/main.py": "from bench import replica\nfrom server.edge import tls\n",
        "server/edge/tls.py": "import hypercorn\nfrom server.api import health\n",
        "server/api/health.py": "from ..errors import ApiError\nimport quart_trio\n",
        "server/store/sqlite.py": "import apsw\nimport server\n",
    }
    plant(tmp_path, allowed)
    assert violations(tmp_path) == []
