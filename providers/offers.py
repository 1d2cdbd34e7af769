"""The purchase port: offers, orders, machines, notices, and what every provider owes its caller. Plain values only.

Obligations (each is checked by the contract suite):

* ``offers`` names instance type, zone, capacity type, price and the price's age; it never calls the cloud.
* ``launch`` returns once the request is accepted. Same key, same machine, before and after a restart. Owner and key
  tags travel in the purchase call itself. It never retries inside the client library and never fails over.
* ``poll`` raises BuyError when an accepted purchase failed later. "Not visible yet" is ``pending``, never ``gone``.
* ``list`` returns everything this installation owns, found by tag at the cloud, paged to the end.
* ``terminate`` returns at once; an absent machine is a success, calling twice is a success.
"""

import dataclasses
import enum
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from vgpu.inventory import Device, Node


class CapacityType(enum.StrEnum):
    ON_DEMAND = "on-demand"
    SPOT = "spot"
    RESERVED = "reserved"


class MachineState(enum.StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    GONE = "gone"
    FAILED = "failed"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MachineShape:
    """What one instance type brings into the cluster."""

    gpu_model: str
    gpus: int
    gpu_memory_mib: int | None
    """Memory per device; None where nobody said."""
    cpu_milli: int
    memory_mib: int | None
    """Host memory; None where nobody said: such an offer can hold no pod that asks for memory."""
    gpu_milli: int = 1000
    """Compute per device in thousandths; below 1000 for types that carry a fraction of a GPU."""
    vendor: str = "nvidia"
    resource_name: str = "nvidia.com/gpu"
    arch: str = "amd64"
    """Processor architecture, as the node label ``kubernetes.io/arch`` spells it."""

    def node(self, name: str, *, zone: str = "") -> Node:
        """The node that a machine of this type is expected to become; device UUIDs are placeholders."""
        devices = tuple(
            Device(
                uuid=f"{name}/{index}",
                model=self.gpu_model,
                memory_mib=self.gpu_memory_mib,
                milli=self.gpu_milli,
                vendor=self.vendor,
                resource_name=self.resource_name,
            )
            for index in range(self.gpus)
        )
        return Node(name=name, cpu_milli=self.cpu_milli, memory_mib=self.memory_mib or 0, devices=devices, zone=zone)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One thing that can be bought: an instance type in one zone under one capacity type."""

    provider: str
    region: str
    zone: str
    """Empty where the provider knows no zones."""
    instance_type: str
    capacity_type: CapacityType
    shape: MachineShape
    price_micro_usd: int
    """Micro US dollars per hour for the whole machine."""
    as_of: str
    """ISO date of the price."""
    stale: bool = False
    """True for seed rows: refreshed rows outrank them."""

    @property
    def id(self) -> str:
        """Stable key of the offer."""
        zone = self.zone or self.region
        return f"{self.provider}/{zone}/{self.instance_type}/{self.capacity_type.value}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One purchase attempt. The key is durable and unique per attempt."""

    key: str
    offer: Offer
    user_data: str = ""
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])

    @property
    def token(self) -> str:
        """The provider-side name: legal as an EC2 client token, a GCE instance name and an Azure VM name."""
        return provider_token(self.key)


def provider_token(key: str) -> str:
    return "tg-" + hashlib.sha256(key.encode()).hexdigest()[:20]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine as its cloud describes it."""

    id: str
    key: str
    state: MachineState
    provider_id: str
    """What the node will carry as spec.providerID, for example ``aws:///us-east-1a/i-0abc``."""
    zone: str
    instance_type: str
    capacity_type: CapacityType
    ticket: str = ""
    """Opaque; persisted. What is needed to learn the outcome of the purchase after a restart."""


class NoticeKind(enum.StrEnum):
    INTERRUPTION = "interruption"
    REBALANCE = "rebalance"
    MAINTENANCE = "maintenance"
    RESERVATION_END = "reservation-end"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """The cloud's warning about one machine; delivered at least once, deduplicated by all three fields."""

    machine_id: str
    kind: NoticeKind
    deadline: str
    """ISO time, empty where the cloud names none."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """What a provider can do, as flat flags."""

    spot: bool = False
    zones: bool = False
    multi_offer: bool = False
    reservations: bool = False
    notices: bool = False
    price_api: bool = False


class Provider(Protocol):
    name: str
    caps: Caps

    def offers(self) -> Iterable[Offer]: ...
    def launch(self, order: Order) -> Machine: ...
    def poll(self, machine: Machine) -> Machine: ...
    def list(self) -> Sequence[Machine]: ...
    def terminate(self, machine: Machine) -> None: ...
    def notices(self) -> Iterable[Notice]: ...
