"""Time the start of the program beyond that of an empty Python.

    python benchmarks/startup.py [--rounds N] [--output FILE]

The commands are interleaved with the empty Python, each in its own process. One call of each comes first, to
fill the caches of Python and of sdabench. ``without cache`` has no cache folder, as on the first call ever.
The limit is 250 ms beyond an empty Python.
"""

import argparse
import os
import sys
from tempfile import TemporaryDirectory

from timing import interleave, output_option, write_record

PROGRAM = (sys.executable, "-m", "sdabench")
EMPTY = "empty Python"
LIMIT_MS = 250
COMPLETION = {"_SDABENCH_COMPLETE": "bash_complete", "COMP_WORDS": "sdabench show sda_", "COMP_CWORD": "2"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    output_option(parser)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        own = os.environ | {"SDABENCH_CACHE": folder}
        bare = os.environ | {"SDABENCH_CACHE": os.devnull}  # nothing can be stored there
        times = interleave(
            {
                EMPTY: ((sys.executable, "-c", "pass"), own),
                "--help": ((*PROGRAM, "--help"), own),
                "list": ((*PROGRAM, "list"), own),
                "list --json": ((*PROGRAM, "list", "--json"), own),
                "completion of a name": (PROGRAM, own | COMPLETION),
                "list without cache": ((*PROGRAM, "list"), bare),
                "list --json without cache": ((*PROGRAM, "list", "--json"), bare),
            },
            options.rounds,
        )
    empty = times[EMPTY].median
    print(f"{'':28}{'median ms':>10}{'fastest':>9}{'slowest':>9}{'beyond':>8}{'ratio':>7}{'CPU':>10}")
    for name, each in times.items():
        beyond = each.median - empty
        late = "  above the limit" if beyond > LIMIT_MS else ""
        print(
            f"{name:28}{each.median:10.0f}{each.fastest:9.0f}{each.slowest:9.0f}{beyond:8.0f}"
            f"{each.median / empty:7.1f}"
            f"{each.median_cpu:10.0f}{late}"
        )
    milliseconds = {name: each.as_json() for name, each in times.items()}
    write_record(options.output, "startup", asked_ms=LIMIT_MS, milliseconds=milliseconds)


if __name__ == "__main__":
    main()
