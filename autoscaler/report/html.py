"""``report.html``: one self-contained page that opens offline. No script, no outside resource, well-formed XML.

Everything that comes from the run is escaped. Pure: the same run gives the same bytes. Must not know: files, clusters.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from autoscaler import __version__
from autoscaler.report import figures as figures_of
from autoscaler.report import reasons, series, svg, wording
from autoscaler.report.figures import IDLE, Figures
from autoscaler.report.run import Run
from autoscaler.report.style import CSS
from autoscaler.report.svg import escape

MOST_REASONS = 40
"""Rows of the decision table; a log has fewer kinds than this unless something is wrong."""

_DEFINITIONS = (
    ("Billed", "GPUs of each machine times the time from its order to its termination, or to the end of the run."),
    ("Demanded", "GPU share times run time of each pod, up to the end of the run."),
    ("Wait", "From arrival to start, over all pods that arrived. A pod that never started has waited until the end."),
    ("p99", "Nearest rank: the smallest wait that 99 % of the pods did not exceed."),
    ("Moves in 24 hours", "The most in any stretch of 24 hours."),
    ("Cost by namespace", "Each machine's cost by the GPU share its pods held and for how long; the rest is idle."),
)


def render(run: Run, figures: Figures) -> str:
    """The whole page."""
    body = "\n".join(
        (
            _header(run, figures),
            _tiles(figures),
            _gpus(run),
            f'<div class="pair">{_waits(run, figures)}{_costs(figures)}</div>',
            _machines(run),
            _decisions(run),
            *(_extra(key, section, run, figures) for key, section in run.extra.items()),
            _definitions(),
            _footer(run),
        )
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>Tidegate: {escape(run.title)}</title><style>{CSS}</style></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def _header(run: Run, figures: Figures) -> str:
    ratio = figures.billed_per_demanded
    factor = "" if ratio is None else f", {ratio:.3f} times as many"
    lead = (
        f"{wording.count(figures.arrived)} pods asked for {wording.count(figures.demanded_gpu_hours)} GPU-hours; "
        f"{wording.count(figures.billed_gpu_hours)} were bought{factor}, for {wording.dollars(figures.cost_usd)}. "
        f"A pod waited {wording.seconds(figures.wait_mean_s)} on average."
    )
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in run.notes)
    length = wording.plain(round((run.t1 - run.t0) / 86_400, 2))
    return (
        f'<header><div class="brand">Tidegate</div><h1>{escape(run.title)}</h1>'
        f"<p>{length} days, from second {wording.plain(run.t0)} to {wording.plain(run.t1)}</p>"
        f'<p class="lead">{escape(lead)}</p>{notes}</header>'
    )


def _tiles(figures: Figures) -> str:
    ratio = figures.billed_per_demanded
    gone = f"{wording.count(figures.terminated)} terminated, {wording.count(figures.machines_running)} running"
    lost = _verdict(figures.lost, "lost")
    leaked = _verdict(figures.leaked, "leaked")
    states = f"{wording.count(figures.finished)} finished, {wording.count(figures.running)} running"
    waiting = f", {wording.count(figures.waiting)} waiting" if figures.waiting else ""
    tiles = (
        (
            "Billed / demanded",
            "none" if ratio is None else f"{ratio:.3f}",
            f"{wording.count(figures.billed_gpu_hours)} of {wording.count(figures.demanded_gpu_hours)} GPU-hours",
        ),
        ("Cost", _short_dollars(figures.cost_usd), _hourly(figures)),
        ("Bought and idle", *_idle(figures)),
        ("Mean wait", wording.seconds(figures.wait_mean_s), "from arrival to start"),
        ("p99 wait", wording.seconds(figures.wait_p99_s), "99 of 100 pods waited no longer"),
        ("Moves", wording.count(figures.moves), f"at most {wording.count(figures.moves_max_24h)} in 24 hours"),
        ("Machines", wording.count(figures.launched), f"{gone}, {leaked}"),
        ("Pods", wording.count(figures.arrived), f"{states}{waiting}, {lost}"),
    )
    items = "".join(
        f'<li><span class="name">{escape(name)}</span><span class="big">{escape(big)}</span>'
        f'<span class="more">{more}</span></li>'
        for name, big, more in tiles
    )
    return f'<ul class="tiles">{items}</ul>'


def _verdict(number: int, word: str) -> str:
    return f'<span class="{"bad" if number else "good"}">{wording.count(number)} {word}</span>'


def _hourly(figures: Figures) -> str:
    if figures.billed_gpu_hours <= 0:
        return "nothing was billed"
    return f"{wording.dollars(figures.cost_usd / figures.billed_gpu_hours)} per GPU-hour billed"


def _short_dollars(value: float) -> str:
    return wording.dollars(value) if abs(value) < 1000 else f"${wording.count(value)}"


def _idle(figures: Figures) -> tuple[str, str]:
    idle = dict(figures.by_namespace)[IDLE]
    if figures.billed_gpu_hours <= 0:
        return "none", "nothing was billed"
    share = 100 * idle.gpu_hours / figures.billed_gpu_hours
    return f"{share:.1f} %", f"{wording.count(idle.gpu_hours)} GPU-hours, {_short_dollars(idle.cost_usd)}"


def _gpus(run: Run) -> str:
    curves = series.over_time(run)
    legend = _legend(
        (
            ("demanded", "demanded: arrived and not finished"),
            ("bought", "bought: billed"),
            ("busy", "busy: held by pods"),
        ),
        rules=("demanded",),
    )
    stretch = wording.seconds(curves.step_s)
    return (
        f"<section><h2>GPUs demanded, bought and busy</h2><p>Means over {stretch}. The pale area above the full one is "
        f'bought and idle.</p>{legend}<div class="scroll">{svg.gpus_over_time(curves)}</div></section>'
    )


def _waits(run: Run, figures: Figures) -> str:
    waits = figures_of.wait_seconds(run)
    at_once = sum(1 for wait in waits if wait <= 1)
    share = f"{100 * at_once / len(waits):.1f} %" if waits else "none"
    text = (
        f"{wording.count(at_once)} of {wording.count(len(waits))} pods ({share}) started within a second. "
        "The chart shows the others."
    )
    chart = svg.wait_histogram(waits, figures.wait_p99_s) if at_once < len(waits) else ""
    return f"<section><h2>Waits</h2><p>{text}</p>{chart}</section>"


def _costs(figures: Figures) -> str:
    most = max((share.cost_usd for _, share in figures.by_namespace), default=0) or 1
    rows = "".join(
        f'<tr><th scope="row">{escape("idle" if name == IDLE else name)}</th>'
        f'<td class="n">{wording.count(share.gpu_hours)}</td><td class="n">{wording.dollars(share.cost_usd)}</td>'
        f'<td class="bars">{_bar(share.cost_usd / most, idle=name == IDLE)}</td></tr>'
        for name, share in figures.by_namespace
    )
    return (
        "<section><h2>Cost by namespace</h2><p>By the GPU share held; idle is what nobody held.</p><table><thead><tr>"
        '<th scope="col">Namespace</th><th scope="col" class="n">GPU-hours</th><th scope="col" class="n">Cost</th>'
        f'<th scope="col"><span class="small"></span></th></tr></thead><tbody>{rows}</tbody></table></section>'
    )


def _bar(share: float, *, idle: bool = False) -> str:
    return f'<div class="bar{" idle" if idle else ""}" style="width:{max(0.0, min(1.0, share)) * 100:.1f}%"></div>'


def _machines(run: Run) -> str:
    kinds = sorted({machine.capacity_type for machine in run.machines})
    names = [("busy", "on-demand"), ("spot", "spot"), ("boot", "starting")]
    legend = _legend([item for item in names if item[0] != "spot" or "spot" in kinds])
    types = Counter(f"{machine.instance_type} ({machine.capacity_type})" for machine in run.machines)
    told = ", ".join(f"{wording.count(number)} × {name}" for name, number in types.most_common(8)) or "none"
    return (
        f"<section><h2>Machines</h2><p>{escape(told)}. One bar per machine, from order to termination; "
        f"machines that do not overlap share a lane.</p>{legend}"
        f'<div class="scroll">{svg.machine_lanes(run)}</div></section>'
    )


def _legend(items: Iterable[tuple[str, str]], *, rules: Sequence[str] = ()) -> str:
    entries = "".join(
        f'<li><span class="{"rule" if name in rules else ""}" '
        f'style="background:var(--{"demanded" if name == "boot" else name})"></span>{escape(text)}</li>'
        for name, text in items
    )
    return f'<ul class="legend">{entries}</ul>'


def _decisions(run: Run) -> str:
    counts: Counter[tuple[str, str]] = Counter()
    latest: dict[tuple[str, str], str] = {}
    for decision in run.decisions:
        kind = (decision.action, decision.reason)
        counts[kind] += 1
        latest[kind] = decision.subject
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    most = ordered[0][1] if ordered else 1
    rows = "".join(
        f'<tr><th scope="row">{escape(action)}</th><td>{escape(reason)}<br/>'
        f'<span class="small">{escape(reasons.meaning(reason))}</span></td>'
        f'<td class="n">{wording.count(number)}</td><td class="bars">{_bar(number / most)}</td>'
        f"<td><code>{escape(latest[action, reason])}</code></td></tr>"
        for (action, reason), number in ordered[:MOST_REASONS]
    )
    left = len(ordered) - MOST_REASONS
    more = f'<p class="small">{left} rarer kinds are left out here.</p>' if left > 0 else ""
    return (
        f"<section><h2>Decisions by reason</h2><p>{wording.count(len(run.decisions))} decisions. "
        "<code>tidegate explain --from DIR SUBJECT</code> tells the story of any pod, machine or decision.</p>"
        '<div class="scroll"><table><thead><tr><th scope="col">Action</th><th scope="col">Reason</th>'
        '<th scope="col" class="n">Decisions</th><th scope="col"></th><th scope="col">Latest subject</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{more}</section>"
    )


def _extra(key: str, section: Any, run: Run, figures: Figures) -> str:
    heading = escape(wording.heading(key))
    return f'<section><h2>{heading}</h2><div class="scroll">{_section(section, run, figures)}</div></section>'


def _section(section: Any, run: Run, figures: Figures) -> str:
    """Rows by name, rows, or values; values that this run has too stand beside its own."""
    if isinstance(section, Mapping):
        mapping = cast("Mapping[str, Any]", section)
        if _is_table(list(mapping.values())) and _alike(list(mapping.values())):
            return _rows_table([{"": wording.title(str(name)), **item} for name, item in mapping.items()])
        return _values_table(mapping, run, figures)
    if isinstance(section, Sequence) and not isinstance(section, str):
        items = cast("Sequence[Any]", section)
        if items and all(isinstance(item, Mapping) for item in items):
            return _rows_table(cast("Sequence[Mapping[str, Any]]", items))
    return f"<p>{escape(wording.value(section))}</p>"


def _alike(rows: Sequence[Mapping[str, Any]]) -> bool:
    return all(set(row) == set(rows[0]) for row in rows) and len(rows) > 1


def _values_table(mapping: Mapping[str, Any], run: Run, figures: Figures) -> str:
    tables = {key: item for key, item in mapping.items() if _is_table(item)}
    own = wording.flatten(figures_of.by_name(run, figures))
    flat = wording.flatten({key: item for key, item in mapping.items() if key not in tables})
    beside = sum(key in own for key in flat) >= 3
    head = (
        '<th scope="col" class="n">This run</th><th scope="col" class="n">That run</th>'
        if beside
        else '<th scope="col"></th>'
    )
    lines: list[str] = []
    for key, item in flat.items():
        if key == "schema":
            continue
        kind = ' class="n"' if beside or isinstance(item, int | float) else ""
        mine = f'<td class="n">{escape(wording.value(own[key]) if key in own else "")}</td>' if beside else ""
        named, shown = escape(wording.title(key)), escape(wording.value(item))
        lines.append(f'<tr><th scope="row">{named}</th>{mine}<td{kind}>{shown}</td></tr>')
    rest = "".join(
        f"<h3>{escape(wording.title(key))}</h3>{_section(item, run, figures)}" for key, item in tables.items()
    )
    if not lines:
        return rest
    return (
        f'<table><thead><tr><th scope="col">Figure</th>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>{rest}'
    )


def _is_table(item: Any) -> bool:
    if not isinstance(item, list | tuple):
        return False
    entries = cast("Sequence[Any]", item)
    return bool(entries) and all(isinstance(entry, Mapping) for entry in entries)


def _rows_table(rows: Sequence[Mapping[str, Any]]) -> str:
    flat = [wording.flatten(row) for row in rows]
    columns = list(dict.fromkeys(key for row in flat for key in row))
    numeric = {key for key in columns if all(isinstance(row.get(key, 0), int | float) for row in flat)}
    head = "".join(
        f'<th scope="col"{_number_class(key in numeric)}>{escape(wording.title(key))}</th>' for key in columns
    )
    lines = "".join(
        "<tr>"
        + "".join(
            f"<td{_number_class(key in numeric)}>{escape(wording.value(row[key])) if key in row else ''}</td>"
            for key in columns
        )
        + "</tr>"
        for row in flat
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"


def _number_class(numeric: bool) -> str:
    return ' class="n"' if numeric else ""


def _definitions() -> str:
    entries = "".join(f"<li><strong>{escape(name)}.</strong> {escape(text)}</li>" for name, text in _DEFINITIONS)
    return f"<details><summary>What the figures mean</summary><ul>{entries}</ul></details>"


def _footer(run: Run) -> str:
    return (
        f"<footer>Tidegate {escape(__version__)}. The run took {escape(wording.seconds(run.wall_s))} and at most "
        f"{wording.count(run.peak_rss_mib)} MiB of memory. <code>machines.csv</code> and "
        "<code>placements.csv</code> beside this page suffice to recompute every figure.</footer>"
    )
