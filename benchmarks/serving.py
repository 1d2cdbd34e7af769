"""Benchmark 5 through the engine: two days of model serving with scaling to zero, beside a 900 s timer.

Cluster, gateway, controller and policies run as in ``tidegate replay --trace servegen:FILE``; the last day is scored.

    python -m benchmarks.serving [--full] [--out FILE]

Quick: seed 0. Full: seeds 0, 1 and 2. Exit code 2 without the trace folder (TIDEGATE_TRACES).
"""

import json
import sys
from pathlib import Path

import autoscaler
from autoscaler import wiring
from benchmarks import results

TRACE = Path("inference") / "servegen_language_m-small_days1-7.csv.gz"


def main(arguments: list[str] | None = None) -> int:
    """Run the cases; returns the exit code."""
    chosen = results.options("serving", "Benchmark 5 through the engine.", "three seeds", arguments)
    path = results.trace(TRACE)
    print(f"{'seed':>4}  {'policy':<22}{'GPU-h':>8}{'delayed %':>11}{'per million':>13}{'loads':>7}")
    lines: list[str] = []
    for seed in (0, 1, 2) if chosen.full else (0,):
        settings = wiring.ReplaySettings(seed=seed)
        run, _ = wiring.replay_servegen(path, settings, days=None, progress=lambda _: None)
        for policy, found in run.extra["scale_to_zero"].items():
            print(
                f"{seed:>4}  {policy:<22}{found['gpu_hours']:>8}{found['delayed_share_percent']:>11}"
                f"{found['delayed_per_million']:>13}{found['loads'] if found['loads'] is not None else '-':>7}",
                flush=True,
            )
            head = {"benchmark": "serving", "case": policy, "seed": seed}
            lines.append(json.dumps({**head, **found, "version": autoscaler.__version__}))
    results.keep(lines, chosen.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
