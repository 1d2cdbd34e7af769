"""``tidegate``: the group, its version, and the one place where errors become exit codes.

Bad input (any TidegateError) ends with code 2 and one line; a promise that a run broke ends with code 1.
"""

import sys
from collections.abc import Sequence

import click

import autoscaler
from autoscaler.cli.demo import demo
from autoscaler.cli.explain import explain
from autoscaler.cli.observe import observe
from autoscaler.cli.replay import replay
from autoscaler.cli.waste import waste
from vgpu.errors import TidegateError

BAD_INPUT = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def tidegate() -> None:
    """GPU capacity that follows demand, with a reason for every decision."""


@tidegate.command()
def version() -> None:
    """Print the version."""
    click.echo(f"tidegate {autoscaler.__version__}")


for command in (demo, replay, observe, waste, explain):
    tidegate.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; never returns."""
    try:
        tidegate.main(args=None if arguments is None else list(arguments), prog_name="tidegate")
    except TidegateError as error:
        click.echo(f"tidegate: {error}", err=True)
        sys.exit(BAD_INPUT)
