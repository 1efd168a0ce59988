"""The architecture as a test: who may import whom, and who may touch the world."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# From the bottom up. A module may import its own layer and the layers below it;
# layers that share a row do not know each other.
LAYERS = [
    {"syncengine.limits"},
    {"syncengine.errors"},
    {"syncengine.ids"},
    {"syncengine.values", "syncengine.clock", "syncengine.version"},
    {"syncengine.system"},
    {"syncengine.crdt", "syncengine.trust"},
    {"syncengine.documents", "syncengine.log", "syncengine.conflicts"},
    {"syncengine.storage", "syncengine.protocol"},
    {"syncengine.replication"},
    {"syncengine.testing", "syncengine.blocking", "syncengine.bridges"},
    {"transport"},
    {"clients"},
    {"syncengine.__main__"},
]

# The world comes in here and nowhere else: clocks, randomness, sockets, files, keys.
GATES: dict[str, set[str]] = {
    "aiosqlite": {"syncengine.storage.sqlite", "syncengine.storage.checkpoints"},
    "asyncio": {
        "syncengine.blocking",
        "syncengine.storage.checkpoints",
        "syncengine.storage.pipeline",
        "syncengine.storage.sqlite",
        "syncengine.replication",
        "syncengine.testing",
        "transport",
        "clients",
    },
    "click": {"clients"},
    "cryptography": {"syncengine.trust"},
    "fcntl": {"syncengine.storage.identity"},
    "markdown_it": {"syncengine.bridges.markdown"},
    "multiprocessing": {"syncengine.testing.campaign"},
    "os": {
        "syncengine.system",
        "syncengine.storage.identity",
        "syncengine.replication.replica",  # the process id, against forks
        "syncengine.testing.campaign",
        "transport.pipeline",  # a secret for its address
        "clients",
    },
    "pycrdt": {"syncengine.bridges.yjs"},
    "random": {"syncengine.testing", "clients"},
    "rich": {"clients"},
    "secrets": set(),
    "segno": {"syncengine.trust.invite"},
    "socket": {"transport.server"},
    "sqlite3": {"syncengine.storage", "syncengine.replication.doctor"},
    "threading": {"syncengine.blocking"},
    "time": {"syncengine.system", "syncengine.testing.campaign", "clients"},
    "uuid": set(),
    "websockets": {"transport"},
}

# Modules without a test module of their own: glue that the named tests run through.
UNTESTED = {
    "clients.cli.main": "test_cli.py runs every command",
    "clients.cli.context": "test_cli.py",
    "clients.cli.documents": "test_cli.py",
    "clients.cli.files": "test_cli.py",
    "clients.cli.history": "test_cli.py",
    "clients.cli.linking": "test_cli.py",
    "clients.cli.membership": "test_cli.py",
    "clients.cli.seconds": "test_cli.py",
    "clients.cli.control": "test_cli.py and tests/integration/test_leaders.py",
    "clients.cli.master": "test_cli.py and tests/integration/test_masters.py",
    "clients.cli.node": "test_cli.py and tests/integration/test_leaders.py",
    "clients.cli.listening": "test_cli.py",
    "clients.cli.fleet": "tests/integration/test_fleet.py",
    "clients.cli.output": "test_cli.py",
    "clients.cli.settings": "test_cli.py",
    "clients.demo.device": "test_demo.py",
    "clients.demo.play": "test_demo.py",
    "clients.demo.replay": "test_demo.py",
    "clients.demo.stage": "test_demo.py",
    "syncengine.__main__": "test_cli.py",
    "syncengine.storage.pipeline.contract": "tests/suites/test_pipeline.py",
    "syncengine.storage.pipeline.memory": "tests/suites/test_pipeline.py",
    "syncengine.crdt.operation": "test_document.py",
    "syncengine.crdt.sequence.oplog": "test_walker.py",
    "syncengine.crdt.sequence.state": "test_walker.py",
    "syncengine.documents.bound": "test_fields.py",
    "syncengine.documents.columns": "test_tables.py",
    "syncengine.documents.comparing": "test_past.py",
    "syncengine.documents.copies": "test_past.py",
    "syncengine.documents.merging": "test_undo.py",
    "syncengine.documents.leaves": "test_fields.py",
    "syncengine.documents.model": "test_fields.py",
    "syncengine.documents.shape": "test_fields.py and test_record.py",
    "syncengine.documents.versions": "test_past.py",
    "syncengine.documents.view": "test_fields.py",
    "syncengine.errors": "raised all over",
    "syncengine.limits": "asserts its own relations at import",
    "syncengine.log.delivery": "simulation: invariants O1, C2",
    "syncengine.log.run": "test_batch.py",
    "syncengine.protocol.codes": "test_documents.py",
    "syncengine.protocol.messages": "test_session.py",
    "syncengine.protocol.states": "test_documents.py",
    "syncengine.protocol.handshake": "test_session.py",
    "syncengine.replication.backoff": "test_link.py",
    "syncengine.storage.query": "test_tables.py",
    "syncengine.replication.body": "test_space.py",
    "syncengine.replication.conversation": "test_link.py",
    "syncengine.replication.documents": "test_space.py",
    "syncengine.replication.leadership": "test_leader_follower.py and simulation: led",
    "syncengine.replication.notices": "test_hostile.py and test_leader_follower.py",
    "syncengine.replication.acknowledging": "test_leader_follower.py",
    "syncengine.replication.seat": "test_consistency.py and test_succession.py",
    "syncengine.replication.roles": "test_leader_follower.py",
    "syncengine.replication.draft": "test_space.py",
    "syncengine.replication.host": "an interface",
    "syncengine.replication.opening": "test_replica.py",
    "syncengine.replication.origins": "simulation",
    "syncengine.replication.peer": "test_link.py and simulation",
    "syncengine.replication.live": "test_space.py",
    "syncengine.replication.reader": "test_cli.py",
    "syncengine.replication.rescue": "test_leader_follower.py and test_modes.py",
    "syncengine.replication.rewriting": "simulation",
    "syncengine.replication.transaction": "test_space.py",
    "syncengine.storage.identity": "test_replica.py",
    "syncengine.storage.inline": "suites/test_store.py",
    "syncengine.storage.sqlite": "suites/test_store.py",
    "syncengine.storage.store": "suites/test_store.py",
    "syncengine.storage.sql.statements": "suites/test_store.py",
    "syncengine.system": "two calls of the system",
    "syncengine.trust.entry": "test_membership.py and test_leadership.py",
    "syncengine.testing.leasing": "simulation: test_leased.py",
    "syncengine.testing.operating": "simulation: test_operated.py",
    "syncengine.testing.switching": "simulation: test_switched.py",
    "syncengine.testing.sharding": "simulation: test_sharded.py",
    "syncengine.testing.mastering": "simulation: test_mastered.py",
    "syncengine.testing.__main__": "make simulate",
    "syncengine.testing.campaign": "make simulate",
    "syncengine.testing.disk": "test_world.py",
    "syncengine.testing.loop": "test_world.py",
    "syncengine.testing.network": "test_world.py",
    "syncengine.testing.story": "tests/simulation",
    "transport.memory": "suites/test_connection.py",
    "transport.server": "test_websocket.py",
}

RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


MODULES = {
    name_of(path): path
    for package in ("syncengine", "transport", "clients")
    for path in (ROOT / package).rglob("*.py")
}


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def layer(module: str) -> str | None:
    return next((name for name in RANK if within(module, name)), None)


def wall_clocks(path: Path) -> Iterator[str]:
    """Yield where a module asks `datetime` what time it is."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr in ("now", "utcnow", "today"):
            owner = ast.unparse(node.value)
            if owner.rpartition(".")[2] in ("datetime", "date"):
                yield f"{path.name}:{node.lineno} {owner}.{node.attr}"


def imports(path: Path) -> Iterator[str]:
    """Yield the modules that the file at `path` imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            assert node.level == 0, f"{path} imports relatively"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in MODULES else node.module


def violations(module: str, path: Path) -> Iterator[str]:
    """Yield each import of `module` that points up, aside, or around a gate."""
    own = layer(module)
    if own is None:
        yield f"{module} belongs to no layer"
        return
    for imported in imports(path):
        other = layer(imported)
        if other is not None and other != own and RANK[other] >= RANK[own]:
            yield f"{module} imports {imported}"
        gates = GATES.get(imported.partition(".")[0])
        if gates is not None and not any(within(module, gate) for gate in gates):
            yield f"{module} imports {imported}"


def test_nobody_asks_datetime_what_time_it_is(tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text("import datetime\nx = datetime.datetime.now()\n")
    assert list(wall_clocks(planted)) == ["planted.py:2 datetime.datetime.now"]

    assert [found for path in MODULES.values() for found in wall_clocks(path)] == []


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {"syncengine"}))
def test_imports_point_down_and_the_world_comes_in_through_its_gates(
    module: str,
) -> None:
    assert list(violations(module, MODULES[module])) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("syncengine.crdt.counter", "import syncengine.storage.sqlite"),
        ("syncengine.storage.store", "import syncengine.protocol.session"),
        ("syncengine.protocol.session", "import asyncio"),
        ("syncengine.crdt.text", "import random"),
        ("syncengine.replication.link", "import websockets"),
        ("transport.server", "import clients.cli"),
        ("syncengine.log.batch", "from time import time"),
        ("syncengine.nowhere", "import json"),
    ],
)
def test_planted_violations_are_caught(module: str, line: str, tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text(f"{line}\n")

    assert len(list(violations(module, planted))) == 1


def test_the_hub_never_imports_the_document_code() -> None:
    """Statically; `integration/test_hub.py` looks into a running hub's modules."""
    seen: set[str] = set()
    todo = ["syncengine.replication.hub", "transport.server"]
    while todo:
        module = todo.pop()
        if module in seen or module not in MODULES:
            continue
        seen.add(module)
        todo += list(top_level_imports(MODULES[module]))

    assert not [m for m in seen if within(m, "syncengine.crdt")]


def top_level_imports(path: Path) -> list[str]:
    """Return what the file imports when it is loaded: not inside functions."""
    found: list[str] = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found += [f"{node.module}.{a.name}" for a in node.names] + [node.module]
    return found


def test_every_module_has_its_test_module() -> None:
    missing: set[str] = set()
    for module, path in MODULES.items():
        mirrored = path.relative_to(ROOT).with_name(f"test_{path.name}")
        if path.name != "__init__.py" and not (ROOT / "tests" / mirrored).exists():
            missing.add(module)

    assert missing == UNTESTED.keys()
