"""``sdabench bench``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import click

from sdabench.cli.help import Command
from sdabench.cli.machine import choose_device
from sdabench.cli.options import COUNT, PIXELS, AsJson, Patterns, echo_json
from sdabench.cli.parameters import declared, option
from sdabench.errors import UsageError
from sdabench.progress import progress
from sdabench.registry import load_registry
from sdabench.registry.sources import is_source

if TYPE_CHECKING:
    from sdabench.tools.bench.steps import Mode

EPILOG = """\b
Examples:
  sdabench bench resnet50 sda_resnet86
  sdabench bench 'sda_*' --mode inference --batch-size 1
  sdabench bench sda_pyconv86 pyconv86 --amp bf16 --channels-last --compile
  sdabench bench 'sda_*' --batch-size 1 --mode inference --cuda-graphs
  sdabench bench resnet50 --resolution 320 --json
"""


@click.command("bench", cls=Command, epilog=EPILOG)
@declared
def command(
    patterns: Patterns,
    mode: Annotated[str, option(
        "--mode", type=click.Choice(["inference", "training", "both"]), default="both", group="Steps",
        help="Steps to time")],
    batch_size: Annotated[int | None, option(
        "--batch-size", type=COUNT, group="Steps",
        help="Images per batch  [default: 64 on CUDA, 4 on the CPU]")],
    resolution: Annotated[int, option(
        "--resolution", type=PIXELS, default=224, group="Steps",
        help="Side of the images in pixels")],
    repeats: Annotated[int, option(
        "--repeats", type=COUNT, default=20, group="Steps", help="Number of timed steps")],
    warmup: Annotated[int, option(
        "--warmup", type=COUNT, default=3, group="Steps", advanced=True,
        help="Number of warm-up steps (not timed)")],
    amp: Annotated[str, option(
        "--amp", type=click.Choice(["off", "bf16", "fp16"]), default="off", group="Arithmetic",
        help="Data type of automatic mixed precision", show_default=False)],
    channels_last: Annotated[bool, option(
        "--channels-last", is_flag=True, group="Arithmetic", help="Use the channels_last memory format")],
    compiled: Annotated[bool, option(
        "--compile", is_flag=True, group="Arithmetic", help="Compile with torch.compile (not timed)")],
    cuda_graphs: Annotated[bool, option(
        "--cuda-graphs", is_flag=True, group="Arithmetic",
        help="Capture steps in CUDA graphs, and time their replays")],
    tf32: Annotated[bool, option(
        "--tf32", is_flag=True, group="Arithmetic", advanced=True, help="Allow TF32 on CUDA")],
    cudnn_benchmark: Annotated[bool, option(
        "--cudnn-benchmark", is_flag=True, group="Arithmetic", advanced=True,
        help="Let cuDNN select its algorithms by timing them")],
    device: Annotated[str | None, option(
        "--device", metavar="DEVICE", group="Machine", help="Device: cpu, cuda or cuda:N  [default: auto]")],
    as_json: AsJson,
) -> None:  # fmt: skip
    """Time models side by side: throughput, latency, peak memory.

    PATTERNS are names or wildcards of classification models. A detector of torchvision runs each layer once,
    for 1000 proposals, and in inference only. Weights and images are random. The steps of the models are
    interleaved, so that other load affects all equally: compare only numbers of one run.
    """
    names = _select(patterns)
    device = choose_device(device)
    from sdabench.report.render import print_terminal
    from sdabench.tools.bench.steps import MODES
    from sdabench.tools.bench.timing import Conditions, measure_speed, total_steps
    from sdabench.tools.bench.view import speed_sheet

    modes: Sequence[Mode] = [each for each in MODES if mode in (each, "both")]
    conditions = Conditions(
        device=device,
        batch_size=batch_size or (64 if device.startswith("cuda") else 4),
        resolution=resolution,
        precision="fp32" if amp == "off" else amp,  # type: ignore[arg-type]
        channels_last=channels_last,
        compile=compiled,
        cuda_graphs=cuda_graphs,
        tf32=tf32,
        cudnn_benchmark=cudnn_benchmark,
        warmup=warmup,
        repeats=repeats,
    )
    with progress("timing", total_steps(names, modes, conditions), "steps") as advance:
        speeds = measure_speed(names, modes, conditions, advance)
    if as_json:
        echo_json([speed.as_json() for speed in speeds])
    else:
        print_terminal(speed_sheet(speeds))


def _select(patterns: Sequence[str]) -> list[str]:
    """Select classification models; wildcards skip detectors, and the name of a detector is an error."""
    if not patterns:
        raise UsageError("name one or more models; 'sdabench list' shows all")
    from sdabench.tools.bench.timing import refuse_detectors

    registry = load_registry()
    refuse_detectors([pattern for pattern in patterns if pattern in registry.models])
    names: dict[str, None] = {}
    for pattern in patterns:
        of_library = is_source(pattern)  # detectors too, because torchvision's have no backbone with a name
        found = registry.select([pattern]) if of_library else registry.select_for("classification", [pattern])
        names |= dict.fromkeys(found)
    return list(names)
