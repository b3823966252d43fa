"""``sdabench weights``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sdabench.cli.options import ModelName, echo_json, json_option, progress
from sdabench.cli.sources import WeightsOption, fetched, local_file
from sdabench.errors import ExitCode, UsageError
from sdabench.registry import load_registry
from sdabench.weights.source import SUFFIXES, WeightsSource

if TYPE_CHECKING:
    from sdabench.weights.convert import Form

FORMS = ("safetensors", "state-dict", "timm", "backbone")
EPILOG = """\b
Examples:
  sdabench weights inspect model_training_m1
  sdabench weights import model_training_m1 --model sda_resnet86
  sdabench weights import timm:seresnet50 --model senet50 -o senet50.safetensors
  sdabench weights export resnet50.safetensors --model resnet50 --to timm

\b
No code of a file is ever run: classes that it names become shells that only
hold what was saved, and a file that wants anything called is refused (exit 4).
"""
SOURCE = click.argument("source", metavar="SOURCE", type=WeightsOption())
NAMED = "The name says what is written: .safetensors, or .pth or .pt as by torch.save."
OUTPUT = click.Path(dir_okay=False, path_type=Path)
WRAPPER = click.option("--wrapper", help="The key that holds the weights, if several do: ema, for instance.")


@click.group("weights", epilog=EPILOG)
def command() -> None:
    """Read, identify and convert checkpoints, anybody's, without running code from them.

    SOURCE is a file, torchvision:NAME, timm:NAME, URL#sha256=DIGEST, or where --model is said the folder of a
    training.
    """


@command.command("inspect", short_help="What a file holds, and which network it fits.")
@SOURCE
@click.option("--model", type=ModelName(), help="The account of every tensor beside this network's.")
@WRAPPER
@json_option
def inspect_(source: WeightsSource, model: str | None, wrapper: str | None, as_json: bool) -> None:
    """What a file holds, its sha256, and which network of the registry it fits.

    With --model it says whether that one fits, and lists every tensor that is missing, unexpected or of
    another shape (exit 4).
    """
    from sdabench.records.counts import stored_counts
    from sdabench.report.checkpoint import print_inspection, print_problems
    from sdabench.weights.identify import candidates, fit
    from sdabench.weights.inspection import inspect

    if model is not None:
        load_registry().model(model)  # an unknown name is an error before anything is read
    path = local_file(source) if model is None else fetched(source, model).check().path
    found = inspect(path, wrapper)
    params = {name: count.params for name, count in stored_counts().items()}
    names = candidates(found.state, params) if model is None else [model]
    with progress("networks tried", len(names), "networks") as advance:
        fits = []
        for name in names:
            fits.append(fit(found.state, name))
            advance(1)
    if as_json:
        echo_json(found.as_json() | {"fits": [one.as_json() for one in fits]})
    else:
        print_inspection(found, fits)
        if model is not None:
            print_problems(fits[0])
    if model is not None and fits[0].problems:
        raise click.exceptions.Exit(ExitCode.INTEGRITY)


@command.command("import", short_help="Anybody's checkpoint as safetensors under our keys.")
@SOURCE
@click.option("--model", type=ModelName(), required=True, help="The network that it is of.")
@click.option("-o", "--output", type=OUTPUT, help=f"[default: MODEL.safetensors] {NAMED}")
@WRAPPER
def import_(source: WeightsSource, model: str, output: Path | None, wrapper: str | None) -> None:
    """Anybody's checkpoint of a network as safetensors under our keys, with every tensor accounted for."""
    _convert(source, model, "safetensors", output, wrapper)


@command.command("export", short_help="Weights of a network for others.")
@SOURCE
@click.option("--model", type=ModelName(), required=True, help="The network that they are of.")
@click.option(
    "--to", "form", type=click.Choice(FORMS), required=True,
    help="Our keys as safetensors or as a plain state dict, timm's keys, or a detector's backbone: no head.",
)  # fmt: skip
@click.option("-o", "--output", type=OUTPUT, help=f"[default: MODEL-FORM, .safetensors or .pth] {NAMED}")
@WRAPPER
def export(source: WeightsSource, model: str, form: "Form", output: Path | None, wrapper: str | None) -> None:
    """Weights of a network for others."""
    _convert(source, model, form, output, wrapper)


def _convert(
    source: WeightsSource, model: str, form: "Form", output: Path | None, wrapper: str | None
) -> None:
    from sdabench import __version__
    from sdabench.hashing import sha256_of_file
    from sdabench.weights.convert import FORM_SUFFIXES, converted, under_our_keys, write_weights
    from sdabench.weights.identify import num_classes_of
    from sdabench.weights.keys import unwrap_keys
    from sdabench.weights.read import read_checkpoint, state_dict_of

    load_registry().model(model)  # an unknown name is an error before anything is read
    name = model if form == "safetensors" else f"{model}-{form}"
    output = output or Path(f"{name}{FORM_SUFFIXES.get(form, '.safetensors')}")
    if output.suffix not in SUFFIXES:
        raise UsageError(
            f"name the output .safetensors, or .pth or .pt as torch.save writes it, not {output}"
        )
    path = fetched(source, model).check().path
    if output.exists() and output.samefile(path):
        raise UsageError(f"{output} is the very file that is read; name another --output")
    state = state_dict_of(read_checkpoint(path), str(source), wrapper)
    tensors = under_our_keys(state, model, str(source))
    written = converted(tensors, model, form)
    digest = sha256_of_file(path)
    notes = {"model": model, "source": str(source), "source_sha256": digest, "sdabench": __version__}
    write_weights(output, written, notes)
    theirs = f"{model} without its classifier" if num_classes_of(tensors) is None else model
    left = len(tensors) - len(written)
    head = f", without the {left} of its head" if left else ""
    click.echo(f"{source}: {len(unwrap_keys(state))} tensors, all of them those of {theirs}; sha256 {digest}")
    click.echo(f"{output}: {len(written)} tensors{head}; sha256 {sha256_of_file(output)}")
