"""``tidegate waste``: idle GPU-hours and dollars per namespace and workload, from a Prometheus server's history alone.

Reads; installs nothing. Fails with exit code 2 and one line when the server cannot be asked.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Generator, Iterator
from decimal import Decimal

import click
import rich.console
import rich.markup
import rich.progress
import rich.table

from autoscaler.cli.observe import BadOption, option_instant, option_url
from autoscaler.metrics.durations import parse_duration
from autoscaler.metrics.prices import parse_price, price_list
from autoscaler.metrics.prometheus import PrometheusSource
from autoscaler.metrics.rows import MetricsUnreachable
from autoscaler.metrics.waste import IDLE_BELOW_PERCENT, Line, Report, measure
from autoscaler.metrics.wire import shown_url
from vgpu.errors import InvalidRequest

SHORTEST_STEP_S = 60
"""Scrapes are seldom closer; a finer step would count the same sample several times."""

MOST_STEPS = 10_080
"""A week of minutes: longer spans take longer steps, whole minutes, so that the work stays bounded."""

_CENT = Decimal("0.01")


def _option_duration(_context: click.Context, option: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        return parse_duration(value)
    except InvalidRequest as error:
        raise BadOption(f"{option.opts[0]}: {error}") from None


def _option_prices(_context: click.Context, option: click.Parameter, value: tuple[str, ...]) -> dict[str, Decimal]:
    try:
        return dict(parse_price(text) for text in value)
    except InvalidRequest as error:
        raise BadOption(f"{option.opts[0]}: {error}") from None


@click.command()
@click.option("--prometheus-url", "url", required=True, callback=option_url, help="Base URL of the server.")
@click.option("--since", "since_s", default="7d", show_default=True, callback=_option_duration, help="How far back.")
@click.option("--at", callback=option_instant, metavar="TIME", help="End of the span: Unix seconds or RFC 3339.")
@click.option(
    "--price",
    "prices",
    multiple=True,
    metavar="MODEL=USD",
    callback=_option_prices,
    help="Dollars per GPU-hour; '*' for every model without a price. May be repeated.",
)
@click.option(
    "--idle-below",
    "idle_below",
    type=float,
    default=IDLE_BELOW_PERCENT,
    show_default=True,
    metavar="PERCENT",
    help="Utilisation up to which a device counts as idle.",
)
@click.option(
    "--step", "step_s", callback=_option_duration, metavar="DURATION", help="Resolution; default 1m up to 7d."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.option("--timeout", "timeout_s", default=30.0, show_default=True, help="Longest silence of the server, seconds.")
def waste(  # noqa: PLR0917 - click passes by name
    url: str,
    since_s: float,
    at: float | None,
    prices: dict[str, Decimal],
    idle_below: float,
    step_s: float | None,
    as_json: bool,
    timeout_s: float,
) -> None:
    """Show which workloads hold GPUs that do nothing, and what that costs."""
    if not 0 <= idle_below <= 100:
        raise BadOption(f"--idle-below: {idle_below:g}: give a percentage from 0 to 100")
    if not 0 < timeout_s <= 600:
        raise BadOption(f"--timeout: {timeout_s:g}: give 0 to 600 seconds")
    step = step_s or _step_for(since_s)
    if step != int(step) or step > since_s:
        raise BadOption(f"--step: {step:g} s: give whole seconds, no more than --since ({since_s:g} s)")
    if since_s / step > 100 * MOST_STEPS:
        raise BadOption(f"--since: {since_s:g} s in steps of {step:g} s is too long; shorten it or lengthen --step")
    try:
        with PrometheusSource(url, timeout_s=timeout_s) as source:
            end_s = at if at is not None else source.server_time()
            # The step at the very start would reach back before the span.
            start_s = max(0.0, end_s - since_s) + step
            with _progress(int(since_s / step), shown=not as_json and sys.stderr.isatty()) as past:
                grids = source.history("gpu_utilisation", start_s=start_s, end_s=end_s, step_s=step, past=past)
                report = measure(grids, idle_below_percent=idle_below, price=price_list(prices))
    except MetricsUnreachable as error:
        raise BadOption(f"--prometheus-url: {error}; check the address and that the server runs") from None
    if as_json:
        span = {"from_s": end_s - since_s, "to_s": end_s, "step_s": step, "idle_below_percent": idle_below}
        click.echo(json.dumps({**span, **report_object(report)}, allow_nan=False))
        return
    console = rich.console.Console()
    console.print(_table(report, url, since_s))
    for note in _notes(report, since_s):
        console.print(rich.markup.escape(note))


def _step_for(since_s: float) -> float:
    whole_minutes = -(-since_s // MOST_STEPS) // 60 + (1 if -(-since_s // MOST_STEPS) % 60 else 0)
    return max(1.0, min(since_s, max(SHORTEST_STEP_S, whole_minutes * 60.0)) // 1)


@contextlib.contextmanager
def _progress(steps: int, *, shown: bool) -> Generator[Callable[[int], None]]:
    with rich.progress.Progress(
        console=rich.console.Console(stderr=True), disable=not shown, transient=True
    ) as progress:
        task = progress.add_task("reading history", total=steps)
        yield lambda done: progress.update(task, completed=done)


def report_object(report: Report) -> dict[str, object]:
    """The report as JSON can carry it: dollars as numbers, null where they are unknown."""
    return {
        "devices": report.devices,
        "gpu_hours": round(report.gpu_hours, 6),
        "idle_gpu_hours": round(report.idle_gpu_hours, 6),
        "unknown_gpu_hours": round(report.unknown_gpu_hours, 6),
        "idle_usd": _number(report.idle_usd),
        "priced_idle_usd": _number(report.priced_idle_usd),
        "unpriced_models": list(report.unpriced_models),
        "workloads": [_line_object(line) for line in report.lines],
    }


def _line_object(line: Line) -> dict[str, object]:
    return {
        "namespace": line.namespace,
        "workload": line.workload,
        "allocated": line.allocated,
        "pods": line.pods,
        "models": list(line.models),
        "gpu_hours": round(line.gpu_hours, 6),
        "idle_gpu_hours": round(line.idle_gpu_hours, 6),
        "unknown_gpu_hours": round(line.unknown_gpu_hours, 6),
        "idle_usd": _number(line.idle_usd),
    }


def _number(dollars: Decimal | None) -> float | None:
    return None if dollars is None else float(dollars.quantize(Decimal("0.000001")))


def _table(report: Report, url: str, since_s: float) -> rich.table.Table:
    title = f"Idle GPU-hours of the last {_span(since_s)} at {shown_url(url)}"
    table = rich.table.Table(title=rich.markup.escape(title), show_footer=True)
    percent = f"{report.idle_gpu_hours / report.gpu_hours:.0%}" if report.gpu_hours else "–"
    columns = (
        ("namespace", f"{report.devices} devices"),
        ("workload", ""),
        ("pods", ""),
        ("model", ""),
        ("GPU-h", f"{report.gpu_hours:,.1f}"),
        ("idle GPU-h", f"{report.idle_gpu_hours:,.1f}"),
        ("idle", percent),
        ("unknown GPU-h", f"{report.unknown_gpu_hours:,.1f}"),
        ("idle USD", _money(report.idle_usd)),
    )
    for place, (heading, footer) in enumerate(columns):
        justify = "right" if place == 2 or place > 3 else "left"
        table.add_column(heading, footer, justify=justify)
    for line in report.lines:
        table.add_row(
            rich.markup.escape(line.namespace or "–"),
            rich.markup.escape(line.workload),
            str(line.pods) if line.allocated else "–",
            rich.markup.escape(", ".join(line.models) or "–"),
            f"{line.gpu_hours:,.1f}",
            f"{line.idle_gpu_hours:,.1f}",
            f"{line.idle_gpu_hours / line.gpu_hours:.0%}" if line.gpu_hours else "–",
            f"{line.unknown_gpu_hours:,.1f}",
            _money(line.idle_usd),
        )
    return table


def _notes(report: Report, since_s: float) -> Iterator[str]:
    if not report.lines:
        yield (
            f"No GPU utilisation in the last {_span(since_s)}: this server does not scrape a DCGM exporter, "
            "or keeps less history than that."
        )
    if report.unpriced_models:
        models = ", ".join(model or "(no model label)" for model in report.unpriced_models)
        yield (
            f"No price known for: {models}. Dollars that need it are unknown (–), not zero; the rest comes to "
            f"{_money(report.priced_idle_usd)}. Add --price MODEL=USD or --price '*=USD'."
        )


def _money(dollars: Decimal | None) -> str:
    return "–" if dollars is None else f"{dollars.quantize(_CENT):,}"


def _span(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"
