"""Named queries as PromQL. Pure text; knows no server.

An instant query stamps its answer with the time of asking and forgets a series after five minutes, so the age of a
value never comes from there. One expression asks for three things at once, told apart by a label: the value and the
``timestamp()`` of each series that an instant query sees, and the last value of each that it sees no longer. When the
latter were scraped is a second question, asked only where there are any.
"""

import json
import re
from collections.abc import Iterable

from autoscaler.metrics.queries import LOOK_BACK_S, Metric, Query

PART = "tidegate_part"
"""Label that tells the parts of a newest-sample expression apart."""

VALUE, TIME, LAST_VALUE = "value", "time", "last_value"

SEARCH_STEP_S = 60
"""Step, seconds, at which the last times of very many ended series are searched. Their ages come out up to this much
too old, never too young. Measured: a search through an hour of 5,000 series at 60 s takes one second, at 10 s six."""

_LOOK_BACK = f"{LOOK_BACK_S:.0f}s"


def newest(query: Query, metric: Metric) -> str:
    """Expression for the newest sample of every series of ``metric`` within the look-back."""
    now = _over(metric, "{}")
    # A rate needs samples around now: of an ended series only that it was there is known.
    value = now if query.rate_window_s is None else _over(metric, f"rate({{}}[{_ms(query.rate_window_s)}ms])")
    parts = {VALUE: value, TIME: _over(metric, "timestamp({})"), LAST_VALUE: _ended(metric, "last_over_time({}[%s])")}
    return " or ".join(f'label_replace({text}, "{PART}", "{part}", "", "")' for part, text in parts.items())


def raw(metric: Metric, label: str, values: Iterable[str]) -> str:
    """Expression for every sample within the look-back, with its own time, of the series whose ``label`` is in
    ``values``.
    """
    regex = "|".join(re.escape(value) for value in sorted(values))
    return f"{metric.name}{{{label}=~{json.dumps(regex)}}}[{_LOOK_BACK}]"


def search(metric: Metric) -> str:
    """Expression for the last time, to within ``SEARCH_STEP_S``, of every series that an instant query does not see."""
    return _ended(metric, f"max_over_time(timestamp({{}})[%s:{SEARCH_STEP_S}s])")


def count(metric: Metric) -> str:
    """Expression for the number of series that an instant query sees."""
    return f"count({_over(metric, '{}')})"


def _ended(metric: Metric, function: str) -> str:
    return f"{_over(metric, function % _LOOK_BACK)} unless {_over(metric, '{}')}"


def on_grid(query: Query, metric: Metric, step_s: float) -> str:
    """Expression for a range query: the newest sample that is young enough, or the largest of a longer step."""
    if step_s <= query.max_age_s:
        # The second operand drops what has ended, which a window alone would hold on to.
        return f"{_over(metric, f'last_over_time({{}}[{_open(query.max_age_s)}])')} and {_over(metric, '{}')}"
    return _over(metric, f"max_over_time({{}}[{_open(step_s)}])")


def selector(metric: Metric) -> str:
    if not metric.matchers:
        return metric.name
    # A JSON string is a PromQL string: both escape quotes and backslashes with a backslash.
    return metric.name + "{" + ", ".join(f"{label}=~{json.dumps(regex)}" for label, regex in metric.matchers) + "}"


def _over(metric: Metric, function: str) -> str:
    """``function`` over the series that may answer, in brackets."""
    if not metric.beside:
        return f"({function.format(selector(metric))})"
    names = "|".join(metric.beside)
    targets = f'group by (job, instance) (last_over_time({{__name__=~"{names}"}}[{_LOOK_BACK}]))'
    everywhere = function.format(metric.name)
    return f"({function.format(selector(metric))} or {everywhere} and on (job, instance) {targets})"


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _open(seconds: float) -> str:
    """A window without its oldest edge. Servers before version 3 count that edge, later ones do not; a step must not
    count the last sample of the step before it.
    """
    return f"{_ms(seconds) - 1}ms"
