"""What every run promises whatever the load: nothing lost, nothing leaked, every pod that is bought for is served."""

from autoscaler.report.figures import Figures
from autoscaler.report.run import Run


def broken(run: Run, figures: Figures) -> tuple[str, ...]:
    """One line per promise that the run broke; empty when it kept them all."""
    lines: list[str] = []
    if figures.lost:
        lines.append(f"{figures.lost} pods were lost: they stopped before their work was done")
    if run.leaked:
        lines.append(f"{run.leaked} machines run that no claim answers for")
    unaccounted = run.launched - len({machine.machine_id for machine in run.machines}) - run.leaked
    if unaccounted:
        lines.append(f"{unaccounted} machines were launched that appear in no record")
    return tuple(lines)
