"""``tidegate observe``: what the cluster's GPUs look like to Tidegate, with the age and the trust of every value.

Reads; changes nothing. A server that is down is an observation like any other; only bad options fail.
"""

import json
import math
from collections.abc import Sequence

import click
import rich.console
import rich.markup
import rich.table

from autoscaler.metrics.durations import parse_instant
from autoscaler.metrics.prometheus import PrometheusSource
from autoscaler.metrics.queries import QUERIES
from autoscaler.metrics.wire import checked_url, shown_url
from policies.signals import Signal, SignalState
from vgpu.errors import InvalidRequest

_COLOURS = {SignalState.VALID: "green", SignalState.STALE: "yellow", SignalState.ABSENT: "dim"}


class BadOption(click.ClickException):
    """One line that names the option, its value and the remedy; exit code 2."""

    exit_code = 2


def option_url(_context: click.Context, option: click.Parameter, value: str) -> str:
    try:
        return checked_url(value)
    except InvalidRequest as error:
        raise BadOption(f"{option.opts[0]}: {error}") from None


def option_instant(_context: click.Context, option: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        return parse_instant(value)
    except InvalidRequest as error:
        raise BadOption(f"{option.opts[0]}: {error}") from None


@click.command()
@click.option("--prometheus-url", "url", required=True, callback=option_url, help="Base URL of the server.")
@click.option(
    "--at", callback=option_instant, metavar="TIME", help="Unix seconds or RFC 3339; default: the server's now."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.option("--timeout", "timeout_s", default=15.0, show_default=True, help="Longest silence of the server, seconds.")
def observe(url: str, at: float | None, as_json: bool, timeout_s: float) -> None:
    """Show every signal: its value, its age, and whether it can be trusted."""
    if not 0 < timeout_s <= 600:
        raise BadOption(f"--timeout: {timeout_s:g}: give 0 to 600 seconds")
    with PrometheusSource(url, timeout_s=timeout_s) as source:
        signals = source.signals(tuple(QUERIES), at=at)
    if as_json:
        click.echo(json.dumps({"signals": [signal_object(signal) for signal in signals]}, allow_nan=False))
    else:
        rich.console.Console().print(_table(url, signals))


def signal_object(signal: Signal) -> dict[str, object]:
    """One signal as JSON can carry it: null where there is no value or no age."""
    return {
        "name": signal.name,
        "labels": dict(sorted(signal.labels.items())),
        "state": signal.state.value,
        "value": _finite(signal.value),
        "age_s": None if signal.age_s is None else round(signal.age_s, 3),
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _table(url: str, signals: Sequence[Signal]) -> rich.table.Table:
    table = rich.table.Table(title=rich.markup.escape(f"{len(signals)} signals of {shown_url(url)}"))
    for heading in ("signal", "of", "value", "age", "state", "why"):
        table.add_column(heading, justify="right" if heading in {"value", "age"} else "left")
    for signal in signals:
        query = QUERIES[signal.name]
        value = _finite(signal.value)
        colour = _COLOURS.get(signal.state, "red")
        table.add_row(
            signal.name,
            rich.markup.escape(" ".join(f"{name}={text}" for name, text in sorted(signal.labels.items()))),
            "–" if value is None else f"{value:g} {query.unit}",
            "–" if signal.age_s is None else f"{signal.age_s:.0f} s",
            f"[{colour}]{signal.state.value}[/{colour}]",
            rich.markup.escape(signal.detail),
        )
    return table
