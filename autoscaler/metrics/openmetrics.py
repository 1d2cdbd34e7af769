"""Series as OpenMetrics text, the form that ``promtool tsdb create-blocks-from openmetrics`` loads and exporters serve.

Pure. Every series is written as a gauge, so that sample names stay as they are. Raises InvalidRequest for names that
the format cannot carry.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping

from vgpu.errors import InvalidRequest

Sample = tuple[str, Mapping[str, str], float, float]
"""Metric name, labels, Unix seconds, value."""

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


def lines(samples: Iterable[Sample], *, with_times: bool = True) -> Iterator[str]:
    """The text, line by line without line ends, closed by ``# EOF``. Samples of one metric and of one series are
    brought together, in the order of their first appearance. Without times it is what an exporter serves now.
    """
    grouped: dict[str, dict[tuple[tuple[str, str], ...], list[tuple[float, float]]]] = {}
    for metric, labels, time_s, value in samples:
        key = tuple(labels.items())
        grouped.setdefault(metric, {}).setdefault(key, []).append((time_s, value))
    for metric, series in grouped.items():
        if not _NAME.fullmatch(metric):
            raise InvalidRequest(f"metric={metric!r}: not a metric name; use letters, digits, _ and :")
        yield f"# TYPE {metric} gauge"
        for key, points in series.items():
            named = f"{metric}{{{','.join(_label(name, value) for name, value in key)}}}" if key else metric
            for time_s, value in points:
                yield f"{named} {_number(value)} {time_s:.3f}" if with_times else f"{named} {_number(value)}"
    yield "# EOF"


def _label(name: str, value: str) -> str:
    if not _LABEL.fullmatch(name):
        raise InvalidRequest(f"label={name!r}: not a label name; use letters, digits and _")
    escaped = value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return f'{name}="{escaped}"'


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)
