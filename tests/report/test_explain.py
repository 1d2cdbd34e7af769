"""``explain``: the story of a subject, from files alone."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from autoscaler.cli.explain import explain
from autoscaler.report import files, reasons
from autoscaler.report.run import Run
from policies.decisions import Reason


@pytest.fixture
def folder(run: Run, tmp_path: Path) -> Path:
    files.write(run, tmp_path)
    return tmp_path


def told(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(explain, ["--from", str(folder), *arguments])


@pytest.mark.parametrize("subject", ["moved", "x/moved"])
def test_a_pod_from_arrival_to_move(folder: Path, subject: str) -> None:
    result = told(folder, subject)
    assert result.exit_code == 0, result.output
    lines = [line for line in result.output.splitlines() if line]
    assert lines[:6] == [
        "Pod moved of namespace x asks for 1 GPU.",
        "It arrived on day 1, 00:00:00 (second 0).",
        "It started on day 1, 00:03:00 (second 180) on a (device 0, 1000 milli each), after waiting 180 s.",
        "It waited for that machine, ordered on day 1, 00:00:00 (second 0) and ready 180 s later.",
        "It was moved on day 1, 00:58:00 (second 3480) to b (device 3, 1000 milli each).",
        "It finished on day 1, 01:03:00 (second 3780).",
    ]
    # The purchase names it, and so does the move under the replacement's name.
    assert lines[6] == "2 decisions name it:"
    assert "because pods are waiting for GPUs that no machine has free (PendingShares). [d1]" in result.output
    assert "Evidence: a = 0.3, pod = x/moved." in result.output
    assert "Steps: pending: 2; chosen: offer." in result.output
    assert "[d3]" in result.output
    # What moved it is about its node only.
    after = result.output.partition("What was decided about its machines, and while it waited:")[2]
    assert "compaction decided Compact for node-a" in after


@pytest.mark.parametrize("subject", ["a", "i-a", "node-a"])
def test_a_machine_by_claim_id_or_node(folder: Path, subject: str) -> None:
    result = told(folder, subject)
    assert "Claim a is machine i-a: gpu8, on-demand, 8 GPUs." in result.output
    assert "terminated on day 1, 01:00:00 (second 3600)." in result.output
    assert "Pods that were on it: 2." in result.output
    assert "1 decision names it:" in result.output
    assert "[d2]" in result.output


def test_names_are_whole_words(folder: Path) -> None:
    with (folder / "decisions.jsonl").open("a") as log:
        log.write(
            '{"id":"d9","time_s":9,"policy":"p","action":"Buy","subject":"pool","reason":"Other",'
            '"evidence":{"pod":"x/moved-2"},"steps":[]}\n'
        )
    assert "[d9]" not in told(folder, "moved").output
    assert "because Other (Other). [d9]" in told(folder, "d9").output


def test_json_holds_the_same(folder: Path) -> None:
    data = json.loads(told(folder, "moved", "--json").stdout)
    assert data["pod"]["arrival_s"] == 0
    assert [stay["claim"] for stay in data["stays"]] == ["a", "b"]
    assert [decision["id"] for decision in data["decisions"]] == ["d1", "d3"]
    assert [decision["id"] for decision in data["around"]] == ["d2"]


def test_a_pod_that_never_started(folder: Path) -> None:
    assert "It never started." in told(folder, "never").output


def test_an_unknown_subject_gets_the_nearest_names(folder: Path) -> None:
    result = told(folder, "mved")
    assert result.exit_code == 2
    assert "the nearest names are moved" in result.output
    assert told(folder, "qqqqqqqq").exit_code == 2
    # Another namespace's pod of that name is not known.
    assert told(folder, "y/moved").exit_code == 2


def test_missing_folder_or_log_is_bad_input(folder: Path) -> None:
    assert told(folder / "nowhere", "moved").exit_code == 2
    (folder / "decisions.jsonl").unlink()
    result = told(folder, "moved")
    assert (result.exit_code, "decisions.jsonl" in result.output) == (2, True)


@pytest.mark.parametrize(
    "line",
    [
        b"{not json",
        b"[]",
        b'{"id":"x"}',
        b'{"id":1,"time_s":0,"policy":"","action":"","subject":"","reason":"","evidence":{},"steps":[]}',
        b'{"id":"x","time_s":"soon","policy":"","action":"","subject":"","reason":"","evidence":{},"steps":[]}',
        b'{"id":"x","time_s":0,"policy":"","action":"","subject":"","reason":"","evidence":3,"steps":[]}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_a_broken_line_is_named_and_the_rest_goes_on(folder: Path, line: bytes) -> None:
    log = folder / "decisions.jsonl"
    first, *rest = log.read_bytes().splitlines()
    log.write_bytes(b"\n".join([first, line, *rest]))
    result = told(folder, "moved")
    assert result.exit_code == 0
    assert "warning: decisions.jsonl line 2: " in result.stderr
    assert "[d1]" in result.stdout
    assert "[d3]" in result.stdout


def test_the_tables_may_be_missing_or_broken(folder: Path) -> None:
    for name in ("pods.csv", "placements.csv"):
        (folder / name).unlink()
    with (folder / "machines.csv").open("a") as table:
        table.write("c,i-c,gpu8,on-demand,eight,1,2,3\nshort\n")
    result = told(folder, "i-a")
    assert result.exit_code == 0
    assert "machines.csv line 4" in result.stderr
    assert "machines.csv line 5" in result.stderr


def test_every_reason_has_plain_words() -> None:
    assert set(reasons.MEANINGS) == set(Reason)
    assert reasons.meaning("FromTheFuture") == "FromTheFuture"
