"""The ServeGen trace (LLM request rates per client and 10-minute window) as request times, one client at a time.

Reads the published rates, checks every row, and generates the requests of a window from a seed with the published rule,
so that the same seed gives the same requests on every machine. Holds counts and long gaps, not requests: a day of all
clients is tens of millions of them. A window is generated again when somebody asks about a moment inside it.

Must not know: policies, the engine, what a request costs. Fails on a file without the columns (TraceError); a malformed
row becomes one RowError and the rest is read.
"""

import csv
import dataclasses
import gzip
import itertools
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from autoscaler.backtest.traces import TraceError

WINDOW_S = 600
"""Length of one row's window (ServeGen publishes rates per ten minutes)."""

DAY_S = 86_400.0

TRACE_FILE = "servegen_language_m-small_days1-7.csv.gz"
"""Name of the published file inside the trace folder's ``inference/``."""

SHORTEST_GAP_S = 30.0
"""Gaps below this are not recorded: no keep-alive is shorter, so that a model stays loaded through all of them."""

COLUMNS = ("client", "window_start_s", "rate_rps", "dist", "param1")
DISTRIBUTIONS = ("Gamma", "Weibull")

LATEST_S = 1e9
"""Later windows (after 31 years) are refused."""

MOST_RPS = 1e5
"""Higher rates in one window are refused: 60 million requests would not fit into memory."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RowError:
    """Why one row was left out."""

    line: int
    """Line in the file, 1 for the header."""
    field: str
    value: str
    remedy: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.field}={self.value!r}: {self.remedy}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One client's load in one ten-minute window."""

    client: int
    start_s: int
    rate_rps: float
    dist: str
    shape: float

    @property
    def draws(self) -> int:
        """Gaps to draw; one request fewer, because the last would fall on the window's end."""
        return math.ceil(WINDOW_S * self.rate_rps)

    @property
    def requests(self) -> int:
        return self.draws - 1

    def times(self, seed: int) -> Floats:
        """Arrival times in seconds since the trace's start, rising. ServeGen's rule: gaps from the fitted distribution,
        stretched to fill the window, which is why the published scale is not needed.
        """
        random = np.random.default_rng([seed, self.client, self.start_s // WINDOW_S])
        gaps = (
            random.standard_gamma(self.shape, self.draws)
            if self.dist == "Gamma"
            else random.weibull(self.shape, self.draws)
        )
        total = np.cumsum(gaps)
        if (
            not total[-1] > 0
        ):  # every gap underflowed, which tiny shapes can do: spread evenly rather than divide by zero
            total = np.arange(1, self.draws + 1, dtype=np.float64)
        return self.start_s + WINDOW_S * total[:-1] / total[-1]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The readable rows, by client and time, and what was wrong with the others."""

    windows: Mapping[int, tuple[Window, ...]]
    errors: tuple[RowError, ...] = ()

    def gated(self, *, windows: int = 1_008, empty_share: float = 0.05) -> tuple[int, ...]:
        """Clients with at least one request and at least ``empty_share`` of the first ``windows`` windows empty: those
        for which scaling to zero is a question at all.
        """
        end_s = windows * WINDOW_S
        chosen: list[int] = []
        for client, rows in sorted(self.windows.items()):
            busy = sum(1 for row in rows if row.start_s < end_s)
            if busy and (windows - busy) / windows >= empty_share:
                chosen.append(client)
        return tuple(chosen)


def _number(text: str | None, *, whole: bool = False) -> float | None:
    """The finite number that the text spells, or None."""
    try:
        value = float(text if text is not None else "")
    except ValueError:
        return None
    if not math.isfinite(value) or (whole and not value.is_integer()):
        return None
    return value


def _window(line: int, row: Mapping[str, str | None]) -> Window | RowError:
    def wrong(field: str, remedy: str) -> RowError:
        return RowError(line=line, field=field, value=str(row.get(field) or ""), remedy=remedy)

    client = _number(row.get("client"), whole=True)
    if client is None or not 0 <= client < 2**32:
        return wrong("client", "give a whole number of at least 0, below 2^32")
    start_s = _number(row.get("window_start_s"), whole=True)
    if start_s is None or not 0 <= start_s < LATEST_S or start_s % WINDOW_S:
        return wrong("window_start_s", f"give a multiple of {WINDOW_S} seconds of at least 0, below {LATEST_S:g}")
    rate = _number(row.get("rate_rps"))
    if rate is None or not 0 < rate <= MOST_RPS:
        return wrong("rate_rps", f"give requests per second above 0, at most {MOST_RPS:g}; leave empty windows out")
    dist = row.get("dist")
    if dist not in DISTRIBUTIONS:
        return wrong("dist", f"give one of {', '.join(DISTRIBUTIONS)}")
    shape = _number(row.get("param1"))
    if shape is None or shape <= 0:
        return wrong("param1", "give a finite shape above 0")
    return Window(client=int(client), start_s=int(start_s), rate_rps=rate, dist=dist, shape=shape)


def parse(lines: TextIO, name: str = "") -> Trace:
    """The trace in an open CSV file. Raises TraceError when a column is missing; bad rows are listed in ``errors``.
    ``name``: the file's, for errors.
    """
    reader = csv.DictReader(lines)
    try:
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise TraceError(
                file=name,
                field="columns",
                value=list(reader.fieldnames or ()),
                remedy=f"a ServeGen trace also needs {', '.join(missing)}",
            )
        windows: dict[int, dict[int, Window]] = {}
        errors: list[RowError] = []
        for row in reader:
            found = _window(reader.line_num, row)
            if isinstance(found, RowError):
                errors.append(found)
            elif found.start_s in windows.setdefault(found.client, {}):
                remedy = f"client {found.client} has this window already; keep one row per client and window"
                errors.append(
                    RowError(line=reader.line_num, field="window_start_s", value=str(found.start_s), remedy=remedy)
                )
            else:
                windows[found.client][found.start_s] = found
    except csv.Error as error:
        remedy = "not readable as CSV; give a text file"
        raise TraceError(file=name, line=reader.line_num, field="row", value=str(error), remedy=remedy) from error
    ordered = {client: tuple(rows[s] for s in sorted(rows)) for client, rows in sorted(windows.items()) if rows}
    return Trace(windows=ordered, errors=tuple(errors))


def read(path: Path) -> Trace:
    """The trace in ``path`` (``.csv`` or ``.csv.gz``). Raises TraceError when it cannot be read or is none."""
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
                return parse(lines, str(path))
        with path.open(encoding="utf-8", newline="") as lines:
            return parse(lines, str(path))
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        remedy = f"{error}; give a readable .csv or .csv.gz file"
        raise TraceError(file="", field="path", value=str(path), remedy=remedy) from error


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Gaps:
    """Gaps between requests of at least SHORTEST_GAP_S, oldest first, as parallel arrays of shape [gaps]."""

    start_s: Floats
    """Last request before the gap."""
    end_s: Floats
    """First request after it."""
    within_load: Ints
    """Requests in [end, end + load time): those that wait when the model was unloaded during the gap."""

    def __len__(self) -> int:
        return len(self.start_s)

    @property
    def length_s(self) -> Floats:
        return self.end_s - self.start_s


class ClientLoad:
    """What a gateway in front of one client's model could know about its requests, and when.

    ``load_s`` is the time a load takes, in seconds; it decides which requests count as close after a gap.
    ``shift_s`` moves every request, to take the first request after an empty window away from the window's edge.
    Times outside the generated span have no requests.
    """

    def __init__(
        self,
        windows: Sequence[Window],
        *,
        seed: int,
        load_s: float,
        until_s: float = math.inf,
        shift_s: float = 0.0,
    ) -> None:
        if not 0 < load_s < WINDOW_S:
            remedy = f"give a load time above 0 and below {WINDOW_S} seconds"
            raise TraceError(file="", field="load_s", value=load_s, remedy=remedy)
        self.seed = seed
        self.load_s = load_s
        self._shift_s = shift_s
        # A window with one draw has no request; leaving it out keeps "the window's last request" defined.
        self._windows = tuple(w for w in windows if w.start_s + shift_s < until_s and w.requests > 0)
        self._starts = np.array([w.start_s + shift_s for w in self._windows], dtype=np.float64)
        self._before = np.concatenate([[0], np.cumsum([w.requests for w in self._windows], dtype=np.int64)])
        self._recent: dict[int, Floats] = {}
        self._edge_ranks: dict[float, int] = {}
        self._gap_ranks: Ints = np.empty(0, dtype=np.int64)
        self.gaps = Gaps(start_s=np.empty(0), end_s=np.empty(0), within_load=np.empty(0, dtype=np.int64))
        self.gaps = self._find_gaps()

    @property
    def requests(self) -> int:
        """Requests in the whole span."""
        return int(self._before[-1])

    def _times(self, index: int) -> Floats:
        """Times of the window at ``index``; the two used last are kept, for a question often touches both sides."""
        times = self._recent.pop(index, None)
        if times is None:
            times = self._windows[index].times(self.seed) + self._shift_s
        self._recent[index] = times
        while len(self._recent) > 2:
            del self._recent[next(iter(self._recent))]
        return times

    def _find_gaps(self) -> Gaps:
        starts: list[Floats] = []
        ends: list[Floats] = []
        ranks: list[Ints] = []
        last: float | None = None
        for index, before in enumerate(self._before[:-1]):
            times = self._windows[index].times(self.seed) + self._shift_s
            if last is not None and times[0] - last >= SHORTEST_GAP_S:
                starts.append(np.array([last]))
                ends.append(times[:1])
                ranks.append(np.array([before]))
            long = np.flatnonzero(np.diff(times) >= SHORTEST_GAP_S)
            starts.append(times[long])
            ends.append(times[long + 1])
            ranks.append(before + long + 1)
            last = float(times[-1])
        start_s = np.concatenate(starts) if starts else np.empty(0)
        end_s = np.concatenate(ends) if ends else np.empty(0)
        counts = [self.count(float(end), float(end) + self.load_s) for end in end_s]
        self._recent.clear()
        self._gap_ranks = np.concatenate(ranks) if ranks else self._gap_ranks
        return Gaps(start_s=start_s, end_s=end_s, within_load=np.array(counts, dtype=np.int64))

    def _rank(self, t: float, *, including: bool) -> int:
        """Requests before ``t``, or up to and with it."""
        gap = int(np.searchsorted(self.gaps.start_s, t, side="left")) - 1
        if gap >= 0 and t < self.gaps.end_s[gap]:
            return int(self._gap_ranks[gap])
        index = int(np.searchsorted(self._starts, t, side="right")) - 1
        if index < 0:
            return 0
        if t >= self._starts[index] + WINDOW_S:
            return int(self._before[index + 1])
        if t == self._starts[index] and not including:
            return int(self._before[index])
        side = "right" if including else "left"
        return int(self._before[index] + np.searchsorted(self._times(index), t, side=side))

    def _at(self, rank: int) -> float:
        """Time of the request with that many before it."""
        index = int(np.searchsorted(self._before, rank, side="right")) - 1
        return float(self._times(index)[rank - self._before[index]])

    def _gap_at(self, t: float) -> int | None:
        """The long gap with start ≤ t < end: most questions fall into one, and it answers without generating."""
        index = int(np.searchsorted(self.gaps.start_s, t, side="right")) - 1
        return index if index >= 0 and t < self.gaps.end_s[index] else None

    def last_before(self, t: float) -> float | None:
        """The newest request at or before ``t``; None when there was none yet."""
        gap = self._gap_at(t)
        if gap is not None:
            return float(self.gaps.start_s[gap])
        rank = self._rank(t, including=True)
        return self._at(rank - 1) if rank else None

    def first_after(self, t: float) -> float | None:
        """The next request after ``t``; None when there is none. For the world only: no policy may see it."""
        gap = self._gap_at(t)
        if gap is not None:
            return float(self.gaps.end_s[gap])
        rank = self._rank(t, including=True)
        return self._at(rank) if rank < self.requests else None

    def count(self, start_s: float, end_s: float) -> int:
        """Requests in [start, end)."""
        return max(0, self._rank(end_s, including=False) - self._rank(start_s, including=False))

    def idle_from(self, t: float) -> Iterator[tuple[float, float | None]]:
        """The long gaps that end after ``t``, as (last request before, first request after), then the open end."""
        index = int(np.searchsorted(self.gaps.end_s, t, side="right"))
        for start, end in zip(self.gaps.start_s[index:], self.gaps.end_s[index:], strict=True):
            yield float(start), float(end)
        if self.requests:
            yield self._at(self.requests - 1), None

    def gaps_until(self, t: float, most: int | None = None) -> Gaps:
        """The newest ``most`` long gaps (all when None) that are finished at ``t``. A gap is finished when the requests
        close after it have been counted, one load time after its end: before that, their number is not known.
        """
        stop = int(np.searchsorted(self.gaps.end_s, t - self.load_s, side="right"))
        part = slice(0 if most is None else max(0, stop - most), stop)
        return Gaps(
            start_s=self.gaps.start_s[part],
            end_s=self.gaps.end_s[part],
            within_load=self.gaps.within_load[part],
        )

    def counts_until(self, t: float, block_s: float) -> tuple[tuple[int, ...], float]:
        """Requests before ``t`` in blocks of ``block_s`` counted from time 0, and the seconds the last one has run."""
        if t <= 0:
            return (), 0.0
        edges = [block_s * i for i in range(max(1, math.ceil(t / block_s)))]
        for edge in edges:
            # The past does not change: asking again must not generate its requests again.
            if edge not in self._edge_ranks:
                self._edge_ranks[edge] = self._rank(edge, including=False)
        ranks = [self._edge_ranks[edge] for edge in edges] + [self._rank(t, including=False)]
        return tuple(b - a for a, b in itertools.pairwise(ranks)), t - edges[-1]
