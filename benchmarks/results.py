"""What the replay benchmarks share: their options, the trace folder, the results file with one JSON line per case."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from autoscaler.backtest import traces


def options(name: str, about: str, full: str, arguments: Sequence[str] | None) -> argparse.Namespace:
    """``full`` and ``out`` as given; ``full`` is described by its text."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=about)
    parser.add_argument("--full", action="store_true", help=full)
    parser.add_argument("--out", type=Path, help="append the JSON lines to this file")
    return parser.parse_args(arguments)


def trace(path: Path) -> Path:
    """The file at ``path`` in the trace folder. Without the folder the benchmark ends with code 2."""
    folder = traces.trace_folder()
    if folder is None:
        print(f"no trace folder: set TIDEGATE_TRACES to the folder that holds {path.parts[0]}/", file=sys.stderr)
        sys.exit(2)
    return folder / path


def keep(lines: Sequence[str], out: Path | None) -> None:
    """Print the lines, and append them to ``out`` where it is named."""
    print(*lines, sep="\n")
    if out is not None:
        with out.open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
