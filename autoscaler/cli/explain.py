"""``tidegate explain``: why something did or did not happen, told from the files that a run left behind.

Reads ``decisions.jsonl``, and ``pods.csv``, ``placements.csv`` and ``machines.csv`` where they are there. A broken line
is named on standard error and the rest is told. A missing folder or log, or a subject that nothing knows, ends with
code 2. Must not know: the engine, clusters.
"""

import difflib
import json
import sys
from pathlib import Path

import click

from autoscaler.report import reading, story
from autoscaler.report.run import ReportError

NEAREST = 5


class BadInput(click.ClickException):
    """One clear error about what the user gave; exit code 2."""

    exit_code = 2


@click.command(name="explain")
@click.option(
    "--from",
    "folder",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder that demo, replay or run wrote into.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of sentences.")
@click.argument("subject")
def explain(folder: Path, subject: str, *, as_json: bool) -> None:
    """Why something did or did not happen.

    SUBJECT is a pod, claim, machine, node, workload, pool or the id of a decision.
    """
    try:
        history = reading.read(folder)
    except ReportError as error:
        raise BadInput(str(error)) from error
    for problem in history.problems:
        click.echo(f"warning: {problem}", err=True)
    told = story.about(history, subject)
    if told is None:
        names = sorted(history.names())
        near = difflib.get_close_matches(subject, names, n=NEAREST, cutoff=0.5)
        hint = f"the nearest names are {', '.join(near)}" if near else "no name in the log is near it"
        raise BadInput(f"subject={subject!r}: nothing in {folder} knows it; {hint}")
    if as_json:
        json.dump(story.as_data(told), sys.stdout, ensure_ascii=False, indent=2)
        click.echo()
        return
    for line in story.sentences(told):
        click.echo(line)
