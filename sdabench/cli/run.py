"""``sdabench run``."""

import time
from math import ceil
from pathlib import Path
from typing import Any

import click

from sdabench.cli.evaluation import evaluation_options, settings_from
from sdabench.cli.options import echo_json, json_option
from sdabench.errors import DataError, ExitCode, NothingMeasuredError, UsageError
from sdabench.registry import SUITE_NAMES, load_registry

EPILOG = """\b
Examples:
  sdabench run --suite classification --eval-only --data imagenet=PATH
  sdabench run --suite classification --eval-only --data imagenet=PATH \\
      --weights checkpoints/ --models 'sda_*'

\b
Each network runs in a process of its own, and has its record in
OUTPUT/records.jsonl as soon as it is done: stopped, the same command goes on
where it was. One that fails is a row with its reason, and is tried again.
"""


@click.command("run", epilog=EPILOG)
@click.option("--suite", type=click.Choice(SUITE_NAMES), required=True)
@click.option("--eval-only", is_flag=True, help="Evaluate without training, which is not built yet.")
@evaluation_options
@click.option("--models", "patterns", multiple=True, help="Only these of the suite: names or wildcards.")
@click.option(
    "--weights", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of checkpoints: NAME.safetensors, .pth or .pt.",
)  # fmt: skip
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), help="[default: runs/SUITE]")
@json_option
def command(
    suite: str,
    eval_only: bool,
    data: Path,
    patterns: tuple[str, ...],
    weights: Path | None,
    output: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Evaluate all networks of a suite, and print their accuracies beside the README's."""
    if not eval_only:
        raise UsageError("training is not built yet; add --eval-only")
    registry = load_registry()
    names = registry.select(patterns or ["*"], among=registry.suite(suite))
    built = [name for name in names if registry.models[name].built]
    if not built:
        raise NothingMeasuredError(
            f"none of these {len(names)} networks is built yet; 'sdabench list' shows which are"
        )

    from sdabench.data.imagenet import read_split
    from sdabench.engine.suite import Suite
    from sdabench.report.accuracy import accuracy_sheet

    split = read_split(data)
    job = Suite(built, split, settings_from(**options), output or Path("runs") / suite, weights)

    earlier = job.done()
    started, todo = time.monotonic(), [name for name in built if name not in earlier]

    def announce(model: str) -> None:
        finished = todo.index(model)
        minutes = (time.monotonic() - started) / 60 / max(finished, 1) * (len(todo) - finished)
        left = f", about {ceil(minutes)} min left" if finished else ""
        click.echo(f"[{built.index(model) + 1}/{len(built)}] {model}{left}", err=True)

    if earlier:
        click.echo(f"{len(earlier)} of {len(built)} have a record already.", err=True)
    try:
        records = job.run(announce)
    except DataError:  # the network's own process has printed it
        raise click.exceptions.Exit(ExitCode.INTEGRITY) from None
    except KeyboardInterrupt:
        click.echo(f"What is done is in {job.output}; the same command continues.", err=True)
        raise
    tables = [table for table in registry.suite_tables(suite) if table.task == "classification"]
    sheet, verdicts = accuracy_sheet(tables, names, records)
    if as_json:
        echo_json([record.as_json() for record in records.values()])
    else:
        from sdabench.report.render import print_terminal

        print_terminal(sheet)
    if all(record.failure for record in records.values()):
        raise NothingMeasuredError("nothing was measured: every network failed; the table says why")
    if any(record.failure for record in records.values()):
        raise click.exceptions.Exit(ExitCode.ERROR)
    if "worse" in verdicts:
        raise click.exceptions.Exit(ExitCode.REGRESSION)
