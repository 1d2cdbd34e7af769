"""What a replay leaves behind: who sat where and when, and when each machine was ordered, ready and given back."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stay:
    """One pod on one node. A moved pod has several; they overlap while both places are held. Times in seconds."""

    pod: str
    """Name of the pod or job without its namespace; a replacement goes by the name of the pod that was moved."""
    namespace: str
    claim: str
    """Claim of the node; the node's own name where no claim stands behind it."""
    devices: tuple[int, ...]
    """Indexes in the node's order."""
    milli: int
    """Compute per device, thousandths."""
    start_s: float
    end_s: float | None
    """When the pod was gone; None while it is there."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MachineRecord:
    """One machine of one claim. Times are those of the claim's history, in seconds."""

    claim: str
    machine_id: str
    instance_type: str
    capacity_type: str
    gpus: int
    ordered_s: float
    """When its claim first entered Ordering: from here it costs money."""
    ready_s: float | None
    """When its node was first ready for pods."""
    terminated_s: float | None
    """When its claim entered Terminating; None while the machine is there."""
