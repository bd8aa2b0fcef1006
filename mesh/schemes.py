"""A URL names a transport. The only place that knows which ones there are."""

import importlib
from typing import Any, cast
from urllib.parse import urlsplit

from mesh.errors import UrlInvalid
from mesh.transport import Transport, check_name

__all__ = ["SCHEMES", "connect"]

SCHEMES = {"embedded": "mesh.embedded"}
"""URL scheme -> the module whose `open_transport(url, namespace, **options)` makes it."""


async def connect(url: str, *, namespace: str = "default", **options: Any) -> Transport:
    """Open the mesh at `url`, e.g. `embedded:///var/lib/funcrt/mesh.db` or `embedded::memory:`.

    Raises UrlInvalid for a scheme that no transport has, MeshError where it cannot be opened.
    """
    scheme = urlsplit(url).scheme
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in sorted(SCHEMES))
        raise UrlInvalid(url, f"no transport has the scheme {scheme!r}; there are: {known}")
    module = importlib.import_module(SCHEMES[scheme])
    transport = await module.open_transport(url, check_name("namespace", namespace), **options)
    return cast(Transport, transport)
