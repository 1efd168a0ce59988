"""Versions of an entity that masters wrote at once, and the conflicts that a file
knows of."""

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from syncengine import values
from syncengine.conflicts.tagging import from_plain, to_plain
from syncengine.conflicts.vector_clock import VectorClock
from syncengine.crdt.document import Document as State
from syncengine.crdt.document import MultiState
from syncengine.crdt.operation import Type
from syncengine.errors import Invalid
from syncengine.storage.store import Store

VERSIONS = "versions"
"""The register in an entity's document."""

# Above this no count is one: the next write would have to count further.
COUNT_MAX = 2**60

RESOLUTION_OPTIONS: tuple[str, ...] = ("local", "remote", "merge")


@dataclass(frozen=True)
class Entity:
    """What a master shows of an entity."""

    id: str
    type: str
    version: int
    """How many writes it took, along the longest line of them"""
    data: Any
    updated_at: int
    """When the version that shows was written, in ms by its master's clock"""
    conflicted: bool = False
    """Whether somebody has to decide between versions"""


@dataclass(frozen=True)
class ConflictVersion:
    """One of the versions of a conflict."""

    master_id: str
    data: Any
    vector_clock: dict[str, int]
    timestamp: int


@dataclass(frozen=True)
class EntityConflict:
    """Versions of an entity of which none knew of another. The same on every master
    but for when it was seen there."""

    id: str
    entity_id: str
    detected_at: int
    versions: list[ConflictVersion]
    resolution_options: list[str]
    resolved_at: int | None = None
    resolution: str | None = None


@dataclass(frozen=True)
class Version:
    """One value of the register."""

    master: str
    data: Any
    clock: VectorClock
    timestamp: int
    version: int
    type: str
    stamps: dict[str, tuple[int, str]]
    deleted: bool

    @classmethod
    def of(cls, raw: Any) -> "Version | None":
        """Return a value as a version; None for what another program put there."""
        try:
            master, data, clock, timestamp, version, type_, stamps, deleted = raw
            counts = [timestamp, version, *dict(clock).values()]
            if not all(0 <= count < COUNT_MAX for count in counts):
                return None
            return cls(
                str(master),
                data,
                VectorClock(clock),
                int(timestamp),
                int(version),
                str(type_),
                {name: (int(at), str(by)) for name, (at, by) in stamps.items()},
                bool(deleted),
            )
        except (TypeError, ValueError, AttributeError, Invalid):
            return None

    def plain(self) -> list[Any]:
        """Return it as it stands in the register."""
        stamps = {name: list(stamp) for name, stamp in self.stamps.items()}
        return [
            self.master,
            self.data,
            self.clock.to_json(),
            self.timestamp,
            self.version,
            self.type,
            stamps,
            self.deleted,
        ]

    @property
    def name(self) -> tuple[str, int]:
        """Who wrote it, and his how manieth it was."""
        return self.master, self.clock[self.master]

    def live_data(self, master: str = "") -> Any:
        return with_crdts(self.data, master)

    def entity(self, id: str, *, conflicted: bool) -> Entity:
        return Entity(
            id, self.type, self.version, self.data, self.timestamp, conflicted
        )

    @property
    def order(self) -> tuple[int, str]:
        return self.timestamp, self.master


def stored_conflicts(
    store: Store, ns: int, glob: str, master: str = "", *, pending: bool
) -> list[EntityConflict]:
    """Return the conflicts that a file knows of, the oldest first: of the entities
    whose documents are called so, with CRDTs to be changed as `master`."""
    which = "AND resolved_at IS NULL " if pending else ""
    rows = store.read(
        "SELECT id, entity, detected_at, versions, resolved_at, resolution "
        f"FROM _sync_versions WHERE ns = ? AND entity GLOB ? {which}"
        "ORDER BY detected_at, id",
        *(ns, glob),
    )
    found: list[EntityConflict] = []
    for raw_id, entity, detected, raw, resolved, how in rows:
        versions = [version_from_json(one, master) for one in json.loads(raw)]
        name = entity.partition("/")[2]
        options = list(RESOLUTION_OPTIONS)
        id_ = bytes(raw_id).hex()
        found.append(
            EntityConflict(id_, name, detected, versions, options, resolved, how)
        )
    return found


def with_crdts(data: Any, master: str) -> Any:
    """Return data with its CRDTs, to be changed as `master`; as it is, where it has one
    that is not known here."""
    try:
        return from_plain(data, master)
    except Invalid:
        return data


def by_order(one: Version) -> tuple[int, str]:
    """The latest goes last; two at the same time by their masters' names."""
    return one.order


def read_versions(raw: Iterable[Any]) -> list[Version]:
    """Return the values of a register that are versions."""
    return [version for one in raw if (version := Version.of(one)) is not None]


def has_one(entity: State | None) -> bool:
    """Whether an entity has one version at most, as nearly all have nearly always."""
    if entity is None:
        return True
    state = entity.state((VERSIONS, int(Type.MULTI)), Type.MULTI)
    assert state is None or isinstance(state, MultiState), "it is of that type"
    return state is None or len(state.slot.get(None, ())) < 2


def differ(versions: list[Version]) -> bool:
    """Whether versions are a conflict: two that say the same are none."""
    return len({values.canonical([v.data, v.deleted]) for v in versions}) > 1


def version_to_json(one: ConflictVersion) -> dict[str, Any]:
    """Return what SQL's JSON functions read, and `version_from_json`."""
    data = None if one.data is None else _plain_json(to_plain(one.data))
    return {
        "master": one.master_id,
        "data": data,
        "clock": one.vector_clock,
        "timestamp": one.timestamp,
    }


def version_from_json(raw: Any, master: str = "") -> ConflictVersion:
    data = with_crdts(_from_json(raw["data"]), master)
    return ConflictVersion(raw["master"], data, raw["clock"], raw["timestamp"])


_NOTES = {"$bytes", "$at", "$map"}


def _plain_json(value: Any) -> Any:
    """Return a value as JSON has it; what it has no type for keeps one."""
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, datetime):
        return {"$at": value.isoformat()}
    if isinstance(value, dict):
        fields = cast(dict[str, Any], value)
        plain = {key: _plain_json(item) for key, item in fields.items()}
        return {"$map": plain} if plain.keys() & _NOTES else plain
    if values.is_list(value):
        return [_plain_json(item) for item in value]
    return value


def _from_json(value: Any) -> Any:
    if isinstance(value, dict):
        fields = cast(dict[str, Any], value)
        if fields.keys() == {"$bytes"}:
            return base64.b64decode(fields["$bytes"])
        if fields.keys() == {"$at"}:
            return datetime.fromisoformat(fields["$at"])
        if fields.keys() == {"$map"}:
            fields = fields["$map"]
        return {key: _from_json(item) for key, item in fields.items()}
    if values.is_list(value):
        return [_from_json(item) for item in value]
    return value
