"""How long an audit of all rows takes: cold, and when nothing has changed.

    python benchmarks/audit.py [--rounds N] [--output FILE]

Beside them stands what no audit can do without: the start of an empty Python, and the import of torch.
At most 60 seconds are asked for cold on two cores, and 2 when nothing has changed.
"""

import argparse
import os
import sys
from tempfile import TemporaryDirectory

from timing import in_turns, output_option, write_record

AUDIT = (sys.executable, "-m", "sdabench", "audit", "--json")
EMPTY, TORCH, COLD, AGAIN = "empty Python", "import torch", "cold", "nothing changed"
ASKED_MS = {COLD: 60_000, AGAIN: 2_000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="Of the cold audits.")
    output_option(parser)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        environment = os.environ | {"SDABENCH_CACHE": folder}
        cold = {COLD: ((*AUDIT, "--recount"), environment)}
        warm = {
            EMPTY: ((sys.executable, "-c", "pass"), environment),
            TORCH: ((sys.executable, "-c", "import torch"), environment),
            AGAIN: (AUDIT, environment),
        }
        times = in_turns(warm, max(options.rounds, 7)) | in_turns(cold, options.rounds, warm_up=False)
    empty = times[EMPTY].median
    print(f"{'':26}{'median s':>9}{'fastest':>9}{'slowest':>9}{'of cores':>10}{'to an empty Python':>20}")
    for name, each in times.items():
        late = "  more than asked" if each.median > ASKED_MS.get(name, each.median) else ""
        seconds = "".join(f"{value / 1000:9.2f}" for value in (each.median, each.fastest, each.slowest))
        print(f"{name:26}{seconds}{each.median_of_cores / 1000:10.2f}{each.median / empty:20.1f}{late}")
    milliseconds = {name: each.as_json() for name, each in times.items()}
    write_record(options.output, "audit", asked_ms=ASKED_MS, milliseconds=milliseconds)


if __name__ == "__main__":
    main()
