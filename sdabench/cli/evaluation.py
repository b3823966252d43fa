"""The options that ``eval`` and ``run`` share."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from sdabench.cli.options import DataSource
from sdabench.engine.settings import EvaluationSettings
from sdabench.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])

OPTIONS = (
    click.option(
        "--data", type=DataSource(), required=True, help="imagenet=PATH, the folder of val/<wnid>/*.JPEG."
    ),
    click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True),
    click.option(
        "--workers", type=click.IntRange(min=0), help="Loader processes.  [default: one a core, at most 8]"
    ),
    click.option("--device", help="cpu, cuda or cuda:N.  [default: cuda where there is one]"),
    click.option(
        "--amp",
        type=click.Choice(["off", "bf16", "fp16"]),
        default="off",
        show_default=True,
        help="Mixed precision.",
    ),
    click.option("--channels-last", is_flag=True, help="Memory format of maps and weights."),
    click.option(
        "--resolution",
        type=click.IntRange(min=32),
        default=224,
        show_default=True,
        help="Side of the crop, in pixels.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(0, 2**63 - 1),
        default=0,
        show_default=True,
        help="Decides random weights.",
    ),
)


def evaluation_options(command: F) -> F:
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def settings_from(
    batch_size: int,
    workers: int | None,
    device: str | None,
    amp: str,
    channels_last: bool,
    resolution: int,
    seed: int,
    weights: Path | None = None,
) -> EvaluationSettings:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return EvaluationSettings(
        weights=weights,
        batch_size=batch_size,
        workers=min(8, cores) if workers is None else workers,
        device=choose_device(device),
        precision="fp32" if amp == "off" else amp,  # type: ignore[arg-type]
        channels_last=channels_last,
        resolution=resolution,
        seed=seed,
    )


def choose_device(name: str | None) -> str:
    """The device that is asked for, if it is there; without a wish CUDA where it is, else the CPU."""
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"'{name}' is no device; use cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"no device '{name}' here: torch sees {torch.cuda.device_count()} CUDA devices; use --device cpu"
        )
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"device '{name}' is not supported; use cpu, cuda or cuda:N")
    return name
