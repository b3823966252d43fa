"""``sdabench flops``."""

from pathlib import Path
from typing import Any

import click

from sdabench.cli.options import ModelName, echo_json, json_option, progress, suite_option
from sdabench.complexity import IMAGENET_INPUT, Count
from sdabench.errors import NothingMeasuredError, UsageError
from sdabench.evidence.counts import fresh_counts
from sdabench.registry import load_registry

EPILOG = """\b
Examples:
  sdabench flops sda_pyconv86
  sdabench flops 'sda_*' resnet50 --resolution 320
  sdabench flops --suite classification --json
  sdabench flops epsanet50 --per-module --depth 2
"""


@click.command("flops", epilog=EPILOG)
@click.argument("patterns", nargs=-1, type=ModelName())
@suite_option
@click.option(
    "--resolution",
    type=click.IntRange(min=32),
    default=224,
    show_default=True,
    help="Side of the input, in pixels.",
)
@click.option("--convention", "mmcv", type=click.Choice(["mmcv"]), help="Show this convention too.")
@click.option("--per-module", is_flag=True, help="Each network as a tree of its modules.")
@click.option("--depth", type=click.IntRange(min=1), default=3, show_default=True, help="Levels of the tree.")
@click.option(
    "--save",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the counts to a file, as in results/.",
)
@json_option
def command(
    patterns: tuple[str, ...],
    suite: str | None,
    resolution: int,
    mmcv: str | None,
    per_module: bool,
    depth: int,
    save: Path | None,
    as_json: bool,
) -> None:
    r"""Count parameters and FLOPs, as exact integers.

    PATTERNS are names or wildcards. Nothing is downloaded, and no GPU is used. One multiply-add counts
    one; the README's own rows are "macs".

    \b
    params    parameters, each once
    trainable those that training would change
    per call  added at each call of their module, as the authors' counter does
    macs      convolutions and linear layers
    fvcore    fvcore's default total
    total     with batch norms, ReLUs and pooling
    mmcv      mmdetection's get_flops (with --convention mmcv)
    """
    if save is not None and (per_module or resolution != IMAGENET_INPUT[1]):
        raise UsageError("--save keeps whole counts at 224 pixels; leave out --resolution and --per-module")
    names = _choose(patterns, suite)
    input_size = (3, resolution, resolution)
    if per_module:
        _print_trees(names, input_size, depth, as_json)
        return
    with progress("counting", len(names), "networks") as advance:
        counts = list(fresh_counts(names, advance, input_size).values())
    if save is not None:
        _save(save, counts)
    if as_json:
        echo_json([item.as_json(mmcv=bool(mmcv)) for item in counts])
    else:
        _print_table(counts, bool(mmcv))


def _choose(patterns: tuple[str, ...], suite: str | None) -> list[str]:
    """The built networks that are meant; one that is named itself but not built is an error of its own."""
    if not patterns and suite is None:
        raise UsageError("which network? name some, or a --suite; 'sdabench list' shows all")
    registry = load_registry()
    names = registry.select(patterns or ["*"], among=registry.suite(suite) if suite else None)
    chosen = [name for name in names if registry.models[name].built or name in patterns]
    if not chosen:
        raise NothingMeasuredError(
            f"none of these {len(names)} networks is built yet; 'sdabench list' shows which are"
        )
    if len(chosen) < len(names):
        click.echo(f"{len(names) - len(chosen)} networks are not built yet, and left out.", err=True)
    return chosen


def _print_table(counts: list[Count], mmcv: bool) -> None:
    from sdabench.report.render import print_terminal
    from sdabench.report.table import Cell, Heading, Sheet

    columns = ["params", "trainable", "per_call", "macs", "fvcore", "total", *(["mmcv"] if mmcv else [])]
    headings = [Heading("model"), *(Heading(name.replace("_", " "), numeric=True) for name in columns)]
    rows = [
        [Cell(item.model), *(Cell(f"{item.value(name):,}") for name in columns)]  # type: ignore[arg-type]
        for item in counts
    ]
    size = "x".join(str(side) for side in counts[0].input)
    print_terminal(
        Sheet(f"Parameters and FLOPs at {size}", headings, [rows], ["One multiply-add counts one."])
    )


def _print_trees(names: list[str], input_size: tuple[int, int, int], depth: int, as_json: bool) -> None:
    from sdabench.complexity.counters import count_modules

    trees = {name: count_modules(name, input_size) for name in names}
    if as_json:
        echo_json(
            [
                {
                    "model": name,
                    "input": list(input_size),
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


def _save(path: Path, counts: list[Count]) -> None:
    """Replaces the counts of these networks in the file and keeps the others, in the registry's order."""
    from sdabench.evidence.records import read_lines, write_lines

    merged = {item.model: item for item in [*read_lines(path, Count), *counts]}
    write_lines(path, [merged[name] for name in load_registry().models if name in merged])
