"""What follows from the stays of a run: its moves. Pure."""

from collections.abc import Iterable, Sequence

from autoscaler.model.records import Stay
from autoscaler.report.run import Move


def moves(stays: Iterable[Stay]) -> tuple[Move, ...]:
    """One move for each stay of a pod after its first, by time."""
    found = [Move(pod=pod, time_s=stay.start_s) for pod, chain in _chains(stays).items() for stay in chain[1:]]
    return tuple(sorted(found, key=lambda move: (move.time_s, move.pod)))


def _chains(stays: Iterable[Stay]) -> dict[str, Sequence[Stay]]:
    chains: dict[str, list[Stay]] = {}
    for stay in stays:
        chains.setdefault(stay.pod, []).append(stay)
    return {pod: sorted(chain, key=lambda stay: (stay.start_s, stay.claim)) for pod, chain in chains.items()}
