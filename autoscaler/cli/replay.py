"""``tidegate replay``: one trace through the real engine and the real AWS provider, with a report of what it cost and
why.
"""

import contextlib
from collections.abc import Callable, Generator
from pathlib import Path

import click
from rich import progress
from rich.console import Console

from autoscaler import settings, wiring
from autoscaler.backtest import traces
from autoscaler.report import files, promises, terminal
from autoscaler.report.run import Run

BROKEN_PROMISE = 1


@click.command()
@click.option("--trace", "trace", required=True, metavar="KIND:FILE", help="openb:FILE or servegen:FILE.")
@click.option("--days", type=click.FloatRange(min=0, min_open=True), default=None, help="Length of the window, days.")
@click.option(
    "--offers",
    type=click.Choice([choice.value for choice in wiring.Offers]),
    default=wiring.Offers.BENCHMARK.value,
    show_default=True,
    help="What may be bought: the benchmark's one node shape, or the real offers.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same decisions.")
@click.option(
    "--policy",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="YAML file with the policies to replay under; without it, the defaults.",
)
@click.option(
    "--aws-endpoint-url", metavar="URL", help="EC2 endpoint to buy from; without it a local double is started."
)
@click.option(
    "--out", "folder", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for the report."
)
def replay(
    *,
    trace: str,
    days: float | None,
    offers: str,
    seed: int,
    policy: Path | None,
    aws_endpoint_url: str | None,
    folder: Path,
) -> None:
    """Play a trace from start to end and report GPU-hours, cost, waits and every decision."""
    console = Console(stderr=True)
    source = traces.parse_trace(trace)
    chosen = wiring.ReplaySettings(
        offers=wiring.Offers(offers),
        seed=seed,
        aws_endpoint_url=aws_endpoint_url,
        policies=settings.PolicyFile() if policy is None else settings.read(policy),
    )
    with bar(console, f"replaying {source.path.name}") as advance:
        if source.kind is traces.TraceKind.OPENB:
            run, problems = wiring.replay_openb(source.path, chosen, days=days, progress=advance)
        else:
            run, problems = wiring.replay_servegen(source.path, chosen, days=days, progress=advance)
    for problem in problems:
        console.print(f"[yellow]left out:[/] {problem}", highlight=False)
    finish(run, folder)


def finish(run: Run, folder: Path) -> None:
    """Write the report, print the summary, and end with code 1 when a promise was broken."""
    figures = files.write(run, folder)
    terminal.print_summary(run, figures, Console(), folder=folder)
    broken = promises.broken(run, figures)
    for line in broken:
        click.echo(f"broken promise: {line}", err=True)
    if broken:
        raise click.exceptions.Exit(BROKEN_PROMISE)


@contextlib.contextmanager
def bar(console: Console, title: str) -> Generator[Callable[[float], None]]:
    """A progress bar; call what it gives with the share that is done."""
    with progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as shown:
        task = shown.add_task(title, total=1.0)
        yield lambda share: shown.update(task, completed=share)
