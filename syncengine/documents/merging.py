"""Doing to a document what was done between two others: a merge of three.

What differs between `before` and `after` is done to `now`, wherever that shows what
`before` does; what somebody wrote over meanwhile stays as it is.
"""

# Bound views and drafts share protected parts across this package: an underscore keeps
# a user's own field names free.
# pyright: reportPrivateUsage=false

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from syncengine import values
from syncengine.crdt.marks import changes, piece, spliced
from syncengine.crdt.operation import Action, ContainerId, Type
from syncengine.crdt.register import Entry
from syncengine.crdt.sequence.difference import rebased, splices, text_splices
from syncengine.documents.copies import copy_of, copy_of_entry
from syncengine.documents.equality import exact_entry, rough
from syncengine.documents.fields import List, Map, Node, Tree, assign, bound
from syncengine.documents.leaves import MultiValue, Set, increment
from syncengine.documents.text import Text
from syncengine.documents.view import View
from syncengine.ids import ActorId, OpId


class Three(NamedTuple):
    """A container in three views of a document: `now` is the draft that is written."""

    before: View
    after: View
    now: View
    is_own: Callable[[ActorId], bool]
    """Whether an actor is of the device that does this"""
    is_over: bool = False
    """Whether to write over what somebody wrote meanwhile"""

    def equal(self, was: Entry | None, is_: Entry | None) -> bool:
        """Whether the same shows, before and after, in an entry."""
        one, other = exact_entry(self.before, was), exact_entry(self.after, is_)
        return bool(one == other)


def merge(
    before: View,
    after: View,
    now: View,
    is_own: Callable[[ActorId], bool],
    *,
    is_over: bool = False,
) -> None:
    """Do to `now` what makes `after` of `before`; with `is_over` also where somebody
    wrote over it meanwhile.

    What is to be taken out of a map, or deleted, stays where others than `is_own`
    edited inside.
    """
    three = Three(before, after, now, is_own, is_over)
    if before.exists and not after.exists:
        if now.exists and all(map(is_own, now.document.touches)):
            now.emit(Action.DROP, None)
        return
    if not after.exists:
        return
    if not before.exists and not now.exists:
        now.emit(Action.TOUCH, None)
    _map(three, None, None)


def _shown(view: View, entry: Entry) -> Any:
    """Return by what the elements of a list are known again."""
    return (entry.type, rough(view.plain_entry(entry)))


def _map(three: Three, container: ContainerId, target: ContainerId) -> None:
    """Merge a map, which in `now` is `target`."""
    before, after, now, is_own, is_over = three
    was, is_ = _slots(before, container), _slots(after, container)
    inside = bound(Map[str, Any](), now, target)
    # In the order in which they were written, as in `copy_of`.
    written = {key: entry[:3] for key, entry in {**was, **is_}.items()}
    for key in sorted(written, key=written.__getitem__):
        old, new = was.get(key), is_.get(key)
        here = _slots(now, target).get(key)
        one = old or new
        if one and one.type and container is None and _same(old, new, one):
            # A field's container is always there: it is emptied and filled.
            _container(three, one.container, one.type, one.container)
        elif old and new and old.type and _same(old, new, old):
            if here and here.type == old.type:
                _container(three, old.container, old.type, here.container)
        elif three.equal(old, new) or (
            not is_over and exact_entry(now, here) != exact_entry(before, old)
        ):
            continue  # nothing was done, or somebody wrote over it
        elif exact_entry(now, here) == exact_entry(after, new):
            continue  # it shows already
        elif new is None:
            if here and all(map(is_own, here.touches or ())):
                del inside[key]
        else:
            inside[key] = copy_of_entry(after, new)


def _same(old: Entry | None, new: Entry | None, one: Entry) -> bool:
    return all(e is None or e.container == one.container for e in (old, new))


def _slots(view: View, container: ContainerId) -> dict[str, Entry]:
    return {key: view.slot(container, key)[0] for key in view.keys(container)}


def _container(
    three: Three, container: ContainerId, type_: int, target: ContainerId
) -> None:
    before, after, now = three[:3]
    match type_:
        case Type.MAP:
            _map(three, container, target)
        case Type.COUNTER:
            difference = after.number(container) - before.number(container)
            increment(now, target, difference)
        case Type.SET:
            _set(three, container, target)
        case Type.MULTI:
            was, is_ = before.several(container), after.several(container)
            several = bound(MultiValue[Any](), now, target)
            here = list(several)
            # It was set instead of what its author saw, and beside all else.
            stays = [] if three.is_over else _without(_without(here, was), is_)
            if rough(was) != rough(is_) and rough(here) != rough([*stays, *is_]):
                several.set(*stays, *is_)
        case Type.TEXT:
            _text(three, container, target)
        case Type.LIST:
            _list(three, container, target)
        case _:
            _tree(three, container, target)


def _without(values: Iterable[Any], others: Iterable[Any]) -> list[Any]:
    known = [rough(one) for one in others]
    return [one for one in values if rough(one) not in known]


def _set(three: Three, container: ContainerId, target: ContainerId) -> None:
    before, after, now = three[:3]
    was, is_ = before.elements(container).keys(), after.elements(container).keys()
    inside = bound(Set[Any](), now, target)
    for element in sorted(was - is_):
        inside.discard(values.decode(element))
    for element in sorted(is_ - was - now.elements(target).keys()):
        inside.add(values.decode(element))


def _text(three: Three, container: ContainerId, target: ContainerId) -> None:
    before, after, now = three[:3]
    text = bound(Text(), now, target)
    was, is_ = before.text(container), after.text(container)
    for at, deleted, inserted in rebased(was, is_, str(text)):
        if deleted:
            text.delete(at, deleted)
        if inserted:
            text.insert(at, inserted)
    place = _places(is_, str(text))
    spans = before.spans(container)
    for at, deleted, inserted in text_splices(was, is_):
        spans = spliced(spans, at, deleted, inserted)
        # What was typed just now took part in the marks around it.
        begin, end = place(at), place(at + len(inserted))
        if inserted and end - begin == len(inserted):
            worn = piece(now.spans(target), begin, end)
            behind = piece(spans, at + len(inserted))
            spans = [*piece(spans, 0, at), *worn, *behind]
    found = changes(spans, after.spans(container))
    if found:
        for start, stop, name, value in found:
            begin, end = place(start), place(stop)
            if begin < end:
                text._mark(begin, end, name, value, None)


def _places(old: str, new: str) -> Callable[[int], int]:
    """Return what tells where a place of one text is in another."""
    edits = text_splices(old, new)

    def place(at: int) -> int:
        for pos, deleted, inserted in edits:
            if pos >= at:
                break
            at = max(pos, at - deleted) + len(inserted)
        return at

    return place


# --- lists and trees ------------------------------------------------------------------


class _Steps(NamedTuple):
    """How one order of names becomes another."""

    gone: list[int]
    """Which of the old ones"""
    put: list[int]
    """Which of the new ones are new there"""


def _steps(old: list[Any], new: list[Any]) -> _Steps:
    steps = _Steps([], [])
    behind = 0  # how much longer the new one is, up to here
    for pos, deleted, inserted in splices(old, new):
        steps.gone.extend(range(pos - behind, pos - behind + deleted))
        steps.put.extend(range(inserted.start, inserted.stop))
        behind += inserted.stop - inserted.start - deleted
    return steps


def _kept(old: list[Any], new: list[Any]) -> dict[int, int]:
    """Return which of the old ones are which of the new ones."""
    steps = _steps(old, new)
    gone, put = set(steps.gone), set(steps.put)
    return dict(
        zip(
            (i for i in range(len(old)) if i not in gone),
            (i for i in range(len(new)) if i not in put),
            strict=True,
        )
    )


def _list(three: Three, container: ContainerId, target: ContainerId) -> None:
    """Elements are known by name before and after; now, by what they show."""
    before, after, now = three[:3]
    was, is_ = _elements(before, container), _elements(after, container)
    inside = bound(List[Any](), now, target)
    shown = [_shown(now, entry) for entry in now.entries(target)]
    here: dict[OpId, int] = {}
    names = list(was)
    for index, at in _kept([_shown(before, e) for e in was.values()], shown).items():
        here[names[index]] = at
    order: list[OpId | None] = [None] * len(shown)  # of now
    for name, at in here.items():
        order[at] = name
    for name, entry in was.items():
        new = is_.get(name)
        if new is not None and name in here and not three.equal(entry, new):
            at = order.index(name)
            element = now.entry_at(target, at)
            if entry.type and entry.container == new.container:
                _container(three, entry.container, entry.type, element.container)
            else:
                inside[at] = copy_of_entry(after, new)
    steps = _steps(names, list(is_))
    for index in reversed(steps.gone):
        name = names[index]
        if name not in is_ and name in order:
            del inside[order.index(name)]
            order.remove(name)
    new_names = list(is_)
    for index in steps.put:
        name = new_names[index]
        if name in order:
            at = order.index(name)
            order.remove(name)
            to = _behind(new_names[:index], order)
            inside.move(at, to)
        elif name not in was:
            to = _behind(new_names[:index], order)
            inside.insert(to, copy_of_entry(after, is_[name]))
        else:
            continue  # somebody deleted it
        order.insert(to, name)


def _elements(view: View, container: ContainerId) -> dict[OpId, Entry]:
    if not view.shows(container):
        return {}
    state = view.state(container, Type.LIST)
    return {name: state.slots[name][0] for name in state.elements()}


def _behind(before: list[OpId], order: list[OpId | None]) -> int:
    """Return the index behind the nearest of those that stand before."""
    for name in reversed(before):
        if name in order:
            return order.index(name) + 1
    return 0


def _tree(three: Three, container: ContainerId, target: ContainerId) -> None:
    """Nodes keep their names, deleted ones too."""
    before, after, now = three[:3]
    was, is_ = _nodes(before, container), _nodes(after, container)
    tree = bound(Tree[Any](), now, target)
    made: dict[OpId, OpId] = {}  # nodes that had to be made anew
    for node, (parent, older) in is_.items():
        place = tree._state().place(node)
        if node in was and place is not None:
            _map(three, node, node)
        old_parent, old_older = was.get(node, (node, []))
        if old_parent == parent and not _moved(old_older, older, was, is_):
            continue
        under = None if parent is None else Node(tree, made.get(parent, parent))
        if under is not None and (
            tree._state().place(under._name) is None or under.is_deleted
        ):
            continue  # there is no such place any more
        siblings: list[OpId | None] = list(
            tree._state().children(under and under._name)
        )
        if place is None:
            index = _behind([made.get(n, n) for n in older], siblings)
            value = copy_of(after, node, Type.MAP)
            made[node] = tree.add(value, under=under, index=index)._name
        elif place.slot is None or node not in was or place.parent == old_parent:
            if node in siblings:
                siblings.remove(node)
            index = _behind([made.get(n, n) for n in older], siblings)
            Node(tree, node).move(under=under, index=index)
            if node not in was:  # it comes back as it was
                value = copy_of(after, node, Type.MAP)
                assign(now, node, Type.MAP, value, now.path(node))
    for node in was:
        if node not in is_ and not Node(tree, node).is_deleted:
            Node(tree, node).delete()


def _nodes(
    view: View, container: ContainerId
) -> dict[OpId, tuple[OpId | None, list[OpId]]]:
    """Return (parent, older siblings) of each node, in order."""
    found: dict[OpId, tuple[OpId | None, list[OpId]]] = {}
    children: dict[OpId | None, list[OpId]] = {}
    tree = view.tree(container)
    for node, parent in tree.nodes() if tree else ():
        siblings = children.setdefault(parent, [])
        found[node] = (parent, list(siblings))
        siblings.append(node)
    return found


def _moved(
    old: list[OpId], new: list[OpId], was: dict[OpId, Any], is_: dict[OpId, Any]
) -> bool:
    """Whether a node stands elsewhere among those siblings that it has both times."""
    both = {
        other
        for other in {*old, *new}
        if other in was and other in is_ and was[other][0] == is_[other][0]
    }
    return [o for o in old if o in both] != [o for o in new if o in both]
