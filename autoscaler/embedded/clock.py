"""Virtual time: it stands still until somebody advances it. Fails loudly on a step backwards."""


class VirtualClock:
    """Seconds since an origin of the caller's choice."""

    __slots__ = ("_now",)

    def __init__(self, start_s: float = 0.0) -> None:
        self._now = start_s

    def now(self) -> float:
        return self._now

    def advance_to(self, time_s: float) -> None:
        """Jump to ``time_s``. Raises ValueError when that lies in the past."""
        # "not >=" also catches NaN, which would freeze the world for ever.
        if not time_s >= self._now:
            raise ValueError(f"advance_to({time_s!r}): the clock is at {self._now!r} already; time only goes forward")
        self._now = time_s
