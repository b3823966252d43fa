"""Show the table of speed and memory."""

from collections.abc import Sequence

from sdabench.report.sheet import Cell, Sheet, headings, row
from sdabench.tools.bench.timing import Speed


def speed_sheet(speeds: Sequence[Speed]) -> Sheet:
    """Make a table with a row for each network and a group for each mode, all under the same conditions."""
    numbers = ("images/s", "latency (ms)", "p95 (ms)", "spread (%)", "memory (MB)")
    modes = dict.fromkeys(speed.mode for speed in speeds)
    groups = [[_row(speed) for speed in speeds if speed.mode == mode] for mode in modes]
    first = speeds[0]
    conditions, settings = first.conditions, first.environment
    side = conditions.resolution
    title = f"{conditions.batch_size} images of {side}x{side} on {settings['device']}, {conditions.precision}"
    title += ", channels last" if conditions.channels_last else ""
    title += ", compiled" if conditions.compile else ""
    title += ", in CUDA graphs" if conditions.cuda_graphs else ""
    memory = "memory of tensors on the device" if settings["cuda"] else "resident memory of the process"
    notes = [
        f"Latency is the median of {conditions.repeats} steps after {conditions.warmup} warm-up steps; "
        "models are interleaved. Spread is the interquartile range divided by the median.",
        f"Memory is the peak {memory} in a step, minus that without the model.",
        _settings(first),
    ]
    return Sheet(title, [*headings("model", "step"), *headings(*numbers, numeric=True)], groups, notes)


def _row(speed: Speed) -> list[Cell]:
    timing, memory = speed.timing, speed.peak_memory
    return row(
        speed.model,
        speed.mode,
        f"{speed.images_per_second:,.1f}",
        f"{1000 * timing.median:,.2f}",
        f"{1000 * timing.p95:,.2f}",
        f"{timing.spread_pct:.1f}",
        "-" if memory is None else f"{memory / 1e6:,.0f}",
    )


def _settings(speed: Speed) -> str:
    settings = speed.environment
    threads = f"{settings['threads']} thread{'s' * (settings['threads'] != 1)}"
    words = f"PyTorch {settings['packages']['torch']}, {threads}"
    if not settings["cuda"]:
        return f"{words}."
    tf32 = "TF32" if settings["tf32_convolutions"] else "no TF32"
    chosen = "selected by timing" if speed.conditions.cudnn_benchmark else "selected by heuristics"
    return f"{words}, CUDA {settings['cuda']}, cuDNN {settings['cudnn']} ({chosen}), {tf32}."
