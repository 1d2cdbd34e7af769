"""Machines that carry our tag and that no claim answers for: left alone for a grace, then terminated.

A stray is what a lost record leaves behind. The grace protects a machine whose claim is only a moment behind the
cloud's list. Machines of other owners are never seen here: the provider lists our own.
"""

from collections.abc import Callable, Iterable, Mapping

from autoscaler.engine import attempts
from autoscaler.engine.log import DecisionLog
from autoscaler.model import kinds
from policies.decisions import Action, Decision, Reason
from providers import errors
from providers.offers import Machine, Provider

POLICY = "claims"


class Strays:
    """Compares the cloud's list with the claims."""

    def __init__(
        self,
        *,
        provider: Provider,
        log: DecisionLog,
        note: Callable[[str, Exception], None],
        grace_s: float,
        again_s: float,
    ) -> None:
        self._provider = provider
        self._log = log
        self._note = note
        self._grace_s = grace_s
        self._again_s = again_s
        self._since: dict[str, float] = {}

    @property
    def known(self) -> bool:
        """Whether a stray was in the last list."""
        return bool(self._since)

    def collect(self, listing: Mapping[str, Machine], claims: Iterable[kinds.NodeClaim], now: float) -> float | None:
        """Terminate the strays in ``listing`` (by order key) whose grace is over; returns when to list again."""
        # A machine of an attempt that was refused is a stray too: its claim has gone on to another offer.
        open_or_bought = ("", attempts.LAUNCHED)
        ordered = {attempt.key for claim in claims for attempt in claim.attempts if attempt.outcome in open_or_bought}
        strays = {key: machine for key, machine in listing.items() if key not in ordered}
        self._since = {key: self._since.get(key, now) for key in strays}
        times: list[float] = []
        for key, since in self._since.items():
            if now < since + self._grace_s:
                times.append(since + self._grace_s)
                continue
            times.append(now + self._again_s)
            decision = Decision(
                policy=POLICY,
                action=Action.COLLECT,
                subject=key,
                reason=Reason.NO_CLAIM,
                evidence={"instance_type": strays[key].instance_type, "seen_for_s": now - since},
            )
            self._log.add(decision, now)
            try:
                self._provider.terminate(strays[key])
            except errors.BuyError as error:
                self._note(f"machine {strays[key].id}", error)
        return min(times, default=None)
