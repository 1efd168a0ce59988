"""Values that hold CRDTs, as plain values and back.

A CRDT in a value becomes `{"$crdt": its name, "state": its JSON}`; what bears such a
tag becomes a CRDT again. `register_crdt` says which classes there are; none is guessed.
"""

from collections.abc import Mapping
from typing import Any, cast

from syncengine import limits, values
from syncengine.conflicts.crdts import (
    GCounter,
    GSet,
    LWWRegister,
    Mergeable,
    MVRegister,
    ORSet,
    PNCounter,
)
from syncengine.errors import Invalid
from syncengine.values import Value

TAG = "$crdt"

_classes: dict[str, type[Mergeable]] = {}


def register_crdt(cls: type[Mergeable]) -> type[Mergeable]:
    """Let values hold CRDTs of `cls` under its `name`; also as a decorator.

    Raises `Invalid` when another class has the name.
    """
    known = _classes.setdefault(cls.name, cls)
    if known is not cls:
        raise Invalid(f"{cls.name!r} is {known.__qualname__} already")
    return cls


for _class in (GCounter, PNCounter, GSet, ORSet, LWWRegister, MVRegister):
    register_crdt(_class)


def to_plain(value: object) -> Value:
    """Return `value` with each CRDT as its tag and state, checked.

    Raises `Invalid`, naming the path, for what is no value and no registered CRDT.
    """
    try:
        plain = _plain(value)
    except RecursionError:
        raise Invalid(
            f"nested deeper than {limits.DEPTH_MAX}",
            path="value",
            bound=limits.DEPTH_MAX,
        ) from None
    values.check(plain, "value")
    return plain


def from_plain(value: Value, node_id: str = "") -> Any:
    """Return `value` with what is tagged as CRDTs, to be changed as `node_id`.

    Raises `Invalid` for an unknown tag: nothing can be merged that is not understood.
    """
    if isinstance(value, dict):
        fields = cast(dict[str, Any], value)
        if fields.keys() == {TAG, "state"}:
            cls = _classes.get(fields[TAG]) if isinstance(fields[TAG], str) else None
            if cls is None:
                raise Invalid(
                    f"there is no CRDT {fields[TAG]!r}; register_crdt makes it known"
                )
            return cls.from_json(fields["state"], node_id)
        return {key: from_plain(item, node_id) for key, item in fields.items()}
    if values.is_list(value):
        return [from_plain(item, node_id) for item in value]
    return value


def _plain(value: object) -> Value:
    if isinstance(value, Mergeable):
        if _classes.get(value.name) is not type(value):
            raise Invalid(f"{type(value).__qualname__} is not registered")
        return {TAG: value.name, "state": value.to_json()}
    if isinstance(value, Mapping):
        fields = cast(Mapping[str, Any], value)
        return {key: _plain(item) for key, item in fields.items()}
    if values.is_list(value):
        return [_plain(item) for item in value]
    return value
