"""``sdabench explain``."""

from typing import TYPE_CHECKING, Annotated

import click

from sdabench.cli.flops import input_size
from sdabench.cli.help import Command
from sdabench.cli.options import MODEL, AsJson, echo_json
from sdabench.cli.parameters import ParsedType, argument, declared, option
from sdabench.errors import ExitCode
from sdabench.progress import progress
from sdabench.registry import load_registry

if TYPE_CHECKING:
    from sdabench.complexity import InputSize

EPILOG = """\b
Examples:
  sdabench explain 4.12G --model resnet50
  sdabench explain --params 30.62M --model cbam50
  sdabench explain --model mask_rcnn_senet50
  sdabench explain 348.65G --model mask_rcnn_senet101 --resolution 1330x798

\b
Searched:
  conventions  params, trainable, per_call; macs, fvcore, total, mmcv
  sums         multiply-adds once or twice, linear layers or not, biases, batch
               norms once, twice or four times, ReLUs, pooling; for parameters
               also running statistics
  input sizes  squares of 192 to 320 pixels; for detectors 1280x800, 1333x800,
               1344x800, sizes around 1333x800 and other common ones
  left out     nothing or one part: stem, classifier, shortcuts, attention,
               neck, RPN, box head, mask head or its last layers

\b
Exit codes:
  0   a named convention gives each number, for the whole model at its default
      input
  3   only other settings give a number, or none does
"""


@click.command("explain", cls=Command, epilog=EPILOG)
@declared
def command(
    number: Annotated[str | None, argument(required=False)],
    model: Annotated[str, option(
        "--model", type=MODEL, required=True, help="Network that the number is printed for")],
    params: Annotated[str | None, option(
        "--params", metavar="NUMBER", help="Explain a number of parameters, such as 25.56M")],
    sizes: Annotated[tuple["InputSize", ...], option(
        "--resolution", type=ParsedType(input_size, "SIDE|WIDTHxHEIGHT"), multiple=True,
        help="Search this input size in pixels instead of the common ones")],
    as_json: AsJson,
) -> None:  # fmt: skip
    """Search how a printed number of parameters or FLOPs was counted.

    NUMBER is a number of FLOPs as printed, such as 4.12G. Without a number, the command explains those that
    the tables of the paper print for the network.

    A setting gives the number if its exact count rounds to it. Only the convention of the tables is a match;
    everything else was searched for and is a fit. A search through many settings also finds numbers that mean
    nothing, so each fit states how many settings as simple as itself would be found by chance.
    """
    from sdabench.claims.explain import parse_printed, printed_numbers, search, sizes_of

    registry = load_registry()
    registry.model(model)
    numbers = [parse_printed(number, "flops")] if number is not None else []
    numbers += [parse_printed(params, "params")] if params is not None else []
    numbers = numbers or printed_numbers(registry, model)
    with progress("counting", len(sizes_of(registry, model, numbers, sizes)), "sizes") as advance:
        searches = search(registry, model, numbers, sizes, advance)
    if as_json:
        echo_json({"model": model, "numbers": [each.as_json() for each in searches]})
    else:
        from sdabench.report.explain import print_searches

        print_searches(searches)
    if not all(each.found_plainly for each in searches):
        raise click.exceptions.Exit(ExitCode.REGRESSION)
