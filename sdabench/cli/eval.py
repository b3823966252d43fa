"""``sdabench eval``."""

from pathlib import Path
from typing import Any

import click

from sdabench.cli.evaluation import evaluation_options, settings_from
from sdabench.cli.options import ModelName, echo_json, json_option, progress
from sdabench.errors import SdabenchError
from sdabench.registry import load_registry

EPILOG = """\b
Examples:
  sdabench eval resnet50 --data imagenet=PATH --weights resnet50.pth
  sdabench eval sda_resnet86 --data imagenet=PATH --amp bf16 --json

\b
The record goes to OUTPUT/records.jsonl, the prediction for each image to
OUTPUT/predictions/. Without --weights the network is random, and its
accuracy is chance.
"""


@click.command("eval", epilog=EPILOG)
@click.argument("name", type=ModelName())
@evaluation_options
@click.option("--weights", type=click.Path(path_type=Path), help="Checkpoint: .pth or .safetensors.")
@click.option(
    "--output", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/eval"), show_default=True
)
@json_option
def command(name: str, data: Path, weights: Path | None, output: Path, as_json: bool, **options: Any) -> None:
    """Evaluate one network on ImageNet's validation images.

    Top-1 and top-5 by the usual protocol: bilinear resize to 256, centre crop of 224. A folder with
    only some of the 1000 classes is evaluated on the right labels.
    """
    from sdabench.data.imagenet import read_split

    load_registry().network(name)  # an unknown name is an error before anything is read
    split = read_split(data)
    settings = settings_from(weights=weights, **options)

    from sdabench.engine.evaluate import evaluate
    from sdabench.engine.suite import RECORDS, failed_record
    from sdabench.evidence.records import append_line

    records = output / RECORDS
    append_line(records)
    try:
        with progress(name, len(split.items), "images") as advance:
            record = evaluate(name, split, settings, output, advance)
    except Exception as error:
        failure = failed_record(name, split, settings, error)
        append_line(records, failure.as_json())
        assert failure.failure is not None
        if isinstance(error, SdabenchError):
            raise
        raise SdabenchError(f"{name}: {failure.failure.message}") from error
    append_line(records, record.as_json())
    if as_json:
        echo_json(record.as_json())
        return
    from sdabench.report.accuracy import describe_metrics

    click.echo(describe_metrics(record))
    if not record.weights.trained:
        click.echo("Random weights: this is chance, and says nothing of the network.")
    click.echo(f"Record: {records}")
