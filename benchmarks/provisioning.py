"""Benchmark 4: GPU-hours billed over the last 30 days of openb's default trace, through engine, policies and boto3.

Every row is a whole replay: embedded cluster, the real engine, the real AWS provider on the double over HTTP.

    python -m benchmarks.provisioning [--full] [--out FILE]

Quick: the policy as shipped, and without moves. Full: also other boot times, holds and move budgets, and the
catalogue's offers. Prints a table and one JSON line per case. Exit code 2 without the trace folder (TIDEGATE_TRACES),
1 when a gate is missed.
"""

import collections
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import autoscaler
from autoscaler import wiring
from autoscaler.backtest import replay
from autoscaler.report import figures as figures_of
from autoscaler.report import files
from autoscaler.report.figures import Figures
from autoscaler.report.run import Run
from autoscaler.settings import PolicyFile
from benchmarks import results
from policies import compaction

TRACE = Path("openb") / "openb_pod_list_default.csv"

BILLED_AT_MOST = 1.20
P99_AT_MOST_S = 190.0
MEAN_AT_MOST_S = 18.0
MOVES_AT_MOST = 50
WALL_AT_MOST_S = 120.0
RSS_AT_MOST_MIB = 500.0


AS_SHIPPED = replay.World()

SHOWN = (
    "billed_per_demanded",
    "wait_mean_s",
    "wait_p99_s",
    "launches",
    "moves",
    "moves_max_24h",
    "seconds",
    "peak_rss_mib",
)
WIDTHS = (9, 8, 7, 9, 7, 6, 8, 6)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    name: str
    settings: wiring.ReplaySettings
    gated: bool = False


def cases(*, full: bool) -> Iterator[Case]:
    """The replays in the order in which they are printed."""
    shipped = wiring.ReplaySettings()
    yield Case(name="as shipped", settings=shipped, gated=True)
    yield Case(name="without moves", settings=_giving_back(moves=False))
    if not full:
        return
    for boot_s in (60.0, 600.0):
        world = replay.World(boot_s=boot_s)
        yield Case(name=f"boot {boot_s:g} s", settings=_giving_back(world, boot_s=boot_s))
    yield Case(name="hold 300 s", settings=_giving_back(replay.World(hold_s=300), hold_s=300))
    for budget in (10, 200):
        yield Case(name=f"{budget} moves a day", settings=_giving_back(max_moves_per_day=budget))
    yield Case(name="headroom 1", settings=_giving_back(headroom_gpus=1))
    yield Case(name="catalogue offers", settings=dataclasses.replace(shipped, offers=wiring.Offers.CATALOG))


def _giving_back(world: replay.World = AS_SHIPPED, **changes: float | bool) -> wiring.ReplaySettings:
    policies = PolicyFile(compaction=compaction.Spec.model_validate(changes))
    return wiring.ReplaySettings(world=world, policies=policies)


def row(case: Case, run: Run, figures: Figures) -> dict[str, object]:
    """One case as a line of the results file."""
    moved = collections.Counter(move.pod for move in run.moves)
    ends = {pod.name: pod.end_s for pod in run.pods}
    late = sum(1 for move in run.moves if (end := ends.get(move.pod)) is not None and end - move.time_s < 600)
    return {
        "benchmark": "provisioning",
        "case": case.name,
        "seed": case.settings.seed,
        "billed_gpu_hours": round(figures.billed_gpu_hours),
        "billed_per_demanded": round(figures.billed_gpu_hours / figures.demanded_gpu_hours, 4),
        "cost_usd": round(figures.cost_usd),
        "wait_mean_s": round(figures.wait_mean_s, 2),
        "wait_p99_s": round(figures.wait_p99_s, 1),
        "launches": figures.launched,
        "moves": figures.moves,
        "moves_max_24h": figures.moves_max_24h,
        "moves_of_one_pod": max(moved.values(), default=0),
        "moves_with_less_than_600_s_left": late,
        "lost": figures.lost,
        "leaked": figures.leaked,
        "seconds": round(run.wall_s, 1),
        "peak_rss_mib": round(run.peak_rss_mib),
        "version": autoscaler.__version__,
    }


def log_bytes(run: Run) -> bytes:
    """What stands in the run's decisions.jsonl."""
    return "".join(files.decision_line(decision) for decision in run.decisions).encode()


def missed(run: Run, figures: Figures) -> list[str]:
    """The gates of the benchmark that the run misses."""
    checks = {
        f"billed at most {BILLED_AT_MOST} x demanded": figures.billed_gpu_hours
        <= BILLED_AT_MOST * figures.demanded_gpu_hours,
        f"p99 wait at most {P99_AT_MOST_S:g} s": figures.wait_p99_s <= P99_AT_MOST_S,
        f"mean wait at most {MEAN_AT_MOST_S:g} s": figures.wait_mean_s <= MEAN_AT_MOST_S,
        f"at most {MOVES_AT_MOST} moves in any 24 hours": figures.moves_max_24h <= MOVES_AT_MOST,
        "no pod lost": figures.lost == 0,
        "no machine leaked": run.leaked == 0,
        f"at most {WALL_AT_MOST_S:g} s": run.wall_s <= WALL_AT_MOST_S,
        f"at most {RSS_AT_MOST_MIB:g} MiB": run.peak_rss_mib <= RSS_AT_MOST_MIB,
    }
    return [name for name, held in checks.items() if not held]


def main(arguments: list[str] | None = None) -> int:
    """Run the cases; returns the exit code."""
    chosen = results.options(
        "provisioning", "Benchmark 4.", "also other boot times, holds, budgets and offers", arguments
    )
    path = results.trace(TRACE)
    failures: list[str] = []
    heads = zip(("x demand", "mean s", "p99 s", "launches", "moves", "24 h", "wall s", "MiB"), WIDTHS, strict=True)
    print(f"{'case':<20}" + "".join(f"{head:>{width}}" for head, width in heads))
    lines: list[str] = []
    for case in cases(full=chosen.full):
        run, _ = wiring.replay_openb(path, case.settings, days=None, progress=lambda _: None)
        figures = figures_of.compute(run)
        found = row(case, run, figures)
        lines.append(json.dumps(found))
        cells = zip((found[key] for key in SHOWN), WIDTHS, strict=True)
        print(f"{case.name:<20}" + "".join(f"{cell!s:>{width}}" for cell, width in cells), flush=True)
        if case.gated:
            failures += missed(run, figures)
            again, _ = wiring.replay_openb(path, case.settings, days=None, progress=lambda _: None)
            equal = log_bytes(again) == log_bytes(run)
            print(f"{'':<20}a second run gives the same decision log, byte for byte: {'yes' if equal else 'NO'}")
            failures += [] if equal else ["two runs with one seed give one decision log"]
    results.keep(lines, chosen.out)
    for failure in failures:
        print(f"gate missed: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
