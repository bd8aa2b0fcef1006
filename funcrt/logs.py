"""A host's own log, on standard error: a line a record, whatever a function or a caller put in."""

import logging
import sys

from funcrt.text import safe

__all__ = ["OneLine", "set_up"]


class OneLine(logging.Formatter):
    """Control characters are spelled out; the lines of a traceback are indented, so that no text
    in them passes for a record."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback's where there is one."""
        record.message = record.getMessage()
        if self.usesTime():
            record.asctime = self.formatTime(record, self.datefmt)
        lines = [safe(self.formatMessage(record))]
        if record.exc_info:
            found = self.formatException(record.exc_info)
            lines += [f"  {safe(line)}" for line in found.splitlines()]
        return "\n".join(lines)


def set_up(*, functions: bool = False) -> None:
    """Write warnings and errors, and every admin act, to standard error; where asked, what
    functions write as well."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().handlers[:] = [handler]
    logging.getLogger("funcrt.audit").setLevel(logging.INFO)
    if functions:
        logging.getLogger("funcrt.function").setLevel(logging.INFO)
