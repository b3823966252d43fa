"""``sdabench eval``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdabench.cli.options import ModelName, echo_json, json_option, progress
from sdabench.cli.work import PROTOCOL, DataOption, evaluation_from, folder_option, located, with_options
from sdabench.data.source import DataSource
from sdabench.errors import UsageError
from sdabench.registry import load_registry

if TYPE_CHECKING:
    from sdabench.engine.runs import TrainingRun

EPILOG = """\b
Examples:
  sdabench eval resnet50 --data imagenet=PATH --weights resnet50.pth
  sdabench eval sda_resnet86 --data imagenet=PATH --amp bf16 --json
  sdabench eval resnet50 --weights runs/train

\b
The record goes to OUTPUT/records.jsonl, the prediction for each image to
OUTPUT/predictions/. Without --weights the network is random, and its
accuracy is chance.
"""


@click.command("eval", epilog=EPILOG)
@click.argument("name", type=ModelName())
@click.option("--data", type=DataOption(), help="The dataset; for a training of ours its own by default.")
@with_options(PROTOCOL)
@click.option(
    "--weights", type=click.Path(path_type=Path),
    help="Checkpoint (.pth, .safetensors), or the folder of a training.",
)  # fmt: skip
@folder_option(Path("runs/eval"), "runs/eval")
@json_option
def command(
    name: str,
    data: DataSource | None,
    weights: Path | None,
    output: Path,
    resolution: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Evaluate one network on ImageNet's validation images, or a training of ours on its own.

    Top-1 and top-5 by the usual protocol: bilinear resize to 8/7 of the crop (256 for 224), then its
    centre. A folder with only some of the 1000 classes is evaluated on the right labels.
    """
    load_registry().network(name)  # an unknown name is an error before anything is read
    weights, run = _training_behind(weights, name)
    own = run if data is None else None  # a training of ours is evaluated on what it was made for
    if data is None:
        if own is None:
            raise UsageError(
                "name the dataset: --data imagenet=PATH, or synthetic; a training of ours has its own"
            )
        data = DataSource.parse(own.data)
    source = located(data)
    split = source.read("val").subset(own.recipe.val_images if own else None)
    resolution = resolution or (run.recipe.validation.crop if run else None)
    job = evaluation_from(name, source, split, weights, resolution=resolution, **options)

    from sdabench.engine.evaluate import evaluate
    from sdabench.engine.recording import RECORDS, recorded

    with progress(name, len(split.items), "images") as advance:
        record = recorded(
            job, output, lambda: evaluate(job, output, advance, **(run.provenance if run else {}))
        )
    if as_json:
        echo_json(record.as_json())
        return
    from sdabench.report.accuracy import describe_metrics

    click.echo(describe_metrics(record))
    if not record.weights.trained:
        click.echo("Random weights: this is chance, and says nothing of the network.")
    click.echo(f"Record: {output / RECORDS}")


def _training_behind(weights: Path | None, model: str) -> tuple[Path | None, "TrainingRun | None"]:
    """The file of weights; if they are given as the folder of a training of ours, also what that was."""
    if weights is None or not weights.is_dir():
        return weights, None
    from sdabench.engine.runs import find_run, read_run

    folder = find_run(weights, model)
    run = read_run(folder)
    return folder / run.weights["top1_pct"], run
