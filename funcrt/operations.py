"""What an operator asks of a host's deployments, told as plain data."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from funcrt import registry
from funcrt.bundle import Bundle
from funcrt.deployments import (
    Deployed,
    Description,
    InstanceDetail,
    Removed,
    TriggerDetail,
    VersionRow,
)
from funcrt.member import Member
from funcrt.receive import deployed, receive
from funcrt.registry import Deployment
from funcrt.upload import Head

if TYPE_CHECKING:
    from funcrt.host import Host

__all__ = ["Operations"]


class Operations:
    """Implements DeploymentsApi."""

    def __init__(self, host: "Host") -> None:
        self.host = host

    async def receive(
        self, head: Head, bundles: Sequence[Bundle], by: str, begun: Callable[[], None]
    ) -> list[Deployed]:
        """As DeploymentsApi says."""
        return await receive(self.host, head, bundles, by, begun)

    async def rollback(self, name: str, asked: str, by: str, *, wait: bool) -> Deployed:
        """As DeploymentsApi says."""
        deploys = self.host.deploys
        done = await deploys.rollback(name, asked, by)
        if wait:
            await deploys.retired([done])
        else:
            deploys.retire_later([done])
        return deployed(done)

    async def versions(self, name: str) -> list[VersionRow]:
        """As DeploymentsApi says."""
        line = await registry.versions(self.host.mesh, name)
        number = line.current.number if line.current is not None else 0
        return [_row(one, one.number == number) for one in line.versions]

    async def pause(self, name: str) -> bool:
        """As DeploymentsApi says."""
        return await self.host.deploys.pause(name)

    async def resume(self, name: str) -> bool:
        """As DeploymentsApi says."""
        return await self.host.deploys.resume(name)

    async def scale(self, name: str, bounds: tuple[int, int] | None) -> tuple[int, int]:
        """As DeploymentsApi says."""
        return await self.host.deploys.scale(name, bounds)

    async def remove(self, name: str, *, purge: bool, by: str) -> Removed:
        """As DeploymentsApi says."""
        was, queues = await self.host.deploys.remove(name, purge=purge, by=by)
        return Removed(
            name=name,
            number=was.number if was is not None else None,
            purged=purge,
            queues=queues,
            comes_back=was.source.path if was is not None and was.source.kind == "serve" else "",
        )

    async def describe(self, name: str) -> Description:
        """As DeploymentsApi says."""
        function = self.host.function(name)
        manifest, info, spec = function.manifest, function.pool.info, function.pool.scaler.spec
        deployment = function.deployment
        return Description(
            status=await function.status(),
            details=[
                TriggerDetail(
                    name=each.spec.name,
                    pulled=each.pulled,
                    pulled_at=each.pulled_at,
                    refused=each.refused,
                    refused_id=each.missed.id if each.missed is not None else "",
                    trouble=each.trouble,
                )
                for each in function.mesh_triggers
            ],
            version=_row(deployment, True) if deployment is not None else None,
            handler=info.handler,
            signature=info.signature,
            concurrency=info.concurrency,
            scale=(spec.min, spec.max),
            bound=spec != manifest.scale,
            timeout_s=manifest.timeout_s,
            attempts=manifest.retry.attempts,
            secrets=manifest.secrets,
            trouble=function.pool.trouble,
            packages=list(function.installed.packages) if function.installed else [],
            instances=[_instance(member) for member in function.pool.members.values()],
        )


def _instance(member: Member) -> InstanceDetail:
    used = member.instance.usage()
    return InstanceDetail(
        pid=member.instance.pid,
        calls=len(member.calls),
        answered=member.answered,
        cpu_s=used.cpu_s,
        memory_bytes=used.memory_bytes,
        peak_bytes=used.peak_bytes,
        throttled_s=used.throttled_s,
    )


def _row(one: Deployment, in_service: bool) -> VersionRow:
    source = one.source
    return VersionRow(
        name=one.name,
        number=one.number,
        digest=one.digest,
        at=one.at,
        in_service=in_service,
        source=source.kind,
        path=source.path,
        profile=source.profile,
        by=source.by,
        of=source.of,
    )
