"""Whether a handler fits what its manifest asks for."""

from funcrt.sandbox import Code, HandlerInfo

__all__ = ["file_of", "unfit"]


def file_of(code: Code) -> str:
    """The file of the handler's module."""
    return f"{code.handler.partition(':')[0].replace('.', '/') or 'main'}.py"


def unfit(code: Code, info: HandlerInfo) -> str:
    """What is wrong with a handler for what its manifest asks for; nothing where it fits."""
    if code.batch and not info.batch:
        return (
            f"its trigger asks for batches, but {info.handler} takes one event;"
            " annotate it list[Event], or remove batch from funcrt.toml"
        )
    if code.stream and "generator" not in info.kind:
        return (
            f"output.stream = true, but {info.handler} is no generator;"
            " yield its outputs, or remove stream from funcrt.toml"
        )
    if code.queued and info.request:
        return (
            f"{info.handler} takes a Request, and a trigger that is not of kind http has none;"
            " take an Event, or keep HTTP triggers alone"
        )
    return ""
