"""What GPUs and shares of them are: devices, requests, placements, and the allocator that keeps the book."""

from vgpu.allocator import Allocator, Refusal, RefusalReason
from vgpu.errors import InvalidRequest, LedgerError, TidegateError
from vgpu.inventory import WHOLE, Device, Node, Placement, Request, Shape
from vgpu.ledger import Ledger

__all__ = [
    "WHOLE",
    "Allocator",
    "Device",
    "InvalidRequest",
    "Ledger",
    "LedgerError",
    "Node",
    "Placement",
    "Refusal",
    "RefusalReason",
    "Request",
    "Shape",
    "TidegateError",
]
