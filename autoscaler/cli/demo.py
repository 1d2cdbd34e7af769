"""``tidegate demo``: the main job on production traces, or on a generated load of the same shape where there are
none.
"""

import dataclasses
from pathlib import Path

import click
from rich.console import Console

from autoscaler import wiring
from autoscaler.backtest import traces
from autoscaler.cli.replay import bar, finish
from autoscaler.report import figures as figures_of

OPENB = Path("openb") / "openb_pod_list_default.csv"
SERVEGEN = Path("inference") / "servegen_language_m-small_days1-7.csv.gz"
GENERATED_DAYS = 1.0


@click.command()
@click.option(
    "--out",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("out"),
    show_default=True,
    help="Folder for the report.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same decisions.")
def demo(folder: Path, seed: int) -> None:
    """Replay 30 days of a production GPU cluster and two days of model serving; report what it cost and why."""
    console = Console(stderr=True)
    benchmark = wiring.ReplaySettings(seed=seed)
    catalog = dataclasses.replace(benchmark, offers=wiring.Offers.CATALOG)
    source = traces.trace_folder()
    if source is None:
        console.print("No trace folder (TIDEGATE_TRACES, ../shared/data): generating a load of the same shape.")
        with bar(console, "generated load, benchmark node") as advance:
            run = wiring.replay_generated(benchmark, days=GENERATED_DAYS, progress=advance)
        with bar(console, "generated load, catalogue offers") as advance:
            beside = wiring.replay_generated(catalog, days=GENERATED_DAYS, progress=advance)
        scaling = {}
    else:
        with bar(console, "30 days of openb, benchmark node") as advance:
            run, _ = wiring.replay_openb(source / OPENB, benchmark, days=None, progress=advance)
        with bar(console, "30 days of openb, catalogue offers") as advance:
            beside, _ = wiring.replay_openb(source / OPENB, catalog, days=None, progress=advance)
        with bar(console, "2 days of model serving") as advance:
            models, _ = wiring.replay_servegen(source / SERVEGEN, benchmark, days=None, progress=advance)
        scaling = models.extra
    extra = {"catalog": figures_of.by_name(beside, figures_of.compute(beside)), **scaling}
    finish(dataclasses.replace(run, extra=extra), folder)
