"""Reading openb pod lists: what is refused, what goes on, and the window of the benchmark."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.backtest import openb
from autoscaler.backtest.traces import TraceError, TraceKind, parse_trace, trace_folder
from vgpu.inventory import Shape

HEADER = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time"
GOOD = "good-1,4000,8192,1,500,,LS,Running,100,700,110"
DAY = 86_400


def write(folder: Path, *rows: str, header: str = HEADER, end: str = "\n") -> Path:
    path = folder / "pods.csv"
    path.write_bytes(end.join((header, *rows, "")).encode())
    return path


@pytest.mark.parametrize(
    ("row", "field", "value"),
    [
        ("bad,,8192,1,500,,LS,Running,100,700,110", "cpu_milli", ""),
        ("bad,4000,8192,1,500,,LS,Running,100", "deletion_time", ""),
        ("bad,4000,lots,1,500,,LS,Running,100,700,110", "memory_mib", "lots"),
        ("bad,4000,81.5,1,500,,LS,Running,100,700,110", "memory_mib", "81.5"),
        ("bad,-4,8192,1,500,,LS,Running,100,700,110", "cpu_milli", "-4"),
        ("bad,4000,8192,1,500,H9000,LS,Running,100,700,110", "gpu_spec", "H9000"),
        ("bad,4000,8192,1,500,T4|,LS,Running,100,700,110", "gpu_spec", "T4|"),
        ("bad,4000,8192,999,1000,,LS,Running,100,700,110", "num_gpu", "999"),
        ("bad,4000,8192,1,0,,LS,Running,100,700,110", "gpu_milli", "0"),
        ("bad,4000,8192,1,1001,,LS,Running,100,700,110", "gpu_milli", "1001"),
        ("bad,4000,8192,2,500,,LS,Running,100,700,110", "gpu_milli", "500"),
        ("bad,4000,8192,0,500,,LS,Running,100,700,110", "gpu_milli", "500"),
        ("bad,4000,8192,0,0,T4,LS,Running,100,700,110", "gpu_spec", "T4"),
        ("bad,4000,8192,1,500,,LS,Running,100,700,701", "deletion_time", "700"),
        ("bad,4000,8192,1,500,,LS,Running,800,700,", "deletion_time", "700"),
        ("bad,4000,8192,1,500,,LS,Running,100,700,90", "scheduled_time", "90"),
        ("bad,4000,8192,1,500,,LS,Running,100,99999999999,110", "deletion_time", "99999999999"),
        ("bad,4000,8192,1,500,,,Running,100,700,110", "qos", ""),
        ("bad,4000,8192,1,500,,a b,Running,100,700,110", "qos", "a b"),
        ("Bad!,4000,8192,1,500,,LS,Running,100,700,110", "name", "Bad!"),
        ("good-1,4000,8192,1,500,,LS,Running,100,700,110", "name", "good-1"),
    ],
)
def test_a_bad_row_is_one_problem_and_the_rest_goes_on(tmp_path: Path, row: str, field: str, value: str) -> None:
    after = GOOD.replace("good-1", "good-2")
    trace = openb.read(write(tmp_path, GOOD, row, after))
    assert [pod.name for pod in trace.pods] == ["good-1", "good-2"]
    (problem,) = trace.problems
    assert (problem.row, problem.pod, problem.field, problem.value) == (3, row.partition(",")[0], field, value)
    assert str(problem).startswith(f"row 3, pod {row.split(',', maxsplit=1)[0]}: {field}={value!r}: ")


def test_too_many_values_and_a_stray_quote_hurt_only_their_row(tmp_path: Path) -> None:
    quote = 'q,4000,8192,1,500,"T4,LS,Running,100,700,110'
    trace = openb.read(write(tmp_path, f"{GOOD},1,2", quote, GOOD))
    assert [problem.row for problem in trace.problems] == [2, 3]
    assert [pod.name for pod in trace.pods] == ["good-1"]


def test_line_ends_byte_order_mark_and_blank_lines_do_not_matter(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD, "", "  ", header="\ufeff" + HEADER, end="\r\n")
    (pod,) = openb.read(path).pods
    assert pod == openb.OpenbPod(
        name="good-1",
        namespace="ls",
        shape=Shape(cpu_milli=4000, memory_mib=8192, gpus=1, milli=500),
        created_s=100,
        scheduled_s=110,
        deleted_s=700,
    )


def test_models_come_from_the_caller(tmp_path: Path) -> None:
    path = write(tmp_path, "p,1,1,1,1000,H100|T4,BE,Running,1,2,1")
    assert len(openb.read(path).problems) == 1
    (pod,) = openb.read(path, openb.KNOWN_MODELS | {"H100"}).pods
    assert pod.shape.models == {"H100", "T4"}


@pytest.mark.parametrize(
    "header", ["", "name,cpu_milli,memory_mib,num_gpu,gpu_milli", HEADER.replace("qos", "class"), HEADER + ",name"]
)
def test_a_wrong_header_refuses_the_file(tmp_path: Path, header: str) -> None:
    with pytest.raises(TraceError, match=r"pods\.csv.*header=") as caught:
        openb.read(write(tmp_path, GOOD, header=header))
    assert caught.value.field == "header"


def test_a_file_that_cannot_be_read_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="file="):
        openb.read(tmp_path)


def test_the_window_cuts_carries_and_clips(tmp_path: Path) -> None:
    def row(name: str, created: int, scheduled: int | None, deleted: int, *, gpus: int = 1, milli: int = 500) -> str:
        return f"{name},1,1,{gpus},{milli},,BE,Running,{created},{deleted},{'' if scheduled is None else scheduled}"

    end = 10 * DAY
    path = write(
        tmp_path,
        row("cpu", 0, 0, end, gpus=0, milli=0),
        row("never", end - 10, None, end),
        row("over-before", 0, 0, 9 * DAY),
        # Created a day before the window, started late: arrives at its start with the rest of its run time.
        row("carried", 8 * DAY, 8 * DAY + 100, 9 * DAY + 3700),
        row("late", end - 1000, end - 500, end, gpus=2, milli=1000),
        row("inside", 9 * DAY + 5, 9 * DAY + 10, 9 * DAY + 1810),
    )
    window = openb.window(openb.read(path), days=1)
    assert (window.t0, window.t1, window.carried) == (9 * DAY, end, 1)
    assert [(pod.name, pod.arrival_s, pod.run_s) for pod in window.pods] == [
        ("carried", 9 * DAY, 3600),
        ("inside", 9 * DAY + 5, 1800),
        ("late", end - 1000, 500),
    ]
    # 3600 s x 0.5 + 1800 s x 0.5 + 500 s x 2 GPUs = 3700 GPU-seconds.
    assert window.demand_gpu_hours == pytest.approx(3700 / 3600)


@pytest.mark.parametrize("days", [0, -1, float("nan"), float("inf")])
def test_a_window_needs_days(tmp_path: Path, days: float) -> None:
    with pytest.raises(TraceError, match="days="):
        openb.window(openb.read(write(tmp_path, GOOD)), days=days)


def test_a_window_without_pods_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no scheduled GPU pod"):
        openb.window(openb.read(write(tmp_path, "bad")))


def test_the_benchmark_window(traces: Path) -> None:
    trace = openb.read(traces / "openb" / "openb_pod_list_default.csv")
    assert (len(trace.pods), trace.problems) == (8152, ())
    window = openb.window(trace)
    assert (len(window.pods), window.carried, round(window.demand_gpu_hours)) == (5567, 30, 26387)
    assert (window.t0, window.t1) == (10_310_960, 12_902_960)
    assert [pod.arrival_s for pod in window.pods] == sorted(pod.arrival_s for pod in window.pods)


@given(data=st.binary(max_size=400))
@settings(max_examples=60, deadline=None)
def test_no_bytes_after_the_header_break_the_reader(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("openb") / "pods.csv"
    path.write_bytes(f"{HEADER}\n{GOOD}\n".encode() + data)
    assert openb.read(path).pods[0].name == "good-1"


def test_trace_values(tmp_path: Path) -> None:
    path = write(tmp_path)
    parsed = parse_trace(f"openb:{path}")
    assert (parsed.kind, parsed.path) == (TraceKind.OPENB, path)
    for text, said in (
        ("openb", "write openb:FILE or servegen:FILE"),
        ("openb:", "write openb:FILE"),
        (f"helios:{path}", "unknown kind 'helios'"),
        (f"servegen:{path}x", "does not exist"),
        (f"openb:{tmp_path}", "is not a file"),
    ):
        with pytest.raises(TraceError, match="--trace") as caught:
            parse_trace(text)
        assert said in str(caught.value)


def test_the_trace_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "repo"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.delenv("TIDEGATE_TRACES", raising=False)
    assert trace_folder() is None
    (tmp_path / "shared" / "data").mkdir(parents=True)
    assert trace_folder() == Path("..") / "shared" / "data"
    monkeypatch.setenv("TIDEGATE_TRACES", str(here))
    assert trace_folder() == here
    monkeypatch.setenv("TIDEGATE_TRACES", "")
    assert trace_folder() is None
    monkeypatch.setenv("TIDEGATE_TRACES", str(tmp_path / "nowhere"))
    with pytest.raises(TraceError, match="TIDEGATE_TRACES="):
        trace_folder()
