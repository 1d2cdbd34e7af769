"""A measured value with its age and how far it can be trusted. Missing data is a state of its own, never zero."""

import dataclasses
import enum
from collections.abc import Mapping


class SignalState(enum.StrEnum):
    VALID = "Valid"
    STALE = "Stale"
    """The newest sample is older than the signal's maximum age."""
    ABSENT = "Absent"
    """The source answered and knows no such series."""
    INVALID = "Invalid"
    """NaN, infinite, a driver's blank marker, out of range, or duplicates that contradict each other."""
    UNREACHABLE = "Unreachable"
    """The source did not answer."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One named value. ``value`` is None unless the state is Valid or Stale; ``age_s`` is None where nothing was
    seen.
    """

    name: str
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])
    state: SignalState
    value: float | None = None
    age_s: float | None = None
    detail: str = ""
    """Why the state is not Valid, in words."""

    @property
    def valid(self) -> bool:
        return self.state is SignalState.VALID
