"""``make bench``: every benchmark that this release has, one after the other; the worst exit code is its own.

python -m benchmarks.run [--full]
"""

import platform
import sys
from pathlib import Path

from benchmarks import provisioning, scale_to_zero, serving


def machine() -> str:
    """Processor, Python, for the head of a result."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.processor() or "unknown processor",
    )
    return f"{model}, Python {platform.python_version()}"


def main() -> int:
    arguments = sys.argv[1:]
    print(f"machine: {machine()}\n\n4. Provisioning and compaction, openb default, last 30 days")
    codes = [provisioning.main(arguments)]
    print("\n5. Scale to zero through the engine, ServeGen m-small, day 2 of 2")
    codes.append(serving.main(arguments))
    print("\n5. Scale to zero, the time-out alone, ServeGen m-small, days 2 to 7")
    codes.append(scale_to_zero.main(arguments))
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
