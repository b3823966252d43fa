"""Time a table of many records beside the same table without records.

    python benchmarks/tables.py [--records N] [--rounds N] [--output FILE]

The records are made up: trainings of the networks of one table, with random accuracies near the paper's.
The commands are interleaved, each in its own process. The limit is 2 s of CPU time more than without records.
"""

import argparse
import os
import random
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from timing import interleave, output_option, write_record

sys.path.insert(0, str(Path(__file__).parents[1]))

from sdabench.records.store import RecordStore
from sdabench.registry import load_registry
from tests.helpers.records import trained

TABLE = "classification-attention"
LIMIT_MS = 2000
PEER = "without records"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    output_option(parser)
    options = parser.parse_args()
    rows, noise = load_registry().table(TABLE).rows, random.Random(0)
    with TemporaryDirectory() as folder:
        RecordStore(Path(folder)).append(
            trained(row.model, (row.reported["top1_pct"] or 75) + noise.gauss(0, 0.2), number // len(rows))
            for number, row in ((number, rows[number % len(rows)]) for number in range(options.records))
        )
        command = (sys.executable, "-m", "sdabench", "table", TABLE)
        forms = ("terminal", "markdown", "latex", "html", "csv", "json")
        times = interleave(
            {PEER: (command, os.environ)}
            | {form: ((*command, "--records", folder, "--format", form), os.environ) for form in forms},
            options.rounds,
        )
    print(f"{'':18}{'median ms':>10}{'CPU':>8}{'beyond':>8}{'ratio':>7}")
    peer = times[PEER].median_cpu
    for name, each in times.items():
        late = "  above the limit" if each.median_cpu - peer > LIMIT_MS else ""
        print(
            f"{name:18}{each.median:10.0f}{each.median_cpu:8.0f}{each.median_cpu - peer:8.0f}"
            f"{each.median_cpu / peer:7.1f}{late}"
        )
    milliseconds = {name: each.as_json() for name, each in times.items()}
    write_record(
        options.output, "tables", records=options.records, asked_ms=LIMIT_MS, milliseconds=milliseconds
    )


if __name__ == "__main__":
    main()
