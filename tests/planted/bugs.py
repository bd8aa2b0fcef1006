"""Bugs of the kind that lose or double events, or let a function out, each as one change of the
code, to see which suite finds it. A suite that finds none of them proves nothing by passing."""

from dataclasses import dataclass

__all__ = ["BUGS", "Bug"]


@dataclass(frozen=True)
class Bug:
    """One change: in `file`, `old` (which stands there once) becomes `new`."""

    name: str
    file: str
    old: str
    new: str
    suites: tuple[str, ...] = ("conformance", "simulation", "unit")
    """Those that could find it."""


ISOLATION = ("isolation",)
BUGS = (
    Bug(
        "acknowledge before the output",
        "mesh/settle.py",
        "                batch.output(output)\n        if settlement.done_keys",
        "                later = output\n"
        "                batch.after.append(lambda later=later: self.engine._soon("
        "lambda next: next.output(later)))\n        if settlement.done_keys",
    ),
    Bug(
        "no fence",
        "mesh/engine.py",
        "        entry = queue.leased.get(delivery.fence)\n",
        "        held = (e for e in queue.leased.values() if str(e.offset) == delivery.position)\n"
        "        entry = next(held, None)\n",
    ),
    Bug(
        "attempts in memory",
        "mesh/settle.py",
        "attempt = entry.attempt + outcome.charge",
        "attempt = entry.attempt",
    ),
    Bug(
        "highest-offset cursor",
        "mesh/batch.py",
        "            part.settling |= 1 << entry.index\n",
        "            part.settling |= (2 << entry.index) - 1\n",
    ),
    Bug(
        "lease by wall clock",
        "mesh/queue.py",
        "        now = self.clock.monotonic()\n        if now >= self.soonest:\n"
        "            self.expire(now)\n        if len(self.ready) < most",
        "        now = self.clock.time()\n        self.expire(now)\n"
        "        if len(self.ready) < most",
    ),
    Bug(
        "deduplication off",
        "mesh/batch.py",
        "if key in new.keys or key in topic.window:",
        "if key in new.keys:",
    ),
    Bug(
        "release charged as an attempt",
        "mesh/settle.py",
        "                batch.touch(entry)\n                batch.after",
        "                entry.attempt += 1\n                batch.touch(entry)\n"
        "                batch.after",
    ),
    Bug(
        "outputs with random ids",
        "funcrt/outcome.py",
        'derived_id(f"{prefix}\\0{index}")',
        "derived_id(__import__('uuid').uuid4().hex)",
    ),
    Bug(
        "cursor ahead of the queue's insert",
        "mesh/batch.py",
        "                    store.queue(queue.row.id, chunk.first, chunk.at, mask)\n"
        "            row = topic.row\n",
        "                    late = (queue.row.id, chunk.first, chunk.at, mask)\n"
        "                    self.after.append(lambda late=late: self.engine._soon("
        "lambda b: b.store.queue(*late)))\n            row = topic.row\n",
    ),
    Bug(
        "dead letter after the acknowledgement",
        "mesh/settle.py",
        "        _, offset = batch.output(outcome.letter)\n",
        "        letter, offset = outcome.letter, 0\n"
        "        batch.after.append(lambda: self.engine._soon(lambda b: b.output(letter)))\n",
    ),
    Bug(
        "sync off",
        "mesh/engine.py",
        "self.store = Store(path, synchronous=options.synchronous)",
        'self.store = Store(path, synchronous="OFF")',
    ),
    Bug(
        "depth guessed on error",
        "mesh/admin.py",
        "        engine = self.engine_or_raise()\n        queue = engine.queue(name)\n"
        "        now =",
        "        engine = self.engine_or_raise()\n        if name not in engine.queues:\n"
        '            return Depth(0, 0, 0, 0.0, "exact")\n'
        "        queue = engine.queue(name)\n        now =",
    ),
    Bug(
        "every outstanding call charged when an instance dies",
        "funcrt/pool.py",
        "charged = pending.timed_out if timed_out else last - self.concurrency <= index < last",
        "charged = True",
    ),
    Bug(
        "what an instance has begun is recalled",
        "funcrt/member.py",
        "        first = max(begun - self.answered, 1)\n",
        "        first = 1\n",
    ),
    Bug(
        "what waits behind a key goes on after a failure",
        "mesh/batch.py",
        '        holder = queue.spec.order == "key" and entry.key is not None\n',
        "        holder = False\n",
    ),
    Bug(
        "what another process wrote is forgotten when the commit that saw it fails",
        "mesh/engine.py",
        "            self._version = -1  # what others wrote is not routed yet: look again\n",
        "",
    ),
    Bug(
        "no seccomp",
        "funcrt/sandbox/confine.py",
        "        kernel.seccomp(_program(held, signals_to))\n",
        "        _program(held, signals_to)\n",
        ISOLATION,
    ),
    Bug(
        "no landlock",
        "funcrt/sandbox/landlock.py",
        "        kernel.restrict_self(ruleset)\n",
        "        pass\n",
        ISOLATION,
    ),
    Bug(
        "the user is kept",
        "funcrt/sandbox/confine.py",
        "            os.setresuid(held.user, held.user, held.user)\n",
        "",
        ISOLATION,
    ),
    Bug(
        "the host's environment in R",
        "funcrt/sandbox/keeper.py",
        'env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8"},',
        'env={**os.environ, "LANG": "C.UTF-8"},',
        ISOLATION,
    ),
    Bug(
        "the host's network",
        "funcrt/sandbox/confine.py",
        " | kernel.NEW_UTS | kernel.NEW_NET\n",
        " | kernel.NEW_UTS\n",
        ISOLATION,
    ),
    Bug(
        "no end with the parent",
        "funcrt/sandbox/syscalls.py",
        "    yield Rule(PRCTL, errno.EPERM, at=1, but=(SIGKILL,), when=(0, PDEATHSIG))\n",
        "",
        ISOLATION,
    ),
    Bug(
        "a NUL in a name",
        "funcrt/sandbox/dns.py",
        "                if not _LABEL.fullmatch(label):\n                    return None\n",
        "",
        ISOLATION,
    ),
    Bug(
        "an address of the host's own",
        "funcrt/sandbox/destinations.py",
        "public(address) and not self._own(address)\n",
        "public(address)\n",
        ISOLATION,
    ),
)
