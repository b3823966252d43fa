"""``sdabench flops``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click

from sdabench.cli.help import Command
from sdabench.cli.options import (
    COUNT,
    FILE,
    FRAME_FORMATS,
    AsJson,
    Patterns,
    Recount,
    SuiteName,
    check_formats,
    echo_frame,
    echo_json,
    format_option,
    show,
)
from sdabench.cli.parameters import ParsedType, declared, option
from sdabench.errors import UsageError
from sdabench.progress import progress
from sdabench.registry import load_registry

if TYPE_CHECKING:
    from sdabench.complexity import Count, InputSize
    from sdabench.registry.schema import Counter
    from sdabench.report.sheet import Sheet

EPILOG = """\b
Examples:
  sdabench flops sda_pyconv86
  sdabench flops 'sda_*' resnet50 --resolution 320
  sdabench flops --suite classification --json
  sdabench flops --suite classification --format csv > counts.csv
  sdabench flops mask_rcnn_senet101 --resolution 1330x798
  sdabench flops epsanet50 --per-module --depth 2

\b
Columns:
  params      parameters, each counted once
  trainable   parameters that training changes
  per call    parameters, counted again at each call of their module, as the
              counter of the paper does
  macs        convolutions and linear layers, as in the paper's own rows
  fvcore      default total of fvcore; for detectors only with
              --convention fvcore, which takes seconds
  total       macs with batch normalization, ReLU and pooling, if they are
              modules; functions count nothing, so sda_resnet50 shows less than
              resnet50
  mmcv        get_flops of mmdetection; for classification networks only with
              --convention mmcv
"""


def input_size(text: str) -> "InputSize":
    """Parse a size in pixels; return (C, H, W)."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and (height or width).isdecimal()):
        raise UsageError(f"'{text}' is not a size; use 320, or 1330x800 (width x height)")
    sides = int(width), int(height or width)
    if not all(32 <= side <= 16384 for side in sides):
        raise UsageError(f"'{text}': each side must be between 32 and 16384 pixels")
    return 3, sides[1], sides[0]


@click.command("flops", cls=Command, epilog=EPILOG)
@declared
def command(
    patterns: Patterns,
    suite: SuiteName,
    size: Annotated["InputSize | None", option(
        "--resolution", type=ParsedType(input_size, "SIDE|WIDTHxHEIGHT"),
        help="Input size in pixels  [default: 224; 1280x800 for detectors]")],
    conventions: Annotated[tuple[str, ...], option(
        "--convention", multiple=True, type=click.Choice(["mmcv", "fvcore"]),
        help="Show this convention for all networks")],
    per_module: Annotated[bool, option(
        "--per-module", is_flag=True, help="Show each network as a tree of its modules")],
    depth: Annotated[int | None, option(
        "--depth", type=COUNT, help="Number of levels that --per-module shows  [default: 3]")],
    save: Annotated[Path | None, option(
        "--save", type=FILE, help="Write the counts to a file in the format of results/counts.jsonl")],
    recount: Recount,
    form: Annotated[str, format_option()],
    as_json: AsJson,
) -> None:  # fmt: skip
    """Count parameters and FLOPs.

    PATTERNS are names or wildcards. Counts are exact integers, and one multiply-add counts as one operation.
    Counting downloads nothing and uses no GPU.
    """
    if save is not None and (per_module or size is not None or conventions):
        raise UsageError("--save stores the default counts; combine it only with names or --suite")
    check_formats(form, as_json)
    if depth is not None and (as_json or not per_module):
        raise UsageError("--depth needs --per-module, and no --json, which has all levels")
    if per_module and form != "terminal":
        raise UsageError(f"--per-module prints trees, not tables; leave out --format {form}, or use --json")
    if not patterns and suite is None:
        raise UsageError("no network selected; name some, or use --suite ('sdabench list' shows all)")
    registry = load_registry()
    names = registry.select(patterns or ["*"], among=registry.suite(suite) if suite else None)
    if per_module:
        _print_trees(names, size, depth or 3, as_json)
        return
    from sdabench.records.counts import fresh_counts

    fvcore = True if "fvcore" in conventions else None
    with progress("counting", len(names), "networks") as advance:
        cached = save is None and not recount  # reference counts are always counted again
        counts = list(fresh_counts(names, advance, size, fvcore, cached=cached).values())
    if save is not None:
        _save(save, counts)
    detectors = {name for name in names if registry.model(name).backbone is not None}
    mmcv = {name: "mmcv" in conventions or name in detectors for name in names}
    if as_json:
        echo_json([item.as_json(mmcv[item.model]) for item in counts])
    elif form in FRAME_FORMATS:
        from sdabench.report.frames import counts_frame

        echo_frame(counts_frame(counts), form)
    else:
        shapes = dict.fromkeys(item.input for item in counts)
        sheets = [_sheet([item for item in counts if item.input == shape], mmcv) for shape in shapes]
        show(*sheets, form=form)


def _sheet(counts: "list[Count]", mmcv: dict[str, bool]) -> "Sheet":
    from sdabench.complexity.conventions import MODULES_ONLY
    from sdabench.report.sheet import Heading, Sheet, headings, row

    columns: list[Counter] = ["params", "trainable", "per_call", "macs"]
    columns += ["fvcore"] if any(item.fvcore is not None for item in counts) else []
    columns += ["total", *(["mmcv"] if any(mmcv[item.model] for item in counts) else [])]  # type: ignore[list-item]
    numbers = headings(*(name.replace("_", " ") for name in columns), numeric=True)
    rows = [row(item.model, *(f"{item.value(name):,}" for name in columns)) for item in counts]
    title = f"Parameters and FLOPs at {'x'.join(map(str, counts[0].input[:0:-1]))}"
    notes = ["One multiply-add counts as one operation.", MODULES_ONLY]
    return Sheet(title, [Heading("model"), *numbers], [rows], notes)


def _print_trees(names: list[str], size: "InputSize | None", depth: int, as_json: bool) -> None:
    from sdabench.complexity import DEFAULT_INPUT
    from sdabench.complexity.counters import count_modules

    sizes = {name: size or DEFAULT_INPUT[load_registry().model(name).task] for name in names}
    trees = {name: count_modules(name, size) for name, size in sizes.items()}
    if as_json:
        echo_json(
            [
                {
                    "model": name,
                    "input": list(sizes[name]),
                    "modules": [
                        {"name": path, "params": params, "macs": macs}
                        for path, (params, macs) in modules.items()
                    ],
                }
                for name, modules in trees.items()
            ]
        )
        return
    from sdabench.report.render import Terminal

    for name, modules in trees.items():
        Terminal().print(_tree(name, modules, depth))


def _tree(name: str, modules: dict[str, tuple[int, int]], depth: int) -> Any:
    from rich.text import Text
    from rich.tree import Tree

    def line(label: str, path: str) -> Text:
        params, macs = modules[path]
        share = 100 * macs / max(modules[""][1], 1)
        return Text.assemble(
            (label, "bold"), f"  {params:,} params  {macs:,} MACs ", (f"({share:.1f} %)", "dim")
        )

    trees = {"": Tree(line(name, ""))}
    for path in modules:
        parent, _, leaf = path.rpartition(".")
        if path and path.count(".") < depth and any(modules[path]):
            trees[path] = trees[parent].add(line(leaf, path))
    return trees[""]


def _save(path: Path, counts: "list[Count]") -> None:
    """Replace the counts of these networks in the file and keep the others, in the registry's order."""
    from sdabench.complexity import Count
    from sdabench.records.json_lines import read_lines, write_lines

    merged = {item.model: item for item in [*read_lines(path, Count), *counts]}
    write_lines(path, [merged[name] for name in load_registry().models if name in merged])
