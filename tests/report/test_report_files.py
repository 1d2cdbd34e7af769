"""The output folder: exact formats, same bytes, and an independent check that finds planted lies."""

import csv
import dataclasses
import io
import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from autoscaler.report import figures as figures_of
from autoscaler.report import files, html, recompute, svg, terminal, wording
from autoscaler.report.run import Move, ReportError, Run


def test_report_json_has_exactly_the_promised_keys(run: Run, tmp_path: Path) -> None:
    files.write(run, tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert list(report) == [
        "schema",
        "demanded_gpu_hours",
        "billed_gpu_hours",
        "cost_usd",
        "pods",
        "wait_s",
        "moves",
        "machines",
        "by_namespace",
        "wall_s",
        "peak_rss_mib",
    ]
    assert report["pods"] == {"arrived": 4, "finished": 2, "running": 1, "lost": 0}
    assert report["wait_s"] == {"mean": 90, "p99": 180}
    assert report["moves"] == {"total": 1, "max_24h": 1}
    assert report["machines"] == {"launched": 2, "terminated": 1, "running": 1, "leaked": 0}
    assert report["by_namespace"]["y"] == {"gpu_hours": 0.127778, "cost_usd": 0.127778}
    assert sum(share["cost_usd"] for share in report["by_namespace"].values()) == pytest.approx(report["cost_usd"])


def test_the_tables_are_written_to_the_letter(run: Run, tmp_path: Path) -> None:
    files.write(run, tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert (folder / "machines.csv").read_text() == (
        "claim,machine_id,instance_type,capacity_type,gpus,ordered_s,ready_s,terminated_s\n"
        "a,i-a,gpu8,on-demand,8,0,180,3600\n"
        "b,i-b,gpu8,on-demand,8,3300,3480,\n"
    )
    assert (folder / "placements.csv").read_text() == (
        "pod,claim,devices,milli,start_s,end_s\n"
        "moved,a,0,1000,180,3540\n"
        "short,a,1,500,180,900\n"
        "moved,b,3,1000,3480,3780\n"
        "late,b,7,500,7000,\n"
    )
    assert (folder / "decisions.jsonl").read_text().splitlines()[0] == (
        '{"id":"d1","time_s":0,"policy":"provisioning","action":"Buy","subject":"default","reason":"PendingShares",'
        '"evidence":{"a":0.3,"pod":"x/moved"},"steps":[{"name":"pending","value":2},{"name":"chosen","value":"offer"}]}'
    )
    assert sorted(path.name for path in folder.iterdir()) == [
        "decisions.jsonl",
        "machines.csv",
        "placements.csv",
        "pods.csv",
        "report.html",
        "report.json",
    ]


def test_several_devices_are_joined_by_semicolons(run: Run, tmp_path: Path) -> None:
    stays = tuple(dataclasses.replace(stay, devices=(2, 4)) if stay.claim == "a" else stay for stay in run.stays)
    files.write(dataclasses.replace(run, stays=stays), tmp_path)
    with (tmp_path / "placements.csv").open(newline="") as stream:
        assert [row["devices"] for row in csv.DictReader(stream)] == ["2;4", "2;4", "3", "7"]


def test_the_same_run_gives_the_same_bytes(run: Run, tmp_path: Path) -> None:
    files.write(run, tmp_path / "one")
    shuffled = tuple(
        type(record)(
            id=record.id,
            time_s=record.time_s,
            policy=record.policy,
            action=record.action,
            subject=record.subject,
            reason=record.reason,
            evidence=dict(reversed(list(record.evidence.items()))),
            steps=record.steps,
        )
        for record in run.decisions
    )
    files.write(dataclasses.replace(run, decisions=shuffled), tmp_path / "two")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.0, "3"),
        (0.1 + 0.2, "0.3"),
        (-0.0, "0"),
        (1 / 3, "0.333333"),
        (12_902_960, "12902960"),
        (math.nan, '"nan"'),
        (math.inf, '"inf"'),
    ],
)
def test_numbers_carry_no_noise(value: float, text: str) -> None:
    assert json.dumps(files.number(value)) == text


def test_extra_sections_travel_along_and_may_not_hide_figures(run: Run, tmp_path: Path) -> None:
    files.write(dataclasses.replace(run, extra={"catalog": {"cost_usd": 1.0, "types": [{"a": 1}]}}), tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["catalog"] == {"cost_usd": 1, "types": [{"a": 1}]}
    with pytest.raises(ReportError, match="'cost_usd'"):
        files.write(dataclasses.replace(run, extra={"cost_usd": 0}), tmp_path)
    with pytest.raises(ReportError, match="a report holds"):
        files.write(dataclasses.replace(run, extra={"odd": object()}), tmp_path)


def test_a_folder_that_cannot_be_is_one_error_and_leaves_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match=r"out='.*file.*name a folder that can be written"):
        files.write(run, tmp_path / "file" / "out")
    (tmp_path / "out" / "report.json").mkdir(parents=True)
    with pytest.raises(ReportError, match="out="):
        files.write(run, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.json"]


# The independent check ----------------------------------------------------------------------------------------------


def test_an_honest_report_has_no_contradiction(run: Run, load: Any, tmp_path: Path) -> None:
    files.write(run, tmp_path)
    assert recompute.verify(tmp_path, load) == []


def _replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return change


def _remove(folder: Path) -> None:
    (folder / "machines.csv").unlink()


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (_replace("placements.csv", "short,a,1,", "short,a,0,"), "device 0: 1500 milli held at 180"),
        (_replace("placements.csv", "moved,a,0,1000,180", "moved,a,0,1000,179"), "before the machine is ready"),
        (_replace("placements.csv", "180,3540", "180,3610"), "still there when the machine is terminated"),
        (_replace("placements.csv", "180,3540", "180,3470"), "pod moved: nowhere from 3470 to 3480"),
        (_replace("placements.csv", "180,900", "180,800"), "pod short: ran for 620 s, the load says 720 s"),
        (_replace("placements.csv", "180,900", "180,"), "still there when the machine is terminated"),
        (_replace("placements.csv", "b,7,500", "b,8,500"), "devices [8] of a machine with 8"),
        (_replace("placements.csv", "b,7,500", "b,7,400"), "asked for 1 of 500"),
        (_replace("placements.csv", "late,b", "late,c"), "machines.csv has no such claim"),
        (_replace("placements.csv", "late,b", "ghost,b"), "pod ghost: not in the load"),
        (_replace("placements.csv", "7,500,7000", "7,500,6999"), "before it arrives"),
        (_replace("placements.csv", "short,a,1,500", "short,a,one,500"), "placements.csv line 3"),
        (_replace("placements.csv", "pod,claim", "pods,claim"), "the header is pods"),
        (_replace("machines.csv", "0,180,3600", "0,180,4500"), "billed_gpu_hours is"),
        (_replace("machines.csv", "0,180,3600", "0,180,nan"), "nan is no time"),
        (_replace("machines.csv", "3300,3480,", "3300,3200,"), "ready_s 3200 lies before"),
        (_replace("machines.csv", "b,i-b", "b,i-a"), "machine i-a is there twice"),
        (_replace("machines.csv", "b,i-b", "a,i-b"), "claim a has two machines at once"),
        (_replace("report.json", '"mean": 90', '"mean": 9'), "wait_s.mean is 9"),
        (_replace("report.json", '"p99": 180', '"p99": 18'), "wait_s.p99 is 18"),
        (_replace("report.json", '"total": 1', '"total": 0'), "moves.total is 0"),
        (_replace("report.json", '"launched": 2', '"launched": 3'), "machines.launched is 3"),
        (_replace("report.json", '"finished": 2', '"finished": 3'), "pods.finished 3"),
        (_replace("report.json", '"running": 1,\n    "lost"', '"running": 2,\n    "lost"'), "pods.running is 2"),
        (_replace("report.json", '"cost_usd": 16', '"cost_usd": 15'), "by_namespace sums to cost_usd"),
        (_replace("report.json", "{", "["), "report.json: "),
        (_remove, "machines.csv: "),
    ],
)
def test_each_planted_lie_is_found(
    run: Run, load: Any, tmp_path: Path, plant: Callable[[Path], None], said: str
) -> None:
    files.write(run, tmp_path)
    plant(tmp_path)
    found = recompute.verify(tmp_path, load)
    assert any(said in line for line in found), found


def test_too_many_moves_are_found(run: Run, load: Any, tmp_path: Path) -> None:
    files.write(run, tmp_path)
    assert recompute.verify(tmp_path, load, moves_per_day=0) == ["1 moves in 24 hours; at most 0 are allowed"]


# The page and the terminal ------------------------------------------------------------------------------------------


def _tree(page: str) -> ET.Element:
    return ET.fromstring(page.removeprefix("<!DOCTYPE html>\n"))


def test_the_page_is_well_formed_self_contained_and_escaped(run: Run) -> None:
    evil = '<script>alert("x")</script>&\x00'
    record = run.decisions[0]
    named = type(record)(
        id=record.id,
        time_s=1,
        policy=evil,
        action=evil,
        subject=evil,
        reason=evil,
        evidence={},
        steps=(),
    )
    dirty = dataclasses.replace(
        run,
        title=evil,
        notes=(evil,),
        decisions=(named,),
        machines=tuple(dataclasses.replace(machine, instance_type=evil) for machine in run.machines),
        pods=tuple(dataclasses.replace(pod, namespace=evil) for pod in run.pods),
        extra={evil: {evil: evil}, "rows": [{"a": evil}], "text": evil},
    )
    page = html.render(dirty, figures_of.compute(dirty))
    tree = _tree(page)
    assert not [element.tag for element in tree.iter() if element.tag in ("script", "link", "img", "iframe")]
    assert "http" not in page
    assert tree.findtext(".//h1") == evil.replace("\x00", "\ufffd")


def test_the_page_shows_the_figures(run: Run) -> None:
    more = dataclasses.replace(
        run,
        leaked=3,
        extra={
            "catalog": {"cost_usd": 12.5, "billed_gpu_hours": 3, "wait_s": {"mean": 1}, "types": [{"type": "g6"}]},
            "scale_to_zero": {"tidegate": {"gpu_hours": 188.5}, "timer": {"gpu_hours": 199.5}},
        },
    )
    tree = _tree(html.render(more, figures_of.compute(more)))
    words = " ".join(" ".join(tree.itertext()).split())
    for expected in (
        "14.423",
        "$16.67",
        "3 leaked",
        "0 lost",
        "1 waiting",
        "Scale to zero beside a fixed timer, the last day",
    ):
        assert expected in words, expected
    assert [element.text for element in tree.iter("th") if element.text == "That run"]
    assert "188.5" in words
    assert len(tree.findall(".//svg")) == 3


def test_an_empty_run_has_a_page_too(run: Run) -> None:
    empty = dataclasses.replace(run, pods=(), stays=(), machines=(), moves=(), decisions=(), demanded_gpu_hours=0)
    figures = figures_of.compute(empty)
    assert figures.billed_per_demanded is None
    _tree(html.render(empty, figures))


def test_a_month_of_many_pods_stays_a_small_page(run: Run) -> None:
    machines = tuple(
        dataclasses.replace(
            run.machines[0], claim=f"c{i}", ordered_s=i * 5000, ready_s=i * 5000 + 180, terminated_s=i * 5000 + 9000
        )
        for i in range(518)
    )
    big = dataclasses.replace(
        run, t1=2_592_000, machines=machines, prices={machine.claim: 1 for machine in machines}, stays=()
    )
    assert len(html.render(big, figures_of.compute(big)).encode()) < 600_000


def test_lanes_do_not_overlap(run: Run) -> None:
    tree = ET.fromstring(svg.machine_lanes(run))
    bars = [group[1] for group in tree.findall("g")]
    # b is ordered before a is terminated, so it needs a lane of its own.
    assert len({bar.get("y") for bar in bars}) == 2


def test_the_terminal_says_what_matters(run: Run) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    lost = dataclasses.replace(run, leaked=2, moves=(Move(pod="moved", time_s=3480),))
    terminal.print_summary(lost, figures_of.compute(lost), console, folder=Path("out"))
    text = console.export_text()
    for expected in (
        "14.423 x demanded",
        "$16.67",
        "p99 180 s",
        "machines leaked",
        "idle",
        "PendingShares",
        "out/report.html",
    ):
        assert expected in text, expected


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 s"), (7.84, "7.8 s"), (180, "180 s"), (3540, "59 min"), (36_000, "10 h"), (1e6, "11.6 days")],
)
def test_lengths_of_time(value: float, text: str) -> None:
    assert wording.seconds(value) == text


def test_moments_and_titles() -> None:
    assert wording.moment(86_400 + 3_725, 0) == "day 2, 01:02:05"
    assert wording.title("wait_s.p99") == "Wait, s: p99"
    assert wording.title("billed_gpu_hours") == "Billed GPU-hours"
