"""Which of a function's triggers an event reaches."""

import triggers
from funcrt.cron import cron_trigger
from funcrt.manifest import CronTrigger, HttpTrigger, Manifest, MeshTrigger
from mesh.event import Event

__all__ = ["Reach", "filter_of", "methods", "queued"]


def queued(manifest: Manifest) -> list[MeshTrigger]:
    """The triggers whose events come over the mesh; of cron triggers the ticks do."""
    found = []
    for trigger in manifest.triggers:
        if isinstance(trigger, MeshTrigger):
            found.append(trigger)
        elif isinstance(trigger, CronTrigger):
            found.append(cron_trigger(manifest.name, trigger))
    return found


def filter_of(spec: MeshTrigger) -> triggers.Filter:
    """A trigger's filters, parsed. Raises FilterError."""
    return triggers.parse(
        {"filters": spec.filters, "pattern": spec.pattern, "jsonpath": spec.jsonpath}
    )


def methods(trigger: HttpTrigger, *, requests: bool) -> tuple[str, ...]:
    """The methods that an HTTP trigger takes, none for any; `requests` where its handler takes a
    Request."""
    if trigger.methods is not None:
        return tuple(trigger.methods)
    return () if requests else ("POST",)


class Reach:
    """A manifest's triggers, with their filters parsed; `requests` where its handler takes a
    Request."""

    def __init__(self, manifest: Manifest, *, requests: bool = False) -> None:
        self.manifest = manifest
        self.requests = requests
        self.specs = {spec.name: spec for spec in queued(manifest)}
        self._filters = {name: filter_of(spec) for name, spec in self.specs.items()}

    def matches(self, event: Event, topic: str = "") -> list[str]:
        """The names of the triggers that would hand on the event: of any topic, unless one is
        given. An HTTP trigger takes a request of its methods."""
        found = [
            name
            for name, spec in self.specs.items()
            if topic in ("", spec.topic) and self._filters[name].matches(event)
        ]
        method = event.extensions.get("httpmethod")
        for trigger in self.manifest.triggers:
            if isinstance(trigger, HttpTrigger) and not topic:
                # What is no request came over the mesh, where there is a mesh trigger.
                other = method is None and not self.specs
                taken = methods(trigger, requests=self.requests)
                if other or not taken or method in taken:
                    found.append(trigger.name)
        return found

    def shown(self, name: str) -> str:
        """A trigger for people: `mesh orders`, `http /label`, `cron 0 7 * * *`."""
        for trigger in self.manifest.triggers:
            if trigger.name == name:
                match trigger:
                    case MeshTrigger():
                        return f"mesh {trigger.topic}"
                    case HttpTrigger():
                        return f"http {trigger.path}"
                    case CronTrigger():
                        return f"cron {trigger.schedule}"
        return name
