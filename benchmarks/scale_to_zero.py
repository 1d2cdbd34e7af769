"""Benchmark 5: idle GPU time saved by scaling to zero, and the delay it costs, on the ServeGen rates.

One GPU per client, loaded or not. A request to an unloaded model starts a load; every request that comes before the
load is done is delayed. Time-outs come from ``policies.keep_alive.choose``, the very code that the product runs; the
world around it is a vectorised model without the engine, so that seven days of a hundred million requests take seconds.

    python -m benchmarks.scale_to_zero [--full] [--days 2] [--out FILE]

Prints a table and one JSON line per case. Exit code 2 without the trace folder (TIDEGATE_TRACES).
"""

import argparse
import dataclasses
import importlib.metadata
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from autoscaler.backtest.servegen import DAY_S, TRACE_FILE, ClientLoad, Floats, Trace, read
from policies import keep_alive

TIMERS_S = (60.0, 300.0, 600.0, 900.0, 1_800.0)
PRICES = (0.25, 4.0, 7.6, 20.0, 40.0, 80.0, 160.0)
"""Values of ``keep_alive.Spec.delay_price``, the policy's one knob."""

QUICK_LOADS_S = (4.4, 20.0)
FULL_LOADS_S = (4.4, 20.0, 45.0)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What one client, or all of them, cost and suffered in the scored span."""

    gpu_hours: float
    delayed_share: float
    """Mean over clients with requests of delayed / requests."""
    worst_share: float
    delayed_per_million: float
    loads_per_day: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    name: str
    seed: int
    load_s: float
    score: Score
    seconds: float

    def line(self) -> str:
        """The case as one line of the results file."""
        return json.dumps(
            {
                "benchmark": "scale-to-zero",
                "case": f"{self.name}, load {self.load_s:g} s",
                "seed": self.seed,
                "metrics": {name: round(value, 6) for name, value in dataclasses.asdict(self.score).items()},
                "seconds": round(self.seconds, 3),
                "version": importlib.metadata.version("tidegate"),
            }
        )


Timeouts = Callable[[ClientLoad], Floats]
"""A policy: for each long gap of a client, and for the open end, the time-out in force [gaps + 1], in seconds."""


def fixed(timeout_s: float) -> Timeouts:
    return lambda load: np.full(len(load.gaps) + 1, timeout_s)


def learnt(spec: keep_alive.Spec) -> Timeouts:
    """The product's time-out, chosen once per gap from what was known when the gap had become one."""

    def timeouts(load: ClientLoad) -> Floats:
        gaps = load.gaps
        known = [
            keep_alive.Gap(length_s=float(length), requests_within_load=int(near))
            for length, near in zip(gaps.length_s, gaps.within_load, strict=True)
        ]
        last = load.last_before(math.inf)
        begun = [*map(float, gaps.start_s)] + ([] if last is None else [last])
        chosen = np.empty(len(begun))
        for index, start_s in enumerate(begun):
            finished = int(np.searchsorted(gaps.end_s, start_s + spec.minimum_s - load.load_s, side="right"))
            rate_rps = keep_alive.quiet_rate(*load.counts_until(math.nextafter(start_s, math.inf), keep_alive.BLOCK_S))
            assert rate_rps is not None  # the request at start_s is in it
            past = known[max(0, min(index, finished) - spec.history_gaps) : min(index, finished)]
            chosen[index] = keep_alive.choose(past, rate_rps, spec, load_s=load.load_s).t_s
        return chosen

    return timeouts


def _client(load: ClientLoad, timeouts: Floats, start_s: float, end_s: float) -> tuple[float, int, int, int]:
    """GPU-hours, delayed requests, requests and loads of one client in [start, end)."""
    first = load.first_after(-math.inf)
    last = load.last_before(math.inf)
    if first is None or last is None:
        return 0.0, 0, 0, 0
    idle_s = np.append(load.gaps.start_s, last)
    back_s = np.append(load.gaps.end_s, math.inf)
    unloaded_s = idle_s + timeouts
    ready_s = first + load.load_s
    for index, back in enumerate(back_s):
        # A model is not unloaded while it loads: with a load longer than the time-out the load's end comes first.
        unloaded_s[index] = max(unloaded_s[index], ready_s)
        if unloaded_s[index] <= back:
            ready_s = back + load.load_s
    cold = unloaded_s <= back_s
    away_s = np.clip(np.minimum(back_s, end_s) - np.maximum(unloaded_s, start_s), 0.0, None)[cold].sum()
    away_s += max(0.0, min(first, end_s) - start_s)
    loads = cold & (back_s >= start_s) & (back_s < end_s)
    delayed = int(np.append(load.gaps.within_load, 0)[loads].sum())
    count = int(loads.sum())
    if start_s <= first < end_s:
        delayed += load.count(first, first + load.load_s)
        count += 1
    return (end_s - start_s - float(away_s)) / 3_600, delayed, load.count(start_s, end_s), count


def score(loads: Iterable[ClientLoad], policy: Timeouts, start_s: float, end_s: float) -> Score:
    """All clients under one policy, scored over [start, end) seconds."""
    rows = [_client(load, policy(load), start_s, end_s) for load in loads]
    shares = [delayed / requests for _, delayed, requests, _ in rows if requests]
    requests = sum(row[2] for row in rows)
    return Score(
        gpu_hours=sum(row[0] for row in rows),
        delayed_share=sum(shares) / len(shares) if shares else 0.0,
        worst_share=max(shares, default=0.0),
        delayed_per_million=1e6 * sum(row[1] for row in rows) / requests if requests else 0.0,
        loads_per_day=sum(row[3] for row in rows) * DAY_S / (end_s - start_s),
    )


def client_loads(
    trace: Trace, *, seed: int, load_s: float, days: float = 7, clients: Sequence[int] | None = None
) -> list[ClientLoad]:
    """The gated clients (or those given) with all their requests in the first ``days``."""
    return [
        ClientLoad(trace.windows[client], seed=seed, load_s=load_s, until_s=days * DAY_S)
        for client in (trace.gated() if clients is None else clients)
    ]


def policies(prices: Sequence[float] = PRICES) -> Mapping[str, Timeouts]:
    chosen: dict[str, Timeouts] = {f"timer {timer_s:g} s": fixed(timer_s) for timer_s in TIMERS_S}
    default = keep_alive.Spec()
    chosen["learnt, default"] = learnt(default)
    return chosen | {f"learnt, price {price:g}": learnt(keep_alive.Spec(delay_price=price)) for price in prices}


def run(
    trace: Trace, *, seeds: Sequence[int] = (0,), loads_s: Sequence[float] = QUICK_LOADS_S, days: int = 7
) -> Iterator[Case]:
    """Every policy with every seed and load time; the first day is warm-up and not scored."""
    for load_s in loads_s:
        for seed in seeds:
            loads = client_loads(trace, seed=seed, load_s=load_s, days=days)
            for name, policy in policies().items():
                started = time.perf_counter()
                result = score(loads, policy, DAY_S, days * DAY_S)
                yield Case(name=name, seed=seed, load_s=load_s, score=result, seconds=time.perf_counter() - started)


def undominated(cases: Sequence[Case]) -> list[str]:
    """The timers (60, 300, 600, 1800 s) for which no learnt setting is at least as good in both columns and better in
    one, by seed and load time. Empty when the gate is met.
    """
    failed: list[str] = []
    for timer in cases:
        if not timer.name.startswith("timer") or timer.name == "timer 900 s":
            continue
        rivals = [
            case.score
            for case in cases
            if case.name.startswith("learnt") and (case.seed, case.load_s) == (timer.seed, timer.load_s)
        ]
        here = (timer.score.gpu_hours, timer.score.delayed_share)
        points = [(rival.gpu_hours, rival.delayed_share) for rival in rivals]
        if not any(p[0] <= here[0] and p[1] <= here[1] and p != here for p in points):
            failed.append(f"{timer.name}, load {timer.load_s:g} s, seed {timer.seed}")
    return failed


def _table(cases: Sequence[Case]) -> Iterator[str]:
    heads = ("GPU-h", "delayed %", "worst %", "per million", "loads/day")
    yield f"{'load s':>6}  {'policy':<20}" + "".join(
        f"{h:>{w}}" for h, w in zip(heads, (18, 18, 9, 13, 11), strict=True)
    )
    groups = dict.fromkeys((case.load_s, case.name) for case in cases)
    for load_s, name in groups:
        rows = [case.score for case in cases if (case.load_s, case.name) == (load_s, name)]

        def spread(values: Sequence[float], digits: int) -> str:
            deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
            return f"{np.mean(values):.{digits}f} ± {deviation:.{digits}f}"

        yield (
            f"{load_s:>6g}  {name:<20}{spread([r.gpu_hours for r in rows], 1):>18}"
            f"{spread([100 * r.delayed_share for r in rows], 3):>18}{100 * max(r.worst_share for r in rows):>9.2f}"
            f"{np.mean([r.delayed_per_million for r in rows]):>13.0f}{np.mean([r.loads_per_day for r in rows]):>11.1f}"
        )


def trace_file() -> Path:
    """Where the trace is looked for: TIDEGATE_TRACES, or ``../shared/data`` beside the repository."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("TIDEGATE_TRACES", default)) / "inference" / TRACE_FILE


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale_to_zero", description=__doc__)
    parser.add_argument("--full", action="store_true", help="three seeds and the 45 s load time too (quick: seed 0)")
    parser.add_argument(
        "--days", type=int, choices=range(2, 8), default=7, help="length of the trace; day 1 is warm-up"
    )
    parser.add_argument("--out", type=Path, help="file to which the JSON lines are added (default: printed)")
    given = parser.parse_args(arguments)
    path = trace_file()
    if not path.is_file():
        print(f"no trace at {path}: set TIDEGATE_TRACES to the folder that holds inference/", file=sys.stderr)
        return 2
    trace = read(path)
    for error in trace.errors:
        print(error, file=sys.stderr)
    seeds, loads_s = ((0, 1, 2), FULL_LOADS_S) if given.full else ((0,), QUICK_LOADS_S)
    cases = list(run(trace, seeds=seeds, loads_s=loads_s, days=given.days))
    print("\n".join(_table(cases)))
    failed = undominated(cases)
    print("gate: " + ("every timer is dominated" if not failed else "not dominated: " + "; ".join(failed)))
    lines = "".join(case.line() + "\n" for case in cases)
    if given.out is None:
        print(lines, end="")
    else:
        with given.out.open("a", encoding="utf-8") as results:
            results.write(lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
