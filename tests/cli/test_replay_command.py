"""The whole job through the command line: a trace in, a report out that an outsider can recompute."""

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from autoscaler.backtest import openb
from autoscaler.cli import main as cli
from autoscaler.report import promises, recompute
from autoscaler.report.figures import Figures
from autoscaler.report.run import Run
from providers.aws.double.server import Ec2Double

FILES = {"report.json", "report.html", "machines.csv", "placements.csv", "pods.csv", "decisions.jsonl"}

COLUMNS = (
    "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time"
)


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.tidegate, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        return int(str(ended.value.code)), str(result.exception)
    return result.exit_code, result.output


def write_trace(folder: Path, rows: list[str]) -> Path:
    path = folder / "small.csv"
    path.write_text("\n".join((COLUMNS, *rows)) + "\n", encoding="utf-8")
    return path


def small(folder: Path) -> Path:
    rows = [
        f"pod-{index:03},4000,8192,1,{(1000, 500, 250)[index % 3]},,LS,Running,{start},{start + 2000},{start}"
        for index, start in enumerate(range(0, 11640, 97))
    ]
    return write_trace(folder, [*rows, "big,64000,262144,8,1000,,BE,Running,3000,9000,3010"])


def report(folder: Path) -> dict[str, object]:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def test_a_replay_leaves_a_report_that_can_be_recomputed(tmp_path: Path) -> None:
    trace, out = small(tmp_path), tmp_path / "out"
    code, output = run("replay", "--trace", f"openb:{trace}", "--days", "0.5", "--out", str(out))
    assert code == 0, output
    assert {path.name for path in out.iterdir()} == FILES
    window = openb.window(openb.read(trace), days=0.5)
    assert recompute.verify(out, window) == []
    found = report(out)
    assert found["pods"] == {"arrived": 121, "finished": 121, "running": 0, "lost": 0}
    assert isinstance(found["machines"], dict)
    assert found["machines"]["leaked"] == 0
    assert "GPU-hours billed" in output


def test_one_seed_gives_one_decision_log(tmp_path: Path) -> None:
    trace = small(tmp_path)
    logs: list[bytes] = []
    for name in ("a", "b"):
        code, _ = run("replay", "--trace", f"openb:{trace}", "--seed", "7", "--out", str(tmp_path / name))
        assert code == 0
        logs.append((tmp_path / name / "decisions.jsonl").read_bytes())
    assert logs[0] == logs[1]
    assert logs[0].count(b"\n") > 3


def test_bad_rows_are_named_and_the_rest_is_played(tmp_path: Path) -> None:
    good = "good,1000,1024,1,1000,,LS,Running,0,600,0"
    trace = write_trace(
        tmp_path,
        [
            good,
            "later,1000,1024,1,1000,,LS,Running,2000,6000,2000",
            "many,1000,1024,999,1000,,LS,Running,10,600,10",
            "alien,1000,1024,1,1000,XPU9,LS,Running,10,600,10",
            "text,abc,1024,1,1000,,LS,Running,10,600,10",
            "back,1000,1024,1,1000,,LS,Running,10,5,10",
        ],
    )
    code, output = run("replay", "--trace", f"openb:{trace}", "--days", "0.1", "--out", str(tmp_path / "out"))
    assert code == 0, output
    for part in ("999", "XPU9", "abc", "back"):
        assert part in output.replace("\n", ""), f"no line says what was wrong with {part!r}"
    pods = report(tmp_path / "out")["pods"]
    assert isinstance(pods, dict)
    assert (pods["arrived"], pods["finished"], pods["running"]) == (2, 1, 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--trace", "openb:nowhere.csv"), "nowhere.csv"),
        (("--trace", "kubernetes:x"), "kubernetes"),
        (("--trace", "openb"), "openb"),
        (("--trace", "openb:{file}", "--days", "-1"), "--days"),
        (("--trace", "openb:{file}", "--offers", "free"), "--offers"),
        (("--trace", "openb:{file}", "--seed", "-3"), "--seed"),
        ((), "--trace"),
    ],
)
def test_bad_input_ends_with_code_2_and_names_it(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    trace = small(tmp_path)
    given = [argument.replace("{file}", str(trace)) for argument in arguments]
    code, output = run("replay", *given, "--out", str(tmp_path / "out"))
    assert code == 2
    assert said in output
    assert not (tmp_path / "out").exists()


def test_a_broken_promise_ends_with_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(run: Run, figures: Figures) -> tuple[str, ...]:
        return (f"{run.leaked + figures.lost + 1} pods were lost",)

    monkeypatch.setattr(promises, "broken", broken)
    code, output = run("replay", "--trace", f"openb:{small(tmp_path)}", "--out", str(tmp_path / "out"))
    assert code == 1
    assert "1 pods were lost" in output
    assert (tmp_path / "out" / "report.json").exists(), "the report is written all the same"


def test_a_policy_file_changes_what_is_done(tmp_path: Path) -> None:
    trace, policy = small(tmp_path), tmp_path / "pool.yaml"
    policy.write_text("provisioning: {max_gpus: 8}\n")
    code, output = run(
        "replay", "--trace", f"openb:{trace}", "--policy", str(policy), "--out", str(tmp_path / "limited")
    )
    assert code == 0, output
    reasons = (tmp_path / "limited" / "decisions.jsonl").read_text(encoding="utf-8")
    assert '"GpuLimit"' in reasons
    policy.write_text("provisioning: {max_gpus: none}\n")
    code, output = run("replay", "--trace", f"openb:{trace}", "--policy", str(policy), "--out", str(tmp_path / "no"))
    assert code == 2
    assert "provisioning.max_gpus='none'" in output


def test_a_named_endpoint_is_bought_from_and_keeps_its_machines(tmp_path: Path) -> None:
    with Ec2Double() as double:
        code, output = run(
            "replay",
            "--trace",
            f"openb:{small(tmp_path)}",
            "--aws-endpoint-url",
            double.url,
            "--out",
            str(tmp_path / "out"),
        )
        assert code == 0, output
        machines = report(tmp_path / "out")["machines"]
        assert isinstance(machines, dict)
        assert machines["launched"] == len(double.instances())
        assert machines["running"] == sum(record.state == "running" for record in double.instances())


def test_an_endpoint_that_does_not_answer_buys_nothing_and_says_so(tmp_path: Path) -> None:
    trace = write_trace(tmp_path, ["good,1000,1024,1,1000,,LS,Running,0,600,0"])
    code, output = run(
        "replay",
        "--trace",
        f"openb:{trace}",
        "--days",
        "0.01",
        "--aws-endpoint-url",
        "http://127.0.0.1:1",
        "--out",
        str(tmp_path / "out"),
    )
    assert code == 2
    assert "127.0.0.1:1" in output


def test_explain_tells_the_story_of_a_machine(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("replay", "--trace", f"openb:{small(tmp_path)}", "--out", str(out))[0] == 0
    with (out / "machines.csv").open(encoding="utf-8") as file:
        claim = next(iter(csv.DictReader(file)))["claim"]
    code, output = run("explain", "--from", str(out), claim)
    assert code == 0
    assert claim in output
    code, output = run("explain", "--from", str(out), "pod-000")
    assert code == 0
    assert "PendingShares" in output
    assert run("explain", "--from", str(out), "nobody")[0] == 2


def test_the_demo_generates_a_load_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_TRACES", "")
    code, output = run("demo", "--out", str(tmp_path / "out"))
    assert code == 0, output
    assert "generated" in output
    assert "catalog" in report(tmp_path / "out")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_thirty_days_keep_their_figures(tmp_path: Path, traces: Path) -> None:
    """The gates of benchmark 4 on the real trace; how long it takes is the benchmark's business, not this test's."""
    trace = traces / "openb" / "openb_pod_list_default.csv"
    code, output = run("replay", "--trace", f"openb:{trace}", "--out", str(tmp_path))
    assert code == 0, output
    window = openb.window(openb.read(trace))
    assert recompute.verify(tmp_path, window) == []
    figures = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert figures["pods"]["arrived"] == 5567
    assert figures["pods"]["lost"] == 0
    assert figures["machines"]["leaked"] == 0
    assert 1.128 < figures["billed_gpu_hours"] / figures["demanded_gpu_hours"] <= 1.20
    assert figures["wait_s"]["p99"] <= 190
    assert figures["wait_s"]["mean"] <= 18
    assert figures["moves"]["max_24h"] <= 50
    assert figures["peak_rss_mib"] <= 500


def test_version() -> None:
    code, output = run("version")
    assert (code, output.split()[0]) == (0, "tidegate")
