"""The boot agent: machines that the cloud lists become nodes after their boot time, and leave with their machine.

It looks at the cloud only when the stored claims allow that something changed there, since a list call is the dearest
thing in a replay: after a controller's cycle while a claim waits for a machine or gives one back, or when told to. It
never writes to the cloud and never touches a claim. A machine without a claim does not join; ``unclaimed`` names it.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from typing import Protocol

from autoscaler.embedded import store
from autoscaler.model import kinds, ports
from providers.offers import Machine, MachineState, Offer
from vgpu.inventory import Device

BootTime = float | Callable[[Machine], float | None]
"""Seconds from first sight to the joined node; a function may say None: this machine never boots."""

_GONE = (MachineState.GONE, MachineState.FAILED)


class MachineSource(Protocol):
    """The reading half of a provider."""

    def list(self) -> Sequence[Machine]:
        """All machines of this installation."""
        ...


@dataclasses.dataclass(slots=True)
class _Seen:
    machine: Machine
    node: str = ""
    """Name of its node once it has joined."""


class BootAgent:
    """``at`` is the world's timer. ``missing_devices`` says how many devices a machine's node fails to register."""

    def __init__(
        self,
        cluster: store.EmbeddedCluster,
        clock: ports.Clock,
        at: Callable[[float, Callable[[], None]], None],
        source: MachineSource | None,
        *,
        boot_s: BootTime,
        missing_devices: Callable[[Machine], int] | None,
    ) -> None:
        self._cluster = cluster
        self._clock = clock
        self._at = at
        self._source = source
        self._boot_s = boot_s
        self._missing = missing_devices
        self._seen: dict[str, _Seen] = {}
        self._open: dict[str, kinds.NodeClaim] = {}
        """Claims whose state allows that the cloud changes for them."""
        self._claims: dict[str, tuple[str, Offer]] = {}
        """Key of every stored attempt to its claim and offer."""
        self._keys: dict[str, tuple[str, ...]] = {}
        """Claim to the keys of its attempts."""
        self._leaving: dict[str, None] = {}
        """Machines whose claim is gone: nothing but the cloud can say when they are."""
        self._told = source is not None
        self.looks = 0

    def look(self) -> None:
        """Look at the cloud at the next settling."""
        self._told = True

    def cycle_ended(self) -> None:
        """A controller has run: if any claim is on its way in or out, the cloud may have changed."""
        if self._leaving or any(self._expects_change(claim) for claim in self._open.values()):
            self._told = True

    def known(self) -> tuple[Machine, ...]:
        return tuple(seen.machine for seen in self._seen.values())

    def unclaimed(self) -> tuple[Machine, ...]:
        """Machines that no stored claim ever ordered, and every further machine of a claim's attempt."""
        first: dict[str, str] = {}
        return tuple(
            machine
            for machine in self.known()
            if machine.key not in self._claims or first.setdefault(machine.key, machine.id) != machine.id
        )

    def observe(self, event: ports.WatchEvent) -> None:
        claim = event.object
        if not isinstance(claim, kinds.NodeClaim):
            return
        name = claim.meta.name
        if event.type is ports.EventType.DELETED:
            self._open.pop(name, None)
            for key in self._keys.pop(name, ()):
                self._claims.pop(key, None)
                self._leaving.update({seen.machine.id: None for seen in self._seen.values() if seen.machine.key == key})
            if self._leaving:
                self._told = True
            return
        keys = tuple(attempt.key for attempt in claim.attempts)
        if keys != self._keys.get(name):
            self._keys[name] = keys
            self._claims.update({attempt.key: (name, attempt.offer) for attempt in claim.attempts})
        if claim.state in _IN_MOTION:
            self._open[name] = claim
        else:
            self._open.pop(name, None)

    def step(self) -> bool:
        """Look at the cloud when there is reason to; True when a node was removed."""
        if not self._told or self._source is None:
            return False
        self._told = False
        self.looks += 1
        listed = {machine.id: machine for machine in self._source.list() if machine.state not in _GONE}
        changed = False
        for machine_id in tuple(self._seen):
            if machine_id not in listed:
                changed = self._leave(self._seen.pop(machine_id)) or changed
                self._leaving.pop(machine_id, None)
        for machine in sorted(listed.values(), key=lambda machine: machine.id):
            seen = self._seen.get(machine.id)
            if seen is None:
                self._arrive(machine)
            else:
                seen.machine = machine
                if machine.key not in self._claims:
                    self._leaving[machine.id] = None
        return changed

    # Inside -----------------------------------------------------------------------------------------------------

    def _expects_change(self, claim: kinds.NodeClaim) -> bool:
        keys = self._keys[claim.meta.name]
        present = any(seen.machine.key in keys for seen in self._seen.values())
        if claim.state is kinds.ClaimState.ORDERING or claim.state is kinds.ClaimState.LAUNCHED:
            newest = keys[-1] if keys else None
            return not any(seen.machine.key == newest for seen in self._seen.values())
        return present

    def _arrive(self, machine: Machine) -> None:
        self._seen[machine.id] = _Seen(machine=machine)
        if machine.key not in self._claims:
            # A stray: only a collector's termination can change anything about it.
            self._leaving[machine.id] = None
        boot_s = self._boot_s if isinstance(self._boot_s, (int, float)) else self._boot_s(machine)
        if boot_s is not None:
            self._at(self._clock.now() + boot_s, lambda: self._join(machine.id))

    def _join(self, machine_id: str) -> None:
        seen = self._seen.get(machine_id)
        if seen is None or seen.machine.state is MachineState.STOPPING:
            return
        machine = seen.machine
        claimed = self._claims.get(machine.key)
        if claimed is None or any(other.id == machine_id for other in self.unclaimed()):
            return
        claim, offer = claimed
        shape = offer.shape
        missing = self._missing(machine) if self._missing else 0
        node = kinds.Node(
            meta=kinds.Meta(name=f"node-{claim}", labels={kinds.CLAIM_LABEL: claim}),
            provider_id=machine.provider_id,
            ready=True,
            zone=machine.zone,
            cpu_milli=shape.cpu_milli,
            memory_mib=shape.memory_mib or 0,
            devices=tuple(
                Device(
                    uuid=device_uuid(machine.id, index),
                    model=shape.gpu_model,
                    memory_mib=shape.gpu_memory_mib,
                    milli=shape.gpu_milli,
                    vendor=shape.vendor,
                    resource_name=shape.resource_name,
                )
                for index in range(max(0, shape.gpus - missing))
            ),
        )
        try:
            self._cluster.create(node)
        except ports.AlreadyExists:
            # An earlier machine of the same claim still has its node: wait until that one is gone.
            self._at(self._clock.now() + RETRY_JOIN_S, lambda: self._join(machine_id))
            return
        seen.node = node.meta.name

    def _leave(self, seen: _Seen) -> bool:
        if not seen.node:
            return False
        try:
            node = self._cluster.get(kinds.Node, seen.node)
        except ports.NotFound:
            return False
        if node.provider_id != seen.machine.provider_id:
            return False
        self._cluster.delete(node)
        return True


RETRY_JOIN_S = 10.0
"""How long a booted machine waits before it tries again to join, seconds; the kubelet's own registration backs off to
7 s."""

_IN_MOTION = (
    kinds.ClaimState.ORDERING,
    kinds.ClaimState.LAUNCHED,
    kinds.ClaimState.TERMINATING,
    # A failed claim may still have a machine, which its controller terminates.
    kinds.ClaimState.FAILED,
)


def device_uuid(machine_id: str, index: int) -> str:
    """The UUID that device ``index`` of a machine reports, in the driver's form; the same for every run."""
    digest = hashlib.sha256(f"{machine_id}/{index}".encode()).hexdigest()
    return f"GPU-{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"
