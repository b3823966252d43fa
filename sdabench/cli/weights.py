"""``sdabench weights``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click

from sdabench.cli.help import Command, Group
from sdabench.cli.options import FILE, MODEL, AsJson, Offline, echo_json
from sdabench.cli.parameters import argument, declared, option
from sdabench.cli.sources import WEIGHTS, Wrapper, fetch_weights
from sdabench.errors import ExitCode, UsageError
from sdabench.progress import progress
from sdabench.registry import load_registry
from sdabench.registry.sources import file_name, is_source
from sdabench.terminal import echo
from sdabench.weights.weights_source import SUFFIXES, WeightsSource

if TYPE_CHECKING:
    from sdabench.weights.convert import Form

FORMS = ("safetensors", "state-dict", "timm", "backbone")
EPILOG = """\b
Examples:
  sdabench weights inspect model_training_m1
  sdabench weights import model_training_m1 --model sda_resnet86
  sdabench weights import timm:seresnet50 --model senet50 -o senet50.safetensors
  sdabench weights export resnet50.safetensors --model resnet50 --to timm
"""
INSPECT_EPILOG = """\b
Examples:
  sdabench weights inspect model_training_m1
  sdabench weights inspect checkpoint.pth --model sda_resnet86
  sdabench weights inspect checkpoint.pth --wrapper ema --json
"""
IMPORT_EPILOG = """\b
Examples:
  sdabench weights import model_training_m1 --model sda_resnet86
  sdabench weights import timm:seresnet50 --model senet50 -o senet50.safetensors
"""
EXPORT_EPILOG = """\b
Examples:
  sdabench weights export resnet50.safetensors --model resnet50 --to timm
  sdabench weights export runs/train --model resnet50 --to backbone -o body.pth

\b
Layouts for --to:
  safetensors   sdabench's keys, as safetensors
  state-dict    sdabench's keys, as torch.save writes a state dict
  timm          timm's keys
  backbone      sdabench's keys without the classifier, for a detector
"""
OUTPUT_HELP = "Output file: .safetensors, or .pth or .pt for torch.save"
Source = Annotated[WeightsSource, argument(metavar="SOURCE", type=WEIGHTS)]


@click.group("weights", cls=Group, epilog=EPILOG)
def command() -> None:
    """Inspect and convert third-party checkpoints.

    SOURCE is a file, torchvision:NAME, timm:NAME, URL#sha256=DIGEST, or, with --model, the folder of a
    training run.

    No code of a checkpoint is executed. Classes and functions that it names are replaced by stubs, which only
    hold the saved values. A file that names a function of the standard library, such as os.system, is refused
    (exit code 4).
    """


@command.command("inspect", cls=Command, epilog=INSPECT_EPILOG)
@declared
def inspect_(
    source: Source,
    model: Annotated[str | None, option(
        "--model", type=MODEL, help="Compare every tensor with this network")],
    wrapper: Wrapper,
    _offline: Offline,
    as_json: AsJson,
) -> None:  # fmt: skip
    """Show what a checkpoint contains and which network it fits.

    With --model, show whether it fits that network, and list every tensor that is missing, unexpected or of
    another shape (exit code 4).
    """
    from sdabench.records.counts import stored_counts
    from sdabench.report.checkpoint import print_inspection, print_problems
    from sdabench.weights.checkpoint_summary import summarize
    from sdabench.weights.identify import candidates, fit

    if model is not None:
        load_registry().model(model)  # an unknown name is an error before anything is read
    found = summarize(fetch_weights(source, model).check().path, wrapper)
    params = {name: count.params for name, count in stored_counts().items()}
    names = candidates(found.state_dict.tensors, params) if model is None else [model]
    with progress("comparing networks", len(names), "networks") as advance:
        fits = []
        for name in names:
            fits.append(fit(found.state_dict, name))
            advance(1)
    if as_json:
        echo_json(found.as_json() | {"fits": [one.as_json() for one in fits]})
    else:
        print_inspection(found, fits)
        if model is not None:
            print_problems(fits[0])
    if model is not None and fits[0].problems:
        raise click.exceptions.Exit(ExitCode.INTEGRITY)


@command.command("import", cls=Command, epilog=IMPORT_EPILOG)
@declared
def import_(
    source: Source,
    model: Annotated[str, option("--model", type=MODEL, required=True, help="Network of the weights")],
    output: Annotated[Path | None, option(
        "-o", "--output", type=FILE, help=f"{OUTPUT_HELP}  [default: MODEL.safetensors]")],
    wrapper: Wrapper,
    _offline: Offline,
) -> None:  # fmt: skip
    """Convert a third-party checkpoint to sdabench's key layout.

    Every tensor must belong to the network, and every tensor of the network must be present; otherwise the
    command lists the differences and writes nothing (exit code 4).
    """
    _convert(source, model, "safetensors", output, wrapper)


@command.command("export", cls=Command, epilog=EXPORT_EPILOG)
@declared
def export(
    source: Source,
    model: Annotated[str, option("--model", type=MODEL, required=True, help="Network of the weights")],
    form: Annotated["Form", option(
        "--to", type=click.Choice(FORMS), required=True, help="Key layout of the output")],
    output: Annotated[Path | None, option(
        "-o", "--output", type=FILE, help=f"{OUTPUT_HELP}  [default: MODEL-LAYOUT.safetensors or .pth]")],
    wrapper: Wrapper,
    _offline: Offline,
) -> None:  # fmt: skip
    """Convert weights to another key layout."""
    _convert(source, model, form, output, wrapper)


def _convert(
    source: WeightsSource, model: str, form: "Form", output: Path | None, wrapper: str | None
) -> None:
    from sdabench import __version__
    from sdabench.hashing import sha256_of_file
    from sdabench.weights.classes import metadata_of, read_classes
    from sdabench.weights.convert import FORM_SUFFIXES, convert, to_sdabench_keys, write_weights
    from sdabench.weights.entries import find_state
    from sdabench.weights.identify import num_classes_of
    from sdabench.weights.keys import unwrap_keys
    from sdabench.weights.read import read_checkpoint

    load_registry().model(model)  # an unknown name is an error before anything is read
    name = file_name(model) if form == "safetensors" else f"{file_name(model)}-{form}"
    output = output or Path(f"{name}{FORM_SUFFIXES.get(form, '.safetensors')}")
    if output.suffix not in SUFFIXES:
        raise UsageError(
            f"cannot write {output}: the suffix must be .safetensors, or .pth or .pt for torch.save"
        )
    path = fetch_weights(source, model).check().path
    if output.exists() and output.samefile(path):
        raise UsageError(f"{output} is also the input file; name another --output")
    found = find_state(read_checkpoint(path), str(source), wrapper)
    tensors = to_sdabench_keys(found, model, str(source))
    written = convert(tensors, model, form)
    digest = sha256_of_file(path)
    notes = {"model": model, "source": str(source), "source_sha256": digest, "sdabench": __version__}
    write_weights(output, written, notes | metadata_of(read_classes(path)))
    network = (
        f"{model} without its classifier"
        if num_classes_of(tensors, model) is None and not is_source(model)
        else model
    )
    left = len(tensors) - len(written)
    head = f" (without the {left} of the classifier)" if left else ""
    entry = f" of the entry '{found.entry}'" if found.entry else ""
    count = len(unwrap_keys(found.tensors))
    echo(f"{source}: {count} tensors{entry}, all match {network}; sha256 {digest}")
    echo(f"{output}: {len(written)} tensors{head}; sha256 {sha256_of_file(output)}")
