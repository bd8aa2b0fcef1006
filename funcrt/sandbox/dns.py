"""The little of DNS (RFC 1035) that answers a function's questions about addresses."""

import ipaddress
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from funcrt.sandbox.destinations import Address

__all__ = ["IPV4", "IPV6", "NO_SUCH_NAME", "SERVER_FAILED", "Question", "reply"]

IPV4 = 1
"""A question for a name's addresses (A)."""
IPV6 = 28
"""AAAA."""
SERVER_FAILED = 2
NO_SUCH_NAME = 3
TTL_S = 30
MOST_ANSWERS = 16
"""So that a reply fits into 512 bytes."""
_HEADER = struct.Struct(">HHHHHH")
_LABEL = re.compile("[a-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Question:
    """What a packet asks."""

    id: int
    flags: int
    name: str
    """In small letters, without the last dot."""
    kind: int
    section: bytes
    """As it came, to be sent back."""

    @classmethod
    def of(cls, packet: bytes) -> "Question | None":
        """None for what is no plain question. A label is of letters, digits, hyphens and
        underscores: a dot or a NUL within it would be one name here and another to getaddrinfo."""
        try:
            id, flags, questions, *_ = _HEADER.unpack_from(packet)
            if questions != 1 or flags & 0xF800:  # a response, or not a standard query
                return None
            labels, at = [], _HEADER.size
            while length := packet[at]:
                if length > 63:
                    return None
                label = packet[at + 1 : at + 1 + length].decode("ascii").lower()
                if not _LABEL.fullmatch(label):
                    return None
                labels.append(label)
                at += 1 + length
            kind, _ = struct.unpack_from(">HH", packet, at + 1)
        except (struct.error, IndexError, UnicodeDecodeError):
            return None
        return cls(id, flags, ".".join(labels), kind, packet[_HEADER.size : at + 5])


def reply(question: Question, addresses: Iterable[Address] = (), error: int = 0) -> bytes:
    """The answer: those of the addresses that are of the kind asked for, or an error's code."""
    wanted = {IPV4: ipaddress.IPv4Address, IPV6: ipaddress.IPv6Address}.get(question.kind)
    found = [each for each in addresses if wanted and isinstance(each, wanted)][:MOST_ANSWERS]
    flags = 0x8080 | (question.flags & 0x0100) | error
    head = _HEADER.pack(question.id, flags, 1, len(found), 0, 0)
    # A pointer to the name in the question.
    records = [
        struct.pack(">HHHIH", 0xC000 | _HEADER.size, question.kind, 1, TTL_S, len(each.packed))
        + each.packed
        for each in found
    ]
    return head + question.section + b"".join(records)
