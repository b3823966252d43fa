"""A checkpoint file, in words."""

from collections.abc import Sequence

from rich.text import Text

from sdabench.report.render import Terminal
from sdabench.weights.checkpoint_summary import CheckpointSummary
from sdabench.weights.identify import Fit, nearest
from sdabench.weights.keys import describe_problems


def print_inspection(found: CheckpointSummary, fits: Sequence[Fit]) -> None:
    """A line for each thing that one would ask of it."""
    console = Terminal(highlight=False)
    types = ", ".join(f"{count} of {name}" for name, count in found.dtypes.items())
    classes = f"{', '.join(found.classes)} (not looked up: what they held was read)" if found.classes else ""
    lines = {
        "file": f"{found.path}, {found.size:,} bytes, {found.container}",
        "sha256": found.sha256,
        "holds": "; ".join(f"{key}: {words}" if key else words for key, words in found.entries.items()),
        "classes": classes,
        "tensors": f"{len(found.state)} ({types}), {found.parameters:,} parameters",
        "fits": _fits(fits),
    }
    for name, words in lines.items():
        if words:
            console.print(Text.assemble((f"{name:<9}", "bold"), words), soft_wrap=True)


def print_account(fit: Fit) -> None:
    """Every tensor that is not as the network wants it."""
    console = Terminal(highlight=False)
    for kind, keys in fit.problems.items():
        console.print(Text(f"{kind}:", style="bold"), soft_wrap=True)
        for key in keys:
            console.print(Text(f"  {key}"), soft_wrap=True)


def _fits(fits: Sequence[Fit]) -> str:
    """The networks that it fits; if there is none the nearest, and what keeps them apart."""
    fitting = [f"{one.model} ({_classes(one)})" for one in fits if not one.problems]
    if fitting:
        return ", ".join(fitting)
    near = nearest(fits)
    return (
        f"no network; the nearest is {near.model}: {describe_problems(near.problems)}"
        if near
        else "no network"
    )


def _classes(one: Fit) -> str:
    return "without a classifier" if one.num_classes is None else f"{one.num_classes} classes"
