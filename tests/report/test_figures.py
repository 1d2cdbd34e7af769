"""Figures, worked out by hand."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.model.records import MachineRecord, Stay
from autoscaler.report import figures, series
from autoscaler.report.moves import moves
from autoscaler.report.run import Move, PodRecord, ReportError, Run


def test_every_figure_of_the_run_by_hand(run: Run) -> None:
    found = figures.compute(run)
    # a: 8 GPUs for 1 h; b: 8 GPUs for 3900 s.
    assert found.billed_gpu_hours == pytest.approx(8 + 8 * 3900 / 3600, abs=1e-6)
    assert found.cost_usd == pytest.approx(8 + 8 * 3900 / 3600, abs=1e-6)
    assert (found.arrived, found.finished, found.running, found.lost, found.waiting) == (4, 2, 1, 0, 1)
    # 180, 80, 0, and 100 for the pod that never started.
    assert (found.wait_mean_s, found.wait_p99_s) == (90, 180)
    assert (found.moves, found.moves_max_24h) == (1, 1)
    assert (found.launched, found.terminated, found.machines_running, found.leaked) == (2, 1, 1, 0)
    shares = dict(found.by_namespace)
    # A GPU-hour costs one dollar here. x held 3360 + 300 s of a whole device, y 720 + 200 s of half of one.
    assert shares["x"].gpu_hours == pytest.approx(3660 / 3600, abs=1e-6)
    assert shares["x"].cost_usd == pytest.approx(3660 / 3600, abs=1e-6)
    assert shares["y"].cost_usd == pytest.approx(460 / 3600, abs=1e-6)
    assert [name for name, _ in found.by_namespace] == ["x", "y", figures.IDLE]


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([], 0.99, 0),
        ([5], 0.99, 5),
        (list(range(1, 101)), 0.99, 99),
        (list(range(1, 102)), 0.99, 100),
        ([3, 1, 2], 0.5, 2),
        ([1, 2, 3, 4], 0.5, 2),
    ],
)
def test_percentile_is_the_nearest_rank(values: list[float], share: float, expected: float) -> None:
    assert figures.percentile(values, share) == expected


@pytest.mark.parametrize(
    ("times", "expected"), [([], 0), ([1], 1), ([0, 86_400], 1), ([0, 86_399], 2), ([5, 1, 90_000, 90_001, 86_404], 3)]
)
def test_moves_in_any_day(times: list[float], expected: int) -> None:
    assert figures.most_within(times, 86_400) == expected


@st.composite
def runs(draw: st.DrawFn) -> Run:
    t1 = 1000.0
    second = st.floats(0, t1, allow_nan=False)
    machines: list[MachineRecord] = []
    for index in range(draw(st.integers(1, 3))):
        ordered_s, end_s = sorted((draw(second), draw(second)))
        machines.append(
            MachineRecord(
                claim=f"c{index}",
                machine_id=f"i{index}",
                instance_type="t",
                capacity_type="spot",
                gpus=draw(st.integers(1, 8)),
                ordered_s=ordered_s,
                ready_s=ordered_s,
                terminated_s=draw(st.sampled_from([None, end_s])),
            )
        )
    pods: list[PodRecord] = []
    stays: list[Stay] = []
    for index in range(draw(st.integers(0, 6))):
        start_s, end_s = sorted((draw(second), draw(second)))
        namespace = draw(st.sampled_from(["x", "y", "z"]))
        milli = draw(st.integers(1, 1000))
        pods.append(
            PodRecord(name=f"p{index}", namespace=namespace, arrival_s=0, start_s=start_s, end_s=end_s, gpu_milli=milli)
        )
        claim = draw(st.sampled_from([machine.claim for machine in machines]))
        stays.append(
            Stay(
                pod=f"p{index}",
                namespace=namespace,
                claim=claim,
                devices=(0,),
                milli=milli,
                start_s=start_s,
                end_s=draw(st.sampled_from([None, end_s])),
            )
        )
    return Run(
        title="any",
        t0=0,
        t1=t1,
        demanded_gpu_hours=1,
        pods=tuple(pods),
        stays=tuple(stays),
        machines=tuple(machines),
        prices={machine.claim: draw(st.integers(0, 10**8)) for machine in machines},
        moves=(),
        decisions=(),
        launched=len(machines),
        leaked=0,
        wall_s=0,
        peak_rss_mib=0,
    )


@given(run=runs())
def test_namespaces_sum_to_the_whole(run: Run) -> None:
    found = figures.compute(run)
    micro = 1_000_000
    assert sum(round(share.cost_usd * micro) for _, share in found.by_namespace) == round(found.cost_usd * micro)
    assert sum(round(share.gpu_hours * micro) for _, share in found.by_namespace) == round(
        found.billed_gpu_hours * micro
    )
    billed = sum(machine.gpus * (figures.billed_until(machine, run.t1) - machine.ordered_s) for machine in run.machines)
    assert found.billed_gpu_hours == pytest.approx(billed / 3600, abs=1e-6)


@given(run=runs())
def test_the_curves_hold_the_same_area_as_the_figures(run: Run) -> None:
    curves = series.over_time(run, buckets=37)
    area = sum(curves.bought) * curves.step_s / 3600
    assert area == pytest.approx(figures.compute(run).billed_gpu_hours, abs=1e-5)


def test_steps_are_averaged_into_buckets() -> None:
    spans = [(0.0, 10.0, 2.0), (5.0, 25.0, 4.0), (-10.0, 100.0, 1.0), (12.0, 12.0, 9.0)]
    assert series.means(spans, 0, 40, 4) == pytest.approx((1 + 2 + 2, 1 + 4, 1 + 2, 1))


def test_a_lost_pod_is_neither_finished_nor_running(run: Run) -> None:
    pods = tuple(dataclasses.replace(pod, lost=pod.name == "short") for pod in run.pods)
    found = figures.compute(dataclasses.replace(run, pods=pods))
    assert (found.lost, found.finished, found.running) == (1, 1, 1)


def test_a_second_stay_is_a_move(run: Run) -> None:
    assert moves(run.stays) == (Move(pod="moved", time_s=3480),)


def test_a_run_that_cannot_be_is_refused(run: Run) -> None:
    with pytest.raises(ReportError, match="none for claim 'b'"):
        dataclasses.replace(run, prices={"a": 1})
    with pytest.raises(ReportError, match="'moved' is there twice"):
        dataclasses.replace(run, pods=(*run.pods, run.pods[0]))
    with pytest.raises(ReportError, match="is not among the run's pods"):
        dataclasses.replace(run, pods=run.pods[1:])
    with pytest.raises(ReportError, match="t1="):
        dataclasses.replace(run, t1=run.t0)


def test_a_second_machine_of_one_claim_is_billed_too(run: Run) -> None:
    again = dataclasses.replace(run.machines[0], machine_id="i-a2", ordered_s=5400, ready_s=5500, terminated_s=7200)
    found = figures.compute(dataclasses.replace(run, machines=(*run.machines, again)))
    assert found.billed_gpu_hours == pytest.approx(8 + 8 * 3900 / 3600 + 4, abs=1e-6)
