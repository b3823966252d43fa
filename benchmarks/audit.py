"""Time an audit of all rows: counting everything, and with cached counts.

    python benchmarks/audit.py [--rounds N] [--output FILE]

An empty Python and the import of torch are timed for comparison. On two cores the limits are 60 seconds
for counting everything and 2 seconds with cached counts.
"""

import argparse
import os
import sys
from tempfile import TemporaryDirectory

from timing import interleave, output_option, write_record

AUDIT = (sys.executable, "-m", "sdabench", "audit", "--json")
EMPTY, TORCH, RECOUNT, CACHED = "empty Python", "import torch", "recount", "cached counts"
LIMIT_MS = {RECOUNT: 60_000, CACHED: 2_000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="Number of audits that count everything.")
    output_option(parser)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        environment = os.environ | {"SDABENCH_CACHE": folder}
        slow = {RECOUNT: ((*AUDIT, "--recount"), environment)}
        fast = {
            EMPTY: ((sys.executable, "-c", "pass"), environment),
            TORCH: ((sys.executable, "-c", "import torch"), environment),
            CACHED: (AUDIT, environment),
        }
        times = interleave(fast, max(options.rounds, 7)) | interleave(slow, options.rounds, warm_up=False)
    empty = times[EMPTY].median
    print(f"{'':26}{'median s':>9}{'fastest':>9}{'slowest':>9}{'CPU':>10}{'times empty Python':>20}")
    for name, each in times.items():
        late = "  above the limit" if each.median > LIMIT_MS.get(name, each.median) else ""
        seconds = "".join(f"{value / 1000:9.2f}" for value in (each.median, each.fastest, each.slowest))
        print(f"{name:26}{seconds}{each.median_cpu / 1000:10.2f}{each.median / empty:20.1f}{late}")
    milliseconds = {name: each.as_json() for name, each in times.items()}
    write_record(options.output, "audit", asked_ms=LIMIT_MS, milliseconds=milliseconds)


if __name__ == "__main__":
    main()
