"""Time a small suite: one model at a time or several, and with decoded images shared or not.

    python benchmarks/suite.py [--models NAME …] [--epochs N] [--jobs N] [--rounds N] [--device cuda]
        [--output FILE]

Each suite trains and evaluates the models with the recipe smoke, on 64 and 200 images of the generated
dataset. The variants are interleaved. Without sharing, every process decodes each image whenever it reads it.
"""

import argparse
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from timing import Command, Spread, milliseconds, output_option, write_record

from sdabench.data.synthetic import default_dataset

MODELS = ("resnet50", "senet50", "gcnet50", "pyconv50")
RECIPE = """\
extends: smoke
title: Smoke without its loss limit and warm-up
epochs: {epochs}
schedule: {{warmup_epochs: 0}}
fit_below: 1000.0
"""


def variants(folder: Path, options: argparse.Namespace) -> dict[str, Command]:
    """Return the commands of the suites, without --output."""
    recipe, sharing, decoding = folder / "recipe.yaml", folder / "sharing", folder / "decoding"
    recipe.write_text(RECIPE.format(epochs=options.epochs))
    for cache in (sharing, decoding):
        cache.mkdir()
    (decoding / "decoded").write_text("instead of a folder, so that no decoded images are stored\n")
    chosen = [word for name in options.models for word in ("--models", name)]
    data = f"synthetic={default_dataset()}"
    command = [sys.executable, "-m", "sdabench", "run", "--suite", "classification", *chosen]
    command += ["--recipe", str(recipe), "--data", data, "--device", options.device]
    own = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    return {
        f"{jobs} at a time, {kind}": ([*command, "--jobs", str(jobs)], own | {"SDABENCH_CACHE": str(cache)})
        for jobs in dict.fromkeys([1, options.jobs])
        for kind, cache in (("shared", sharing), ("decoding", decoding))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    output_option(parser)
    options = parser.parse_args()
    measured: dict[str, list[tuple[float, float]]] = {}
    with TemporaryDirectory() as name:
        commands = variants(Path(name), options)
        for round_number in range(1 + options.rounds):  # the first is for warm-up
            order = list(commands.items())[:: -1 if round_number % 2 else 1]  # no variant is always first
            for kind, (command, environment) in order:
                output = Path(name) / f"{kind} {round_number}"
                took = milliseconds(([*command, "--output", str(output)], environment))
                measured[kind] = [*measured.get(kind, []), *([took] if round_number else [])]
    times = {kind: Spread(*map(list, zip(*each, strict=True))) for kind, each in measured.items()}
    times = {kind: times[kind] for kind in commands}
    first = next(iter(times.values()))
    print(f"{'':24}{'median s':>9}{'fastest':>9}{'slowest':>9}{'CPU':>10}{'to the first':>14}")
    for kind, each in times.items():
        seconds = "".join(f"{value / 1000:9.2f}" for value in (each.median, each.fastest, each.slowest))
        print(f"{kind:24}{seconds}{each.median_cpu / 1000:10.2f}{each.median / first.median:14.2f}")
    write_record(
        options.output,
        "suite",
        models=list(options.models),
        epochs=options.epochs,
        device=options.device,
        milliseconds={kind: each.as_json() for kind, each in times.items()},
    )


if __name__ == "__main__":
    main()
