"""Speed and memory of networks, as a table."""

from collections.abc import Sequence

from sdabench.report.sheet import Cell, Heading, Sheet
from sdabench.tools.bench.timing import Speed


def speed_sheet(speeds: Sequence[Speed]) -> Sheet:
    """A row for each network, a group for each mode; all under the same conditions."""
    headings = [
        Heading("model"),
        Heading("step"),
        Heading("images/s", numeric=True),
        Heading("latency median (ms)", numeric=True),
        Heading("latency p95 (ms)", numeric=True),
        Heading("spread (%)", numeric=True),
        Heading("peak memory (MB)", numeric=True),
    ]
    modes = dict.fromkeys(speed.mode for speed in speeds)
    groups = [[_row(speed) for speed in speeds if speed.mode == mode] for mode in modes]
    first = speeds[0]
    conditions, settings = first.conditions, first.environment
    side = conditions.resolution
    title = f"{conditions.batch_size} images of {side}x{side} on {settings['device']}, {conditions.precision}"
    title += ", channels last" if conditions.channels_last else ""
    title += ", compiled" if conditions.compile else ""
    memory = "tensors on the device" if settings["cuda"] else "the process's resident memory"
    notes = [
        f"{conditions.repeats} repeats after {conditions.warmup} steps of warm-up, the networks in turns. "
        "Spread is the interquartile range over the median.",
        f"Peak memory is {memory} in a step, above that without the network.",
        _settings(first),
    ]
    return Sheet(title, headings, groups, notes)


def _row(speed: Speed) -> list[Cell]:
    timing, memory = speed.timing, speed.peak_memory
    numbers = [
        f"{speed.images_per_second:,.1f}",
        f"{1000 * timing.median:,.2f}",
        f"{1000 * timing.p95:,.2f}",
        f"{timing.spread_pct:.1f}",
        "-" if memory is None else f"{memory / 1e6:,.0f}",
    ]
    return [Cell(speed.model), Cell(speed.mode), *map(Cell, numbers)]


def _settings(speed: Speed) -> str:
    settings = speed.environment
    words = f"PyTorch {settings['packages']['torch']}, {settings['threads']} threads"
    if not settings["cuda"]:
        return f"{words}."
    tf32 = "TF32" if settings["tf32_convolutions"] else "no TF32"
    chosen = "chosen by trial" if speed.conditions.cudnn_benchmark else "by its heuristics"
    return f"{words}, CUDA {settings['cuda']}, cuDNN {settings['cudnn']} ({chosen}), {tf32}."
