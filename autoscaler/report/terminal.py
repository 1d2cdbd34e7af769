"""The summary of a run at the end of ``demo`` and ``replay``: a few tables for the terminal. Knows no file."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from autoscaler.report import figures as figures_of
from autoscaler.report import wording
from autoscaler.report.figures import IDLE, Figures
from autoscaler.report.run import Run

MOST_REASONS = 8


def summary(run: Run, figures: Figures) -> RenderableType:
    """The tables, for whoever prints them."""
    notes = [Text(note, style="yellow") for note in run.notes]
    beside = [_beside(key, section, run, figures) for key, section in run.extra.items()]
    title = Panel(Text(run.title, style="bold"), expand=False)
    return Group(title, *notes, _main(run, figures), _parts(run, figures), *beside)


def print_summary(run: Run, figures: Figures, console: Console, *, folder: Path | None = None) -> None:
    """Print the summary, and where the files are."""
    console.print(summary(run, figures))
    if folder is not None:
        console.print(Text(f"Report: {folder / 'report.html'}"))


def _main(run: Run, figures: Figures) -> Table:
    ratio = figures.billed_per_demanded
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column("figure", style="cyan")
    table.add_column("value", justify="right")
    table.add_column("more", style="dim")
    table.add_row("GPU-hours demanded", wording.count(figures.demanded_gpu_hours), "")
    table.add_row(
        "GPU-hours billed",
        wording.count(figures.billed_gpu_hours),
        "" if ratio is None else f"{ratio:.3f} x demanded",
    )
    table.add_row("cost", wording.dollars(figures.cost_usd), "")
    table.add_row(
        "wait, mean", wording.seconds(figures.wait_mean_s), f"p99 {wording.seconds(figures.wait_p99_s)} (nearest rank)"
    )
    table.add_row("moves", wording.count(figures.moves), f"at most {figures.moves_max_24h} in any 24 hours")
    table.add_row(
        "machines launched",
        wording.count(figures.launched),
        f"{figures.terminated} terminated, {figures.machines_running} running at the end",
    )
    table.add_row("machines leaked", _alarm(figures.leaked), "")
    waiting = f", {wording.count(figures.waiting)} never started" if figures.waiting else ""
    table.add_row(
        "pods arrived",
        wording.count(figures.arrived),
        f"{wording.count(figures.finished)} finished, {wording.count(figures.running)} running at the end{waiting}",
    )
    table.add_row("pods lost", _alarm(figures.lost), "")
    table.add_row("took", wording.seconds(run.wall_s), f"{wording.count(run.peak_rss_mib)} MiB at most")
    return table


def _alarm(number: int) -> Text:
    return Text(wording.count(number), style="bold red" if number else "green")


def _parts(run: Run, figures: Figures) -> RenderableType:
    costs = Table(title="Cost by namespace", title_justify="left", title_style="bold")
    costs.add_column("namespace")
    costs.add_column("GPU-hours", justify="right")
    costs.add_column("cost", justify="right")
    for name, share in figures.by_namespace:
        shown = Text("idle", style="dim") if name == IDLE else Text(name)
        costs.add_row(shown, wording.count(share.gpu_hours), wording.dollars(share.cost_usd))
    counts = Counter((decision.action, decision.reason) for decision in run.decisions)
    decisions = Table(title="Decisions by reason", title_justify="left", title_style="bold")
    decisions.add_column("action")
    decisions.add_column("reason")
    decisions.add_column("number", justify="right")
    for (action, reason), number in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST_REASONS]:
        decisions.add_row(Text(action), Text(reason), wording.count(number))
    return Group(costs, decisions)


def _beside(key: str, section: Mapping[str, Any], run: Run, figures: Figures) -> RenderableType:
    """A further section: rows by name, or another run's figures beside this one's."""
    table = Table(title=wording.heading(key), title_justify="left", title_style="bold")
    rows = [cast("Mapping[str, Any]", row) for row in section.values() if isinstance(row, Mapping)]
    if len(rows) == len(section):
        table.add_column("")
        for column in rows[0]:
            table.add_column(wording.title(column), justify="right")
        for name, row in section.items():
            table.add_row(name, *(wording.value(cell) for cell in row.values()))
        return table
    table.add_column("figure")
    table.add_column("this run", justify="right")
    table.add_column("that run", justify="right")
    own = wording.flatten(figures_of.by_name(run, figures))
    for name, value in wording.flatten(section).items():
        if name in own and name != "schema" and not name.startswith("by_namespace"):
            table.add_row(wording.title(name), wording.value(own[name]), wording.value(value))
    return table
