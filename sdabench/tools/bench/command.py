"""``sdabench bench``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from sdabench.cli.help import Command, option
from sdabench.cli.machine import choose_device
from sdabench.cli.options import ModelName, echo_json, json_option, progress
from sdabench.errors import UsageError
from sdabench.registry import load_registry

if TYPE_CHECKING:
    from sdabench.tools.bench.timing import Mode

EPILOG = """\b
Examples:
  sdabench bench resnet50 sda_resnet86
  sdabench bench 'sda_*' --mode inference --batch-size 1
  sdabench bench sda_pyconv86 pyconv86 --amp bf16 --channels-last --compile
  sdabench bench resnet50 --resolution 320 --json
"""


@click.command("bench", cls=Command, epilog=EPILOG)
@click.argument("patterns", nargs=-1, type=ModelName())
@option(
    "--mode", type=click.Choice(["inference", "training", "both"]), default="both", show_default=True,
    group="Steps", help="Steps to time",
)  # fmt: skip
@option(
    "--batch-size", type=click.IntRange(min=1), group="Steps",
    help="Images per batch  [default: 64 on CUDA, 4 on the CPU]",
)  # fmt: skip
@option(
    "--resolution", type=click.IntRange(32, 16384), default=224, show_default=True, group="Steps",
    help="Side of the images in pixels",
)  # fmt: skip
@option(
    "--repeats", type=click.IntRange(min=1), default=20, show_default=True, group="Steps",
    help="Number of timed steps",
)  # fmt: skip
@option(
    "--warmup", type=click.IntRange(min=1), default=3, show_default=True, group="Steps", advanced=True,
    help="Number of warm-up steps (not timed)",
)  # fmt: skip
@option(
    "--amp", type=click.Choice(["off", "bf16", "fp16"]), default="off", group="Arithmetic",
    help="Data type of automatic mixed precision",
)  # fmt: skip
@option("--channels-last", is_flag=True, group="Arithmetic", help="Use the channels_last memory format")
@option(
    "--compile", "compiled", is_flag=True, group="Arithmetic", help="Compile with torch.compile (not timed)"
)
@option("--tf32", is_flag=True, group="Arithmetic", advanced=True, help="Allow TF32 on CUDA")
@option(
    "--cudnn-benchmark", is_flag=True, group="Arithmetic", advanced=True,
    help="Let cuDNN select its algorithms by timing them",
)  # fmt: skip
@option("--device", metavar="DEVICE", group="Machine", help="Device: cpu, cuda or cuda:N  [default: auto]")
@json_option
def command(
    patterns: tuple[str, ...],
    mode: str,
    batch_size: int | None,
    amp: str,
    channels_last: bool,
    compiled: bool,
    resolution: int,
    repeats: int,
    warmup: int,
    tf32: bool,
    cudnn_benchmark: bool,
    device: str | None,
    as_json: bool,
) -> None:
    """Time models side by side: throughput, latency, peak memory.

    PATTERNS are names or wildcards of classification models. Weights and images are random. The steps of
    the models are interleaved, so that other load affects all of them alike: compare numbers of the same run.
    """
    names = _select(patterns)
    device = choose_device(device)
    from sdabench.report.render import print_terminal
    from sdabench.tools.bench.timing import MODES, Conditions, measure_speed, total_steps
    from sdabench.tools.bench.view import speed_sheet

    modes: Sequence[Mode] = [each for each in MODES if mode in (each, "both")]
    conditions = Conditions(
        device=device,
        batch_size=batch_size or (64 if device.startswith("cuda") else 4),
        resolution=resolution,
        precision="fp32" if amp == "off" else amp,  # type: ignore[arg-type]
        channels_last=channels_last,
        compile=compiled,
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
    """Select classification models: a detector that is named is an error, a wildcard skips detectors."""
    if not patterns:
        raise UsageError("name one or more models; 'sdabench list' shows all")
    from sdabench.tools.bench.timing import refuse_detectors

    registry = load_registry()
    refuse_detectors([pattern for pattern in patterns if pattern in registry.models])
    return registry.select_for("classification", patterns)
