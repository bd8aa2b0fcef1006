"""What `funcrt deploy` sends to a host: a head that says what is meant, then the bundles.

    length of the head (4 bytes, big-endian); the head as JSON; the bundles, one after the other

The bundles are those of `funcrt.bundle`; the head names the digest and size of each.
"""

import struct
from collections.abc import Sequence
from typing import Annotated

import msgspec

from funcrt.bundle import Bundle
from funcrt.errors import DeployError

__all__ = ["MEDIA_TYPE", "Head", "Upload", "UploadInvalid", "decode", "encode"]

MEDIA_TYPE = "application/vnd.funcrt.deployment"
_LENGTH = struct.Struct(">I")
_MOST_HEAD = 1 << 20


class UploadInvalid(DeployError):
    """What was sent as a deployment is none."""


class Upload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One function's directory."""

    folder: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    """Its own name: the function's, where the manifest gives none."""
    path: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
    """As whoever deploys names it; messages begin with it."""
    digest: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    size: Annotated[int, msgspec.Meta(ge=0)]


class Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked for."""

    functions: Annotated[list[Upload], msgspec.Meta(min_length=1, max_length=1000)]
    profile: Annotated[str, msgspec.Meta(max_length=100)] = ""
    plan: bool = False
    """Only say what it would change."""
    wait: bool = True
    """Answer once the versions before have ended what they ran."""


def encode(head: Head, bundles: Sequence[Bundle]) -> bytes:
    """The body of a request."""
    text = msgspec.json.encode(head)
    return b"".join([_LENGTH.pack(len(text)), text, *(bundle.body for bundle in bundles)])


def decode(body: bytes) -> tuple[Head, list[Bundle]]:
    """What was sent. Raises UploadInvalid; what the bundles hold is not looked at."""
    if len(body) < _LENGTH.size:
        raise UploadInvalid("the upload is cut short")
    (length,) = _LENGTH.unpack_from(body)
    at = _LENGTH.size + length
    if length > _MOST_HEAD or at > len(body):
        raise UploadInvalid(f"the upload's head claims {length} bytes, {len(body) - 4} are left")
    try:
        head = msgspec.json.decode(body[_LENGTH.size : at], type=Head)
    except msgspec.DecodeError as error:
        raise UploadInvalid(f"the upload's head: {error}") from None
    bundles = []
    for each in head.functions:
        content = body[at : at + each.size]
        at += each.size
        bundles.append(Bundle(each.digest, content))
    if at != len(body):
        raise UploadInvalid(f"the upload's bundles claim {at} bytes, it has {len(body)}")
    return head, bundles
