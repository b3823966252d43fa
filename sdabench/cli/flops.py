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
from sdabench.complexity.inputs import Forward, check_names, parse_input
from sdabench.errors import UsageError
from sdabench.progress import progress
from sdabench.registry import load_registry
from sdabench.terminal import echo

if TYPE_CHECKING:
    from sdabench.complexity import Count, InputSize
    from sdabench.complexity.counters import ModuleCount
    from sdabench.report.sheet import Sheet

EPILOG = """\b
Examples:
  sdabench flops sda_pyconv86
  sdabench flops 'sda_*' resnet50 --resolution 320
  sdabench flops --suite classification --format csv > counts.csv
  sdabench flops mask_rcnn_senet101 --resolution 1330x798
  sdabench flops epsanet50 --per-module --depth 2
  sdabench flops python:./net.py:make --input 1x3x64x64 --input 1x77:int64

\b
Columns:
  params      parameters, each counted once
  trainable   parameters that training changes
  per call    parameters, counted again at each call of their module, as in the
              counter of the paper
  macs        convolution, linear and recurrent layers, as in the paper's rows
  products    matrix products outside layers, as in attention
  fvcore      default total of fvcore; for detectors only with
              --convention fvcore, which takes seconds
  total       macs with batch normalization, ReLU and pooling, if they are
              modules, not functions
  mmcv        get_flops of mmdetection; for classification networks only with
              --convention mmcv

The shape of an --input has its batch; NAME= makes it a keyword argument. A note
names each operator that counters count differently, or that depends on data.
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


def input_text(text: str) -> str:
    parse_input(text)
    return text


@click.command("flops", cls=Command, epilog=EPILOG)
@declared
def command(
    patterns: Patterns,
    suite: SuiteName,
    size: Annotated["InputSize | None", option(
        "--resolution", type=ParsedType(input_size, "SIDE|WIDTHxHEIGHT"),
        help="Input size in pixels  [default: 224; 1280x800 for detectors]")],
    inputs: Annotated[tuple[str, ...], option(
        "--input", multiple=True, type=ParsedType(input_text, "[NAME=]SHAPE[:DTYPE]"),
        help="Pass this input instead of an image (repeatable)")],
    batch: Annotated[int, option(
        "--batch", type=COUNT, default=1, show_default=True,
        help="Number of images in the batch")],
    device: Annotated[str, option(
        "--device", type=click.Choice(["meta", "cpu"]), default="meta",
        show_default=True,
        help="Use cpu if results depend on data")],
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
    other = inputs or batch != 1 or device != "meta"
    if save is not None and (per_module or size is not None or conventions or other):
        raise UsageError("--save stores the default counts; combine it only with names or --suite")
    if inputs and (size is not None or batch != 1):
        raise UsageError("--input states shapes with a batch; leave out --resolution and --batch")
    check_names(inputs)
    check_formats(form, as_json)
    if depth is not None and (as_json or not per_module):
        raise UsageError("--depth needs --per-module, and no --json, which has all levels")
    if per_module and form != "terminal":
        raise UsageError(f"--per-module prints trees, not tables; leave out --format {form}, or use --json")
    if not patterns and suite is None:
        raise UsageError("no network selected; name some, or use --suite ('sdabench list' shows all)")
    registry = load_registry()
    names = registry.select(patterns or ["*"], among=registry.suite(suite) if suite else None)
    how: Forward = {"inputs": inputs or None, "batch": batch, "device": device}
    if per_module:
        _print_trees(names, size, how, depth or 3, as_json)
        return
    from sdabench.records.counts import fresh_counts

    fvcore = True if "fvcore" in conventions else None
    with progress("counting", len(names), "networks") as advance:
        cached = save is None and not recount  # reference counts are always counted again
        counts = list(fresh_counts(names, advance, size, fvcore, cached=cached, **how).values())
    if save is not None:
        _save(save, counts)
    detectors = {name for name in names if registry.model(name).task == "detection"}
    mmcv = {name: "mmcv" in conventions or name in detectors for name in names}
    if as_json:
        echo_json([item.as_json(mmcv[item.model]) for item in counts])
    elif form in FRAME_FORMATS:
        from sdabench.report.frames import counts_frame

        echo_frame(counts_frame(counts), form)
        for text in _notes(counts):
            echo(text, err=True)
    else:
        shapes = dict.fromkeys(map(_shape, counts))
        sheets = [_sheet([item for item in counts if _shape(item) == shape], mmcv) for shape in shapes]
        show(*sheets, form=form)


def _sheet(counts: "list[Count]", mmcv: dict[str, bool]) -> "Sheet":
    from sdabench.complexity.conventions import MODULES_ONLY
    from sdabench.report.sheet import Heading, Sheet, headings, row

    columns = ["params", "trainable", "per_call", "macs"]
    columns += ["products"] if any(item.products for item in counts) else []
    columns += ["fvcore"] if any(item.fvcore is not None for item in counts) else []
    columns += ["total", *(["mmcv"] if any(mmcv[item.model] for item in counts) else [])]
    numbers = headings(*(name.replace("_", " ") for name in columns), numeric=True)
    rows = [row(item.model, *(_cell(item, name) for name in columns)) for item in counts]
    notes = ["One multiply-add counts as one operation.", MODULES_ONLY, *_notes(counts)]
    return Sheet(f"Parameters and FLOPs at {_shape(counts[0])}", [Heading("model"), *numbers], [rows], notes)


def _notes(counts: "list[Count]") -> list[str]:
    """Return where counters disagree, each with its networks."""
    models: dict[str, list[str]] = {}
    for item in counts:
        for text in item.notes:
            models.setdefault(text, []).append(item.model)
    return [f"{', '.join(names)}: {text}." for text, names in models.items()]


def _shape(counted: "Count") -> str:
    if counted.inputs:
        return ", ".join(counted.inputs)
    batch = f", batch of {counted.batch}" if counted.batch > 1 else ""
    return "x".join(map(str, counted.input[:0:-1])) + batch


def _cell(counted: "Count", column: str) -> str:
    try:
        return f"{counted.products if column == 'products' else counted.value(column):,}"  # type: ignore[arg-type]
    except LookupError:  # fvcore cannot trace it, which a note says
        return "-"


def _print_trees(
    names: list[str], size: "InputSize | None", how: "Forward", depth: int, as_json: bool
) -> None:
    from sdabench.complexity.counters import count_modules

    counted = {name: count_modules(name, size, **how) for name in names}
    if as_json:
        echo_json(
            [
                {
                    "model": name,
                    "input": list(shape),
                    "modules": [{"name": path, **module._asdict()} for path, module in modules.items()],
                }
                for name, (shape, modules) in counted.items()
            ]
        )
        return
    from sdabench.report.render import Terminal

    for name, (_, modules) in counted.items():
        Terminal().print(_tree(name, modules, depth))


def _tree(name: str, modules: "dict[str, ModuleCount]", depth: int) -> Any:
    from rich.text import Text
    from rich.tree import Tree

    def line(label: str, path: str) -> Text:
        params, macs, products = modules[path]
        share = 100 * macs / max(modules[""].macs, 1)
        return Text.assemble(
            (label, "bold"),
            f"  {params:,} params  {macs:,} MACs ",
            (f"({share:.1f} %)", "dim"),
            f"  {products:,} in products" if products else "",
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
