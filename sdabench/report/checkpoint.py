"""Print the inspection of a checkpoint file."""

from collections.abc import Sequence

from sdabench.report.render import Terminal
from sdabench.weights.checkpoint_summary import CheckpointSummary
from sdabench.weights.identify import Fit, nearest, suggest_wrapper
from sdabench.weights.keys import describe_problems


def print_inspection(found: CheckpointSummary, fits: Sequence[Fit]) -> None:
    """Print the file, its contents and the models that it fits."""
    console = Terminal(highlight=False)
    types = ", ".join(f"{count} of {name}" for name, count in found.dtypes.items())
    classes = (
        f"{', '.join(found.classes)} (not imported, only their contents were read)" if found.classes else ""
    )
    lines = {
        "file": f"{found.path}, {found.size:,} bytes, {found.container}",
        "sha256": found.sha256,
        "holds": "; ".join(f"{key}: {words}" if key else words for key, words in found.entries.items()),
        "classes": classes,
        "entry": found.state_dict.entry,
        "tensors": f"{len(found.state_dict.tensors)} ({types}), {found.parameters:,} parameters",
        "fits": _fits(found, fits),
        "note": found.state_dict.module
        and "only tensors and the settings of layers were compared, not the module's code",
    }
    for name, words in lines.items():
        if words:
            console.unwrapped((f"{name:<9}", "bold"), words)


def print_problems(fit: Fit) -> None:
    """Print every tensor that is missing, unexpected or different from the model's."""
    console = Terminal(highlight=False)
    for kind, keys in fit.problems.items():
        console.unwrapped((f"{kind}{':' * bool(keys)}", "bold"))
        for key in keys:
            console.unwrapped(f"  {key}")


def _fits(found: CheckpointSummary, fits: Sequence[Fit]) -> str:
    """List the models that the tensors fit, or the nearest model with its differences."""
    fitting = [f"{fit.model} ({_classes(fit)})" for fit in fits if not fit.problems]
    if fitting:
        return ", ".join(fitting)
    near = nearest(fits)
    if near is None:
        return "no model"
    words = f"no model; the nearest is {near.model}: {describe_problems(near.problems)}"
    return words + suggest_wrapper(found.state_dict, near.model)


def _classes(fit: Fit) -> str:
    return "without a classifier" if fit.num_classes is None else f"{fit.num_classes} classes"
