"""Transports that break the contract on purpose, and the checks that must find each."""

from tests.mesh.broken import (  # noqa: F401  (each registers its breaks)
    dead,
    delivery,
    done_keys,
    keep,
    order,
    publish,
    queue,
    retry,
    settle,
    subscribe,
)
from tests.mesh.broken.base import BREAKS, Broken
from tests.mesh.broken.keep import HasOneNamespace

__all__ = ["BREAKS", "Broken", "HasOneNamespace"]
