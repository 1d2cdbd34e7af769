"""The book of who holds what: assumed before it is written down, committed once it is seen, released when it is gone.

The durable record is on the pods (``tidegate.dev/allocation``); this book is rebuilt from it at any time. An assumption
carries its own deadline, so that a write that never came true gives its room back. What does not add up is refused by
name and kept in ``refused``: the ledger hands nothing out on a node it cannot account for.

Where records contradict each other, those of the lower request ids count. So the book depends on the records alone and
not on the order in which they were seen, and a restart changes nothing.
"""

import dataclasses
from collections.abc import Iterable

from vgpu import errors
from vgpu.allocator import Allocator, Refusal
from vgpu.inventory import Node, Placement, Request


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Assumption:
    placement: Placement
    expires_s: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A recorded allocation that does not add up, and why."""

    node: str
    why: str


class Ledger:
    """An allocator plus the difference between what is hoped for (assumed) and what is known (committed)."""

    def __init__(self, nodes: Iterable[Node] = (), strategy: str = "best_fit") -> None:
        self.allocator = Allocator(nodes, strategy)
        self._assumed: dict[str, Assumption] = {}
        self._closed: set[str] = set()
        self.refused: dict[str, Refused] = {}
        """Recorded allocations that were not accepted, by request id."""
        self._wrong: dict[str, Placement] = {}
        """The records behind ``refused``: they are entered as soon as there is room for them."""

    @classmethod
    def rebuild(cls, nodes: Iterable[Node], recorded: Iterable[Placement], strategy: str = "best_fit") -> "Ledger":
        """The ledger that the recorded allocations describe. What does not add up lands in ``refused`` and its node is
        cordoned in the book, so that nothing is promised on top of an unknown. A request recorded in two places keeps
        the first.
        """
        ledger = cls(nodes, strategy)
        seen: dict[str, Placement] = {}
        for placement in recorded:
            first = seen.setdefault(placement.request.id, placement)
            if first is placement:
                ledger.commit(placement)
            elif first != placement:
                ledger._enter(placement)
        return ledger

    def assume(self, request: Request, *, now: float, ttl_s: float) -> Placement | Refusal:
        """Reserve the best place for ``request`` until it is committed, released or ``ttl_s`` seconds have passed."""
        outcome = self.allocator.place(request)
        if isinstance(outcome, Placement):
            self._assumed[request.id] = Assumption(placement=outcome, expires_s=now + ttl_s)
        return outcome

    def commit(self, placement: Placement) -> bool:
        """Enter what was observed. An assumption of the same request gives way to the fact. False when it was
        refused.
        """
        request_id = placement.request.id
        self._assumed.pop(request_id, None)
        if self.allocator.placement(request_id) == placement and request_id not in self.refused:
            return True
        self.release(request_id)
        self._enter(placement)
        return request_id not in self.refused

    def release(self, request_id: str) -> None:
        """The request is gone: give its room back. Unknown ids are fine, they hold nothing."""
        self._assumed.pop(request_id, None)
        held = self.allocator.release(request_id)
        refused = self.refused.pop(request_id, None)
        self._wrong.pop(request_id, None)
        for node in {placed.node for placed in (held, refused) if placed is not None}:
            self._settle(node)

    def remove_node(self, name: str) -> tuple[Placement, ...]:
        """Take a node out with everything that is assumed, recorded or refused on it; returns what it held."""
        for request_id in [key for key, refused in self.refused.items() if refused.node == name]:
            del self.refused[request_id], self._wrong[request_id]
        lost = self.allocator.remove_node(name)
        for placement in lost:
            self._assumed.pop(placement.request.id, None)
        return lost

    def cordon(self, node: str, cordoned: bool = True) -> None:
        """Close a node for new placements, or open it again. It stays closed while one of its records does not add
        up.
        """
        if cordoned:
            self._closed.add(node)
        else:
            self._closed.discard(node)
        self._recordon(node)

    def _enter(self, placement: Placement) -> None:
        try:
            self.allocator.apply(placement)
        except errors.LedgerError as error:
            self._refuse(placement, error)
        self._settle(placement.node)

    def _refuse(self, placement: Placement, error: errors.LedgerError) -> None:
        before = self.refused.get(placement.request.id)
        self.refused[placement.request.id] = Refused(node=placement.node, why=str(error))
        self._wrong[placement.request.id] = placement
        if before is not None:
            self._recordon(before.node)

    def _settle(self, node: str) -> None:
        """Where records contradict each other, enter them again by request id; assumptions get what is left."""
        wrong = [placement for placement in self._wrong.values() if placement.node == node]
        if not wrong or not self.allocator.has_node(node):
            self._recordon(node)
            return
        held = self.allocator.placements(node)
        for placement in held:
            self.allocator.release(placement.request.id)
        hopes = [placement for placement in held if placement.request.id in self._assumed]
        facts = [placement for placement in held if placement.request.id not in self._assumed]
        for placement in sorted((*facts, *wrong), key=lambda placement: placement.request.id):
            try:
                self.allocator.apply(placement)
            except errors.LedgerError as error:
                self._refuse(placement, error)
            else:
                if placement in wrong:
                    del self.refused[placement.request.id], self._wrong[placement.request.id]
        for placement in hopes:
            try:
                self.allocator.apply(placement)
            except errors.LedgerError:
                # A hope is not worth an error: whoever assumed it finds the place taken and plans again.
                del self._assumed[placement.request.id]
        self._recordon(node)

    def _recordon(self, node: str) -> None:
        if self.allocator.has_node(node):
            unaccounted = any(refused.node == node for refused in self.refused.values())
            self.allocator.cordon(node, unaccounted or node in self._closed)

    def expire(self, now: float) -> tuple[str, ...]:
        """Release the assumptions whose deadline has passed; returns their request ids in order."""
        late = tuple(sorted(request_id for request_id, entry in self._assumed.items() if entry.expires_s <= now))
        for request_id in late:
            self.release(request_id)
        return late

    def assumed(self) -> tuple[Assumption, ...]:
        return tuple(self._assumed[request_id] for request_id in sorted(self._assumed))
