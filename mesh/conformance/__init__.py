"""The conformance suite of the mesh contract (`mesh/transport.py`), for anyone's transport.

    maker = Maker(open=lambda **options: mesh.connect(url, **options))
    for check in checks(FEATURES, maker.can):
        if check.left_out:
            print("left out:", check.name, check.left_out)
        else:
            await check.run(new_maker())

Each check gets a maker of its own, for an empty store. What the features say is absent is left
out with its reason; nothing else is.
"""

from collections.abc import Collection

from mesh.conformance import (  # noqa: F401  (each registers its checks)
    crash,
    deadletter,
    delivery,
    depth,
    done_keys,
    keep,
    leases,
    lifecycle,
    order,
    publish,
    queue,
    replay,
    retry,
    settle,
    state,
    subscribe,
    tail,
)
from mesh.conformance.check import ABILITIES, Check, ConformanceError, chosen
from mesh.conformance.stage import Maker
from mesh.transport import Features

__all__ = ["ABILITIES", "Check", "ConformanceError", "Maker", "checks"]


def checks(features: Features, can: Collection[str] = ()) -> list[Check]:
    """Every check, in a fixed order. `can`: the maker's abilities (`Maker.can`)."""
    return chosen(features, can)
