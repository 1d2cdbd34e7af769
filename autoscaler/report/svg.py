"""The charts of ``report.html`` as inline SVG, drawn here. Well-formed XML, colours from the page's classes. Pure."""

import html
import math
import re
from collections.abc import Callable, Iterable, Sequence

from autoscaler.model.records import MachineRecord
from autoscaler.report import wording
from autoscaler.report.figures import billed_until
from autoscaler.report.run import Run
from autoscaler.report.series import Series

WIDTH = 1060
LEFT = 46
RIGHT = 10
_HOVER_BANDS = 180
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""Characters that XML cannot hold at all."""


def escape(text: object) -> str:
    """Text for an element or a quoted attribute."""
    return html.escape(_CONTROLS.sub("\ufffd", str(text)), quote=True)


def gpus_over_time(series: Series) -> str:
    """Bought as the pale area, busy as the full one in front of it, demanded as a line."""
    height, top, bottom = 320, 12, 28
    most = max((*series.demanded, *series.bought, *series.busy, 1.0))
    step = _nice(most / 5)
    ceiling = step * math.ceil(most / step)
    plot_width, plot_height = WIDTH - LEFT - RIGHT, height - top - bottom
    span = series.step_s * len(series.demanded)

    def y(value: float) -> float:
        return top + plot_height * (1 - value / ceiling)

    def outline(values: Sequence[float]) -> str:
        dx = plot_width / len(values)
        moves = [f"M{LEFT},{y(values[0]):.1f}"]
        moves += [f"V{y(value):.1f}H{LEFT + (index + 1) * dx:.1f}" for index, value in enumerate(values)]
        return "".join(moves)

    def area(values: Sequence[float]) -> str:
        return f"{outline(values)}V{y(0):.1f}H{LEFT}Z"

    parts = [
        _open(
            "gpus", height, "GPUs over time", "GPUs demanded, bought and busy, averaged over equal stretches of time."
        )
    ]
    parts += _levels(step, ceiling, y)
    parts.append(f'<path class="bought" d="{area(series.bought)}"/>')
    parts.append(f'<path class="busy" d="{area(series.busy)}"/>')
    parts.append(f'<path class="bought-line" d="{outline(series.bought)}"/>')
    parts.append(f'<path class="demanded-line" d="{outline(series.demanded)}"/>')
    parts += _time_axis(span, y(0), plot_width)
    group = max(1, math.ceil(len(series.demanded) / _HOVER_BANDS))
    dx = plot_width / len(series.demanded)
    for index in range(0, len(series.demanded), group):
        chunk = slice(index, index + group)
        size = len(series.demanded[chunk])
        told = ", ".join(
            f"{name} {sum(values[chunk]) / size:.1f}"
            for name, values in (("demanded", series.demanded), ("bought", series.bought), ("busy", series.busy))
        )
        when = wording.moment(series.t0 + index * series.step_s, series.t0)
        parts.append(
            f'<rect class="hover" x="{LEFT + index * dx:.1f}" y="{top}" width="{size * dx:.1f}" height="{plot_height}">'
            f"<title>{escape(when)}: {escape(told)} GPUs</title></rect>"
        )
    parts.append("</svg>")
    return "".join(parts)


def wait_histogram(waits: Sequence[float], p99_s: float) -> str:
    """Pods by how long they waited; only those that waited for more than a second."""
    width, height, top, bottom, left = 520, 240, 16, 40, 46
    waited = [wait for wait in waits if wait > 1]
    # The range ends where nearly all are: one pod that never started must not squeeze the rest into one bar.
    cap = sorted(waited)[math.ceil(0.98 * len(waited)) - 1] if waited else 1.0
    step = _nice(max(cap, 10) / 16)
    bins = max(1, math.ceil(cap / step + 1e-9))
    counts = [0] * (bins + 1)
    for wait in waited:
        counts[min(int((wait - 1e-9) / step), bins)] += 1
    beyond = counts.pop()
    if beyond:
        counts.append(beyond)
    most = max((*counts, 1))
    level = max(1, _nice(most / 4))
    ceiling = level * math.ceil(most / level)
    plot_width, plot_height = width - left - RIGHT, height - top - bottom
    dx = plot_width / len(counts)

    def y(value: float) -> float:
        return top + plot_height * (1 - value / ceiling)

    parts = [
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-labelledby="waits-title">',
        '<title id="waits-title">Pods by wait in seconds</title>',
    ]
    parts += _levels(level, ceiling, y, left=left, right=width - RIGHT)
    every = max(1, math.ceil(len(counts) / 6))
    for index, number in enumerate(counts):
        low, high = index * step, (index + 1) * step
        more = bool(beyond) and index == len(counts) - 1
        told = f"more than {wording.plain(low)} s" if more else f"{wording.plain(low)} to {wording.plain(high)} s"
        x = left + index * dx
        parts.append(
            f'<rect class="{"bought" if more else "busy"}" x="{x + 1:.1f}" y="{y(number):.1f}" '
            f'width="{max(dx - 2, 1):.1f}" height="{y(0) - y(number):.1f}" rx="1.5">'
            f"<title>{escape(told)}: {number} pods</title></rect>"
        )
        if index % every == 0:
            label = f"> {wording.plain(low)}" if more else wording.plain(low)
            parts.append(f'<text x="{x:.1f}" y="{y(0) + 16:.1f}" text-anchor="middle">{escape(label)}</text>')
    parts.append(f'<line class="axis" x1="{left}" x2="{width - RIGHT}" y1="{y(0):.1f}" y2="{y(0):.1f}"/>')
    if 1 < p99_s <= step * bins:
        x = left + p99_s / step * dx
        side = ("end", -6) if x > width * 0.6 else ("start", 6)
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 6}" y2="{y(0):.1f}"/>')
        parts.append(
            f'<text class="strong" x="{x + side[1]:.1f}" y="{top + 4}" text-anchor="{side[0]}">'
            f"p99 of all pods: {escape(wording.seconds(p99_s))}</text>"
        )
    parts.append(f'<text x="{width - RIGHT}" y="{height - 4}" text-anchor="end">wait, seconds</text></svg>')
    return "".join(parts)


def machine_lanes(run: Run) -> str:
    """Each machine a bar from its order to its end; machines that do not overlap share a lane."""
    lanes: list[float] = []
    placed: list[tuple[int, MachineRecord, float]] = []
    for machine in sorted(run.machines, key=lambda machine: (machine.ordered_s, machine.claim)):
        end_s = max(billed_until(machine, run.t1), machine.ordered_s)
        lane = next((index for index, busy_until in enumerate(lanes) if busy_until <= machine.ordered_s), len(lanes))
        if lane == len(lanes):
            lanes.append(end_s)
        else:
            lanes[lane] = end_s
        placed.append((lane, machine, end_s))
    pitch = 20 if len(lanes) <= 24 else max(4, 480 // len(lanes))
    height = 12 + pitch * max(1, len(lanes)) + 28
    plot_width = WIDTH - LEFT - RIGHT
    scale = plot_width / (run.t1 - run.t0)
    parts = [
        _open("machines", height, "Machines over time", "One bar per machine, from its order to its termination."),
        *_time_axis(run.t1 - run.t0, 12 + pitch * max(1, len(lanes)), plot_width),
    ]
    for lane, machine, end_s in placed:
        x = LEFT + (machine.ordered_s - run.t0) * scale
        y = 12 + lane * pitch
        ready_s = end_s if machine.ready_s is None else min(machine.ready_s, end_s)
        width = max((end_s - machine.ordered_s) * scale - 0.6, 0.8)
        ended = "still there" if machine.terminated_s is None else wording.moment(machine.terminated_s, run.t0)
        told = (
            f"{machine.claim}: {machine.instance_type}, {machine.capacity_type}, {machine.gpus} GPUs, ordered "
            f"{wording.moment(machine.ordered_s, run.t0)}, terminated {ended}"
        )
        kind = "spot" if machine.capacity_type == "spot" else "busy"
        boot = min(max((ready_s - machine.ordered_s) * scale, 0.8), width)
        thick = pitch - 4 if pitch > 8 else pitch - 1
        parts.append(
            f"<g><title>{escape(told)}</title>"
            f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{thick}" '
            f'rx="{2 if width > 5 else 0}"/>'
            f'<rect class="boot" x="{x:.1f}" y="{y}" width="{boot:.1f}" height="{thick}"/></g>'
        )
    parts.append(f'<text x="{LEFT - 8}" y="24" text-anchor="end">1</text>')
    if len(lanes) > 1 and pitch >= 12:
        parts.append(f'<text x="{LEFT - 8}" y="{12 + len(lanes) * pitch - 8}" text-anchor="end">{len(lanes)}</text>')
    parts.append("</svg>")
    return "".join(parts)


def _open(name: str, height: int, title: str, text: str) -> str:
    return (
        f'<svg class="wide" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="{name}-title {name}-text">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-text">{escape(text)}</desc>'
    )


def _levels(
    step: float, ceiling: float, y: Callable[[float], float], *, left: int = LEFT, right: int = WIDTH - RIGHT
) -> Iterable[str]:
    for index in range(round(ceiling / step) + 1):
        value = index * step
        yield f'<line class="grid" x1="{left}" x2="{right}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
        label = escape(wording.plain(value))
        yield f'<text x="{left - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{label}</text>'


def _time_axis(span_s: float, base: float, plot_width: float) -> Iterable[str]:
    steps = [
        600,
        1800,
        3600,
        2 * 3600,
        6 * 3600,
        12 * 3600,
        *(days * 86_400 for days in (1, 2, 5, 10, 30, 60, 180, 365)),
    ]
    step = next((step for step in steps if span_s / step <= 13), steps[-1])
    yield f'<line class="axis" x1="{LEFT}" x2="{LEFT + plot_width}" y1="{base:.1f}" y2="{base:.1f}"/>'
    for index in range(int(span_s / step) + 1):
        x = LEFT + index * step / span_s * plot_width
        day = index * step / 86_400
        label = f"day {int(day) + 1}" if step >= 86_400 else f"{wording.plain(index * step / 3600)} h"
        # The last tick stands at the very end, where a label would run over the edge.
        anchor = "end" if x > LEFT + plot_width - 16 else "middle"
        if step < 86_400 or index * step < span_s:
            yield f'<text x="{x:.1f}" y="{base + 17:.1f}" text-anchor="{anchor}">{escape(label)}</text>'
            yield f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{base:.1f}" y2="{base + 4:.1f}"/>'


def _nice(value: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is not below ``value``; at least 1."""
    if value <= 1:
        return 1.0
    power = 10 ** math.floor(math.log10(value))
    return next(float(factor * power) for factor in (1, 2, 5, 10) if factor * power >= value)
