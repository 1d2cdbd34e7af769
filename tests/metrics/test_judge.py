"""Properties of the judge that no table of cases can show."""

import math

from hypothesis import given
from hypothesis import strategies as st

from autoscaler.metrics.judge import judge
from autoscaler.metrics.queries import LOOK_BACK_S, QUERIES, Query
from autoscaler.metrics.rows import Answer, Row, Unanswered
from policies.signals import SignalState

AT = 1_700_000_000.0

label_names = st.sampled_from(
    ["UUID", "uuid", "gpu", "Hostname", "pod", "namespace", "exported_pod", "pod_name", "job", "instance", "GPU_I_ID"]
)
all_labels = st.dictionaries(label_names, st.sampled_from(["a", "b", "GPU-1", "dcgm-exporter-x"]), max_size=6)
values = st.one_of(st.none(), st.floats(), st.floats(0, 100), st.just(9223372036854775794.0))
rows = st.builds(
    Row,
    labels=all_labels,
    value=values,
    time_s=st.floats(AT - LOOK_BACK_S, AT),
    ended=st.booleans(),
)
answers = st.one_of(st.lists(rows, max_size=8).map(tuple), st.just(Unanswered(detail="no connection")))
queries = st.sampled_from(list(QUERIES.values()))


@given(query=queries, data=st.lists(answers, min_size=2, max_size=2))
def test_any_rows_give_signals_that_can_be_acted_on(query: Query, data: list[Answer]) -> None:
    signals = judge(query, {m.name: answer for m, answer in zip(query.metrics, data, strict=False)}, AT)

    assert signals
    for signal in signals:
        assert signal.name == query.name
        if signal.valid:
            assert signal.value is not None
            assert math.isfinite(signal.value)
            assert query.low <= signal.value <= query.high
            assert signal.age_s is not None
            assert 0 <= signal.age_s <= query.max_age_s
        else:
            assert signal.detail
        if signal.state in {SignalState.ABSENT, SignalState.UNREACHABLE}:
            assert (signal.labels, signal.value, signal.age_s) == ({}, None, None)
    labelled = [tuple(sorted(signal.labels.items())) for signal in signals if signal.labels]
    asked = [answer for _, answer in zip(query.metrics, data, strict=False)]
    assert any(s.state is SignalState.UNREACHABLE for s in signals) == any(isinstance(a, Unanswered) for a in asked)
    assert labelled == sorted(labelled)


@given(query=queries, data=st.lists(rows, max_size=8), order=st.randoms(use_true_random=False))
def test_the_order_of_the_rows_means_nothing(query: Query, data: list[Row], order: object) -> None:
    import random

    assert isinstance(order, random.Random)
    # A source names each series once.
    series = list({tuple(sorted(row.labels.items())): row for row in data}.values())
    shuffled = order.sample(series, len(series))
    name = query.metrics[0].name
    first, second = judge(query, {name: tuple(series)}, AT), judge(query, {name: tuple(shuffled)}, AT)
    assert [(s.labels, s.state, s.value, s.age_s) for s in first] == [
        (s.labels, s.state, s.value, s.age_s) for s in second
    ]


@given(value=st.floats(0, 100), age_s=st.floats(0, 180), pods=st.integers(1, 16))
def test_a_device_is_worth_the_same_however_many_pods_share_it(value: float, age_s: float, pods: int) -> None:
    query = QUERIES["gpu_utilisation"]
    copies = tuple(
        Row(labels={"UUID": "GPU-1", "pod": f"p{index}"}, value=value, time_s=AT - age_s) for index in range(pods)
    )
    (signal,) = judge(query, {query.metrics[0].name: copies, query.metrics[1].name: ()}, AT)
    assert (signal.state, signal.value) == (SignalState.VALID, value)


@given(low=st.floats(0, 100), high=st.floats(0, 100), ages=st.tuples(st.floats(0, 180), st.floats(0, 180)))
def test_targets_that_disagree_never_look_idle(low: float, high: float, ages: tuple[float, float]) -> None:
    query = QUERIES["gpu_utilisation"]
    data = tuple(
        Row(labels={"UUID": "GPU-1", "job": job}, value=value, time_s=AT - age_s)
        for job, value, age_s in zip("ab", (low, high), ages, strict=True)
    )
    (signal,) = judge(query, {query.metrics[0].name: data, query.metrics[1].name: ()}, AT)
    if abs(low - high) > query.tolerance:
        assert (signal.state, signal.value) == (SignalState.INVALID, None)
    else:
        assert (signal.state, signal.value) == (SignalState.VALID, max(low, high))
