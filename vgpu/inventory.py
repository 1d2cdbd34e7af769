"""What GPUs and shares of them are: devices, nodes, share requests and placements, all frozen values.

Quantities are integers: milli-CPU, MiB, and GPU milli (thousandths of one device's compute). Knows no cloud, no
Kubernetes object and no price. A value that cannot exist is refused when it is built, with field, value and remedy.
"""

import dataclasses
from typing import NewType

from vgpu import errors

NodeName = NewType("NodeName", str)
RequestId = NewType("RequestId", str)

WHOLE = 1000
"""GPU milli of one whole device."""

MAX_DEVICES = 64
"""Most devices one pod may ask for on one node; no machine on sale holds more than 16, rack-scale systems 72 over
several nodes."""


def _refuse(field: str, value: object, remedy: str) -> errors.InvalidRequest:
    return errors.InvalidRequest(f"{field}={value!r}: {remedy}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One physical device (or one MIG-like fixed part of it that the node publishes as a device)."""

    uuid: str
    model: str
    memory_mib: int | None = None
    """Device memory; None where nobody said (unknown, never zero)."""
    milli: int = WHOLE
    """Compute on offer, in thousandths of a whole device of this model; below 1000 for machines that carry a
    fraction.
    """
    vendor: str = "nvidia"
    resource_name: str = "nvidia.com/gpu"
    healthy: bool = True

    def __post_init__(self) -> None:
        if not self.uuid:
            raise _refuse("device.uuid", self.uuid, "give every device its own non-empty UUID")
        if not 0 < self.milli <= WHOLE:
            raise _refuse("device.milli", self.milli, f"a device offers 1 to {WHOLE} milli")
        if self.memory_mib is not None and self.memory_mib <= 0:
            raise _refuse("device.memory_mib", self.memory_mib, "give a positive size, or None where it is unknown")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node with its devices; their order is their index in placements."""

    name: str
    cpu_milli: int
    memory_mib: int
    devices: tuple[Device, ...] = ()
    zone: str = ""
    schedulable: bool = True

    def __post_init__(self) -> None:
        if not self.name:
            raise _refuse("node.name", self.name, "name every node")
        if self.cpu_milli < 0:
            raise _refuse(f"node {self.name}: cpu_milli", self.cpu_milli, "give zero or more milli-CPU")
        if self.memory_mib < 0:
            raise _refuse(f"node {self.name}: memory_mib", self.memory_mib, "give zero or more MiB")
        seen: set[str] = set()
        for device in self.devices:
            if device.uuid in seen:
                raise _refuse(f"node {self.name}: device.uuid", device.uuid, "two devices share it; give each its own")
            seen.add(device.uuid)

    @property
    def gpus(self) -> int:
        return len(self.devices)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a pod asks for, without who asks: equal shapes form one class and are planned together."""

    cpu_milli: int = 0
    memory_mib: int = 0
    gpus: int = 0
    """Devices, all on one node."""
    milli: int = WHOLE
    """Compute per device, thousandths; below 1000 only for one device."""
    gpu_memory_mib: int = 0
    """Device memory per device; zero asks for none in particular."""
    models: frozenset[str] = frozenset()
    """Allowed GPU models; empty allows any."""
    resource_name: str = ""
    """Extended resource that must serve it, for example ``amd.com/gpu``; empty allows any."""

    def __post_init__(self) -> None:
        if self.cpu_milli < 0:
            raise _refuse("cpu_milli", self.cpu_milli, "give zero or more milli-CPU")
        if self.memory_mib < 0:
            raise _refuse("memory_mib", self.memory_mib, "give zero or more MiB")
        if not 0 <= self.gpus <= MAX_DEVICES:
            raise _refuse("gpus", self.gpus, f"one pod gets 0 to {MAX_DEVICES} devices; split larger jobs into pods")
        if self.gpu_memory_mib < 0:
            raise _refuse("gpu_memory_mib", self.gpu_memory_mib, "give zero or more MiB per device")
        if not 0 < self.milli <= WHOLE:
            raise _refuse("milli", self.milli, f"a share is 1 to {WHOLE} thousandths of a device")
        if self.milli < WHOLE and self.gpus > 1:
            raise _refuse("milli", self.milli, "fractions of several devices are not supported; ask for whole devices")

    @property
    def gpu_milli(self) -> int:
        """Compute over all devices, thousandths of a device."""
        return self.gpus * self.milli

    @property
    def fraction(self) -> bool:
        return self.gpus == 1 and self.milli < WHOLE

    def describe(self) -> str:
        """The request in one short, stable line, for reasons and evidence."""
        gpu = "no GPU" if not self.gpus else f"{self.gpus} GPU" if self.milli == WHOLE else f"{self.milli} GPU milli"
        extra = f", {self.gpu_memory_mib} MiB each" if self.gpu_memory_mib else ""
        models = f", models {'|'.join(sorted(self.models))}" if self.models else ""
        resource = f", {self.resource_name}" if self.resource_name else ""
        return f"{gpu}{extra}{models}{resource}, {self.cpu_milli} milli-CPU, {self.memory_mib} MiB"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One pod's request: an id and the shape of what it asks for."""

    id: str
    shape: Shape

    def __post_init__(self) -> None:
        if not self.id:
            raise _refuse("request.id", self.id, "name every request")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where one request sits: node and device indexes (in the node's order). The recorded form is the ledger's
    entry.
    """

    request: Request
    node: str
    devices: tuple[int, ...] = ()
