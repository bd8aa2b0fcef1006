"""By what an index can find an expression as a filter, which holds where it is true without an
error."""

from collections.abc import Sequence

from triggers.access import ANY, Group, Key, Place, Way, all_of, any_of
from triggers.cesql.like import segments
from triggers.cesql.syntax import Attribute, Binary, Exists, In, Like, Literal, Logic, Node
from triggers.wildcard import key_of

__all__ = ["ways_of"]


def ways_of(node: Node) -> Sequence[Way]:
    """The ways in which a part can be true. `name = 'text'` compares the attribute's canonical
    text, as LIKE does; what compares numbers is not looked for."""
    match node:
        case Logic(operands, operators):
            return _logic(operands, operators)
        case Binary("=", Attribute(name), Literal(str() as text)):
            return _way(Place.text(name), Key("is", text))
        case Like(Attribute(name), pattern, False):
            return _way(Place.text(name), key_of(segments(pattern)))
        case In(Attribute(name), items, False) if Place.text(name).root == "attribute":
            texts = [item.value for item in items if isinstance(item, Literal)]
            if len(texts) == len(items) and all(isinstance(text, str) for text in texts):
                return _way(Place.text(name), *(Key("is", text) for text in texts))
        case Exists(name):
            return _way(Place.text(name), Key("there", None))
    return ANY


def _way(place: Place, *keys: Key) -> Sequence[Way]:
    return (Way((Group(place, keys),), all(key.kind in ("is", "there") for key in keys)),)


def _logic(operands: tuple[Node, ...], operators: tuple[str, ...]) -> Sequence[Way]:
    """It groups to the right: `a AND rest`, `a OR rest`."""
    ways = ways_of(operands[-1])
    for operand, sign in zip(reversed(operands[:-1]), reversed(operators), strict=True):
        if sign == "XOR":
            ways = ANY
        else:
            # What holds by the right operand of an OR alone held without an error on the left.
            ways = (all_of if sign == "AND" else any_of)([ways_of(operand), ways])
    return [Way(way.groups, way.full and len(operands) == 1) for way in ways]
