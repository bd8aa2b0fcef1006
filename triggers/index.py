"""Many filters at once: which of them an event matches, without trying them one by one.

Each way in which a filter can match is filed once, under the values of the field that finds it with
the fewest others beside it; where every field is shared by many, under the values of several fields
together. What that finds is matched in full, so the index may find too much, and never too little.
"""

from collections.abc import Hashable, Sequence
from functools import partial
from itertools import product
from math import prod
from typing import Any, Generic, TypeVar

from mesh.event import Event, canonical
from triggers import native
from triggers.access import Group, Indexed, Place, Way, scalar
from triggers.field import CROWDED, Bucket, Entry, Field, Remove, every, take
from triggers.view import MISSING, View

__all__ = ["Index"]

K = TypeVar("K", bound=Hashable)

MAX_SHAPES = 32
"""Sets of fields that are looked at together."""
MAX_VALUES = 16
"""Combinations of values that one way is filed under, of several fields."""


class _Node:
    """A step of the paths in data that are looked at."""

    __slots__ = ("below", "field", "names", "place")

    def __init__(self) -> None:
        self.below: dict[str, _Node] = {}
        self.names: tuple[tuple[str, _Node], ...] = ()
        self.field: Field | None = None
        self.place: Place | None = None


class Index(Generic[K]):
    """Filters by key. One thread changes it; any may match meanwhile, and sees a filter that is
    being added or removed as there or not."""

    def __init__(self) -> None:
        self._removes: dict[K, list[Remove]] = {}
        """What takes each way of a filter out; of those that the accelerator has not."""
        self._fields: dict[Place, Field] = {}
        self._attributes: tuple[tuple[str, Place, Field], ...] = ()
        self._data: _Node | None = None
        self._shapes: dict[tuple[Place, ...], dict[tuple[Any, ...], Bucket]] = {}
        """Filters that are found by several places together, by the values there."""
        self._shaped: frozenset[Place] = frozenset()
        self._engine = native.engine()
        self._numbers: dict[K, int] = {}
        """Those that the accelerator has, by their numbers there."""
        self._doubtful: dict[K, Indexed] = {}
        """Those of them that say more than it knows."""
        self._rest: Bucket = []
        """Those that nothing finds: each is matched with every event."""

    def __len__(self) -> int:
        return len(self._removes) + len(self._numbers)

    def __contains__(self, key: object) -> bool:
        return key in self._removes or key in self._numbers

    # Changing

    def add(self, key: K, filter: Indexed) -> None:
        """Add a filter; one that is there under the key is replaced."""
        removes, number = self._removes.pop(key, ()), self._numbers.pop(key, None)
        rule = native.rule(filter) if self._engine is not None else None
        if self._engine is not None and rule is not None:
            if rule[2]:
                self._doubtful[key] = filter
            self._numbers[key] = self._engine.add(key, *rule)
        else:
            new = self._removes[key] = []
            for at, way in enumerate(filter.ways()):
                new.append(self._file(key, filter, at, way))
        self._take_out(removes, number)
        if rule is None or not rule[2]:
            self._doubtful.pop(key, None)

    def remove(self, key: K) -> None:
        """Take a filter out. Raises KeyError where there is none."""
        number = self._numbers.pop(key, None)
        self._take_out(self._removes.pop(key) if number is None else (), number)
        self._doubtful.pop(key, None)

    def _take_out(self, removes: Sequence[Remove], number: int | None) -> None:
        for remove in removes:
            remove()
        if self._engine is not None and number is not None:
            self._engine.remove(number)

    def _file(self, key: K, filter: Indexed, number: int, way: Way) -> Remove:
        """File the way of a filter, its so manieth; what takes it out again."""
        group, together = self._choice(way)
        if together:
            remove = self._file_together(self._entry(key, filter, number, way, together), together)
            for one in way.groups:
                self._spread(one, key)
            return remove
        if group is None:
            # With no condition at all, it matches; else its conditions find nothing.
            entry = Entry(key, filter, number, full=way.full)
            self._rest.append(entry)
            return partial(self._take_rest, entry)
        entry = self._entry(key, filter, number, way, (group,))
        field = self._field(group.place)
        return every([field.add(one, entry) for one in dict.fromkeys(group.keys)])

    def _entry(
        self, key: K, filter: Indexed, number: int, way: Way, groups: Sequence[Group]
    ) -> Entry:
        """An entry that is found by these groups of its way."""
        all_ = len(groups) == len(way.groups)
        return Entry(key, filter, number, full=all_ and way.full, flat=all_ and way.flat)

    def _spread(self, group: Group, but: K) -> None:
        """File those together with other values, too, that were filed by one alone while it had
        few: they are among the first of its bucket. Leaves out the one that is being added."""
        field = self._fields.get(group.place)
        for one in group.keys if field else ():
            count = field.shared.get(one.value, 0) if field and one.kind == "is" else 0
            if field is None or not count or count & (count - 1):  # at each power of two
                continue
            for entry in field.values.get(one.value, ())[:CROWDED]:
                if entry.key == but:
                    continue
                way = entry.filter.ways()[entry.way]
                _, together = self._choice(way)
                if together:
                    by = self._removes[entry.key]
                    new = self._entry(entry.key, entry.filter, entry.way, way, together)
                    old, by[entry.way] = by[entry.way], self._file_together(new, together)
                    old()

    def _choice(self, way: Way) -> tuple[Group | None, tuple[Group, ...]]:
        """The group to file a way under, and several where they are better together."""
        best: Group | None = None
        least = 1e6
        scalars: list[tuple[float, Group]] = []
        for group in way.groups:
            field = self._fields.get(group.place)
            cost = sum((field or _EMPTY).cost(one) for one in group.keys) / len(group.keys)
            if group.place.root == "data":
                cost += 1  # of two that are about the same, the one that needs no parse
            if cost < least or best is None:
                best, least = group, cost
            if all(one.kind == "is" for one in group.keys) and len(group.keys) <= MAX_VALUES:
                scalars.append((cost, group))
        if least >= CROWDED and len(scalars) > 1:
            return best, self._together(scalars)
        return best, ()

    def _together(self, scalars: list[tuple[float, Group]]) -> tuple[Group, ...]:
        """Groups of scalars to file a way under together: those with the fewest beside them."""
        chosen: list[Group] = []
        for _, group in sorted(scalars, key=lambda one: one[0]):
            if group.place in {one.place for one in chosen}:
                continue
            if len(group.keys) * prod(len(one.keys) for one in chosen) <= MAX_VALUES:
                chosen.append(group)
        chosen.sort(key=lambda group: group.place)
        places = tuple(group.place for group in chosen)
        if len(chosen) < 2 or (places not in self._shapes and len(self._shapes) >= MAX_SHAPES):
            return ()
        return tuple(chosen)

    def _file_together(self, entry: Entry, groups: tuple[Group, ...]) -> Remove:
        places = tuple(group.place for group in groups)
        buckets = self._shapes.get(places)
        if buckets is None:
            buckets = {}
            self._shapes = {**self._shapes, places: buckets}
            self._shaped |= set(places)
        keys = tuple(product(*({one.value for one in group.keys} for group in groups)))
        for values in keys:
            buckets.setdefault(values, []).append(entry)
        for place, some in zip(places, zip(*keys, strict=True), strict=True):
            shared = self._field(place).shared
            for value in set(some):
                shared[value] = shared.get(value, 0) + 1
        return partial(self._take_together, entry, places, keys)

    def _take_together(
        self, entry: Entry, places: tuple[Place, ...], keys: tuple[tuple[Any, ...], ...]
    ) -> None:
        for values in keys:
            take(self._shapes[places], values, entry)
        for place, some in zip(places, zip(*keys, strict=True), strict=True):
            shared = self._fields[place].shared
            for value in set(some):
                shared[value] -= 1
                if not shared[value]:
                    del shared[value]

    def _take_rest(self, entry: Entry) -> None:
        self._rest = [one for one in self._rest if one is not entry]

    def _field(self, place: Place) -> Field:
        field = self._fields.get(place)
        if field is None:
            field = self._fields[place] = Field()
            if place.root == "data":
                self._reach(place, field)
            elif len(place.path) == 1:  # an attribute has no fields
                self._attributes = (*self._attributes, (place.path[0], place, field))
        return field

    def _reach(self, place: Place, field: Field) -> None:
        root = self._data or _Node()
        node = root
        for name in place.path:
            below = node.below.get(name)
            if below is None:
                below = node.below[name] = _Node()
                node.names = tuple(node.below.items()) if len(node.below) <= _FEW else ()
            node = below
        node.field, node.place = field, place
        self._data = root

    # Matching

    def match(self, event: Event) -> set[K]:
        """The keys of the filters that an event matches. Nothing an event holds makes it raise."""
        hits: set[K] = set()
        doubtful: list[K] = []
        if self._numbers and self._engine is not None:
            hits, doubtful = self._engine.find(event)
            if not (doubtful or self._fields or self._rest):
                return hits
        view = View(event)
        for key in doubtful:
            filter = self._doubtful.get(key)
            if filter is not None and filter.holds(view):
                hits.add(key)
        found, flat = self._found(view)
        for bucket in found:
            for entry in bucket:
                if (
                    entry.full
                    or (flat and entry.flat)
                    or (entry.key not in hits and entry.filter.holds(view))
                ):
                    hits.add(entry.key)
        return hits

    def _found(self, view: View) -> tuple[list[Bucket], bool]:
        """Buckets of which the entries are looked at, and whether no array was met."""
        found: list[Bucket] = [self._rest] if self._rest else []
        held: dict[Place, list[Any]] = {}
        event, shaped = view.event, self._shaped
        for name, place, field in self._attributes:
            value = event.attribute(name)
            if value is None:
                continue
            if place.root == "text" and value.__class__ is not str:
                value = canonical(value)
            field.find(value, found)
            if place in shaped:
                held[place] = [value]
        flat = True
        if self._data is not None:
            data = view.data
            if data is not MISSING:
                flat = self._walk(self._data, data, found, held)
        for places, buckets in self._shapes.items():
            lists = [held[place] for place in places if place in held]
            if len(lists) == len(places):
                _find_together(buckets, lists, found)
        return found, flat

    def _walk(
        self, node: _Node, value: Any, found: list[Bucket], held: dict[Place, list[Any]]
    ) -> bool:
        """Look at a value of the data, and at those below it; whether there was no array."""
        open_: list[tuple[_Node, Any]] = [(node, value)]
        shaped, flat = self._shaped, True
        while open_:
            node, value = open_.pop()
            kind = value.__class__
            if kind is dict:
                names = node.names
                if names:
                    for name, below in names:
                        inner = value.get(name, MISSING)
                        if inner is not MISSING:
                            open_.append((below, inner))
                elif node.below:
                    below_of = node.below
                    for name, inner in value.items():
                        step = below_of.get(name)
                        if step is not None:
                            open_.append((step, inner))
            elif kind is list:
                flat = False
                open_.extend((node, item) for item in value)
            elif node.field is not None:
                node.field.find(value, found)
                if node.place in shaped:
                    held.setdefault(node.place, []).append(value)
        return flat

    # Explaining

    def plan(self, filter: Indexed) -> list[str]:
        """How each way of a filter is, or would be, found: by which field, or by none."""
        ways = filter.ways()
        rule = native.rule(filter) if self._engine is not None else None
        if self._engine is not None and rule is not None:
            chosen = self._engine.choose(rule[1])
            found = [
                [way.groups[at] for at in some] for way, some in zip(ways, chosen, strict=True)
            ]
        else:
            choices = [self._choice(way) for way in ways]
            found = [[*together] or ([group] if group else []) for group, together in choices]
        return list(dict.fromkeys(_planned(groups) for groups in found))


def _planned(groups: Sequence[Group]) -> str:
    if not groups:
        return "with every event"
    if len(groups) > 1:
        return "by " + " and ".join(str(place) for place in sorted(group.place for group in groups))
    (group,) = groups
    if all(one.kind == "there" for one in group.keys):
        return f"with every event that has {group.place}"
    kinds = ", ".join(dict.fromkeys(_NAMES[one.kind] for one in group.keys))
    return f"by {group.place} ({kinds})"


def _find_together(
    buckets: dict[tuple[Any, ...], Bucket], lists: list[list[Any]], found: list[Bucket]
) -> None:
    """Add what the values at several places lead to."""
    if sum(map(len, lists)) == len(lists):
        if bucket := buckets.get(tuple([scalar(values[0]) for values in lists])):
            found.append(bucket)
        return
    sets = [{scalar(value) for value in values} for values in lists]
    if prod(map(len, sets)) <= len(buckets):
        for together in product(*sets):
            if bucket := buckets.get(together):
                found.append(bucket)
    else:
        found.extend(
            bucket
            for together, bucket in list(buckets.items())
            if all(one in some for one, some in zip(together, sets, strict=True))
        )


_FEW = 8
_EMPTY = Field()
_NAMES = {
    "is": "value",
    "fold": "value in any case",
    "prefix": "prefix",
    "suffix": "suffix",
    "like": "text of a wildcard",
    "cidr": "network",
    "range": "range",
    "there": "any value",
}
