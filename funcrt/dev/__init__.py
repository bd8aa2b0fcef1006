"""`funcrt dev`: a host that puts each save of a function into service at once."""

from funcrt.dev.session import run

__all__ = ["run"]
