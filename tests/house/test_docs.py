"""The prose keeps its word: links lead somewhere, and commands, reasons, files, figures and tests that it names
exist.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from autoscaler import wiring
from autoscaler.backtest import replay
from autoscaler.cli.main import tidegate
from autoscaler.report import files, reasons
from policies import compaction
from policies.decisions import Action, Reason

ROOT = Path(__file__).resolve().parents[2]
PLACES = (".", "docs", "examples", "charts", "benchmarks", "providers/*", "policies", "vgpu", "autoscaler")
PAGES = sorted(path for place in PLACES for path in ROOT.glob(f"{place}/*.md"))
OWN = [path for path in PAGES if path.parent in (ROOT, ROOT / "docs")]

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def prose(page: str) -> str:
    """The page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)


def slugs(page: str) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    heads = re.findall(r"^#+ +(.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def dead_links(path: Path, page: str) -> list[str]:
    """Relative links of ``page``, which lies at ``path``, that lead nowhere."""
    dead: list[str] = []
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        known = target.exists() and (
            not anchor or (target.suffix == ".md" and anchor in slugs(page if not name else target.read_text("utf-8")))
        )
        if not known:
            dead.append(link)
    return dead


def rows(page: str, heading: str) -> list[list[str]]:
    """Cells of the first table under ``heading``, without its head."""
    part = page.split(f"\n{heading}\n", 1)[1]
    lines = re.search(r"(?:^\|.*\n)+", part, flags=re.MULTILINE)
    assert lines is not None, f"no table under {heading!r}"
    return [[cell.strip() for cell in line.strip("|\n").split("|")] for line in lines.group().splitlines()[2:]]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    assert dead_links(path, path.read_text(encoding="utf-8")) == []


def test_a_dead_link_is_found() -> None:
    page = (
        "# A b: c\n[x](README.md) [x](#a-b-c) [x](https://example.org/none)\n[x](none.md) [x](#none) [x](SCOPE.md#none)"
    )
    assert dead_links(ROOT / "README.md", page) == ["none.md", "#none", "SCOPE.md#none"]


@pytest.mark.parametrize("path", OWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_lines_are_short(path: Path) -> None:
    """Tables and code keep their lines; prose is wrapped."""
    lines = prose(path.read_text(encoding="utf-8")).splitlines()
    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []


# Commands ------------------------------------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, click.Command]]:
    yield from tidegate.commands.items()


def test_readme_names_every_command_and_no_other() -> None:
    named = [cells[0].strip("`").split()[1] for cells in rows(text("README.md"), "## Commands")]
    assert sorted(named) == sorted(name for name, _ in commands())


@pytest.mark.parametrize("name", ["README.md", "docs/replay.md", "docs/metrics.md", "docs/decisions.md"])
def test_options_that_are_named_exist(name: str) -> None:
    known = {option for _, command in commands() for item in command.params for option in item.opts} | {"--help"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text(name))) <= known


def test_contributing_names_every_verb_of_make() -> None:
    verbs = re.search(r"^\.PHONY: (.+)$", text("Makefile"), flags=re.MULTILINE)
    assert verbs is not None
    named = [cells[0].strip("`").removeprefix("make ") for cells in rows(text("CONTRIBUTING.md"), "## Set-up")]
    assert sorted(named) == sorted(verbs.group(1).split())


# Decisions -----------------------------------------------------------------------------------------------------------


def test_every_action_is_explained_once() -> None:
    named = [cells[0].strip("`") for cells in rows(text("docs/decisions.md"), "## Actions")]
    assert named == [action.value for action in Action]


def test_every_reason_is_explained_once_in_the_words_of_the_reports() -> None:
    table = [(cells[0].strip("`"), cells[1]) for cells in rows(text("docs/decisions.md"), "## Reasons")]
    assert table == [(reason.value, reasons.MEANINGS[reason]) for reason in Reason]


# Files and figures ---------------------------------------------------------------------------------------------------


def test_the_output_folder_is_described_to_the_letter() -> None:
    named = {cells[0].strip("`") for cells in rows(text("README.md"), "## The output folder")}
    assert named == {files.PAGE, files.REPORT, files.MACHINES, files.PLACEMENTS, files.PODS, files.DECISIONS}
    described = {
        cells[0].strip("`"): cells[2].strip("`") for cells in rows(text("docs/replay.md"), "## The other files")
    }
    assert described[files.MACHINES] == ",".join(files.MACHINE_COLUMNS)
    assert described[files.PLACEMENTS] == ",".join(files.PLACEMENT_COLUMNS)
    assert described[files.PODS] == ",".join(files.POD_COLUMNS)


def test_how_the_outside_behaves_is_what_the_code_says() -> None:
    world, settings, giving_back = replay.World(), wiring.ReplaySettings(), compaction.Spec()
    values = [re.sub(r"\D", "", cells[1]) for cells in rows(text("docs/replay.md"), "## How the outside behaves")]
    assert values == [
        f"{value:g}"
        for value in (
            world.boot_s,
            world.hold_s,
            world.batch_s,
            settings.validate_s,
            giving_back.headroom_gpus,
            giving_back.max_moves_per_day,
        )
    ]
    assert giving_back.hold_s == world.hold_s
    assert giving_back.boot_s == world.boot_s


# Code and tests ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", OWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_tests_that_are_named_exist(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    tests = {found.name: found.read_text(encoding="utf-8") for found in (ROOT / "tests").rglob("*.py")}
    code = "\n".join(tests.values())
    missing: list[str] = []
    for name in re.findall(r"`([\w./]+\.py)`", page):
        places = (ROOT / name, ROOT / "autoscaler" / name)
        if name not in tests and not any(place.is_file() for place in places):
            missing.append(name)
    missing += [name for name in re.findall(r"`(test_\w+)`", page) if f"def {name}(" not in code]
    assert missing == []


def test_every_module_of_the_lower_layers_has_its_line() -> None:
    page = text("ARCHITECTURE.md")
    for package, heading in (("vgpu", "### `vgpu`: the ground"), ("policies", "### `policies`: deciding")):
        named = {cells[0].strip("`") for cells in rows(page, heading)}
        assert named == {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__"}
    rooms = {cells[0].strip("`") for cells in rows(page, "### `autoscaler`: seeing and acting")}
    engine = {f"engine.{path.stem}" for path in (ROOT / "autoscaler" / "engine").glob("*.py")} - {"engine.__init__"}
    assert engine <= rooms
    folders = {path.parent.name for path in (ROOT / "autoscaler").glob("*/__init__.py")} - {"engine"}
    assert folders <= rooms
