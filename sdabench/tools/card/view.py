"""Write a model card: Markdown below YAML that Hugging Face reads."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import yaml

from sdabench.claims.several import Run
from sdabench.claims.tables import ClaimVerdict
from sdabench.data.description import DatasetInfo
from sdabench.data.official import plural
from sdabench.nested import flattened
from sdabench.records.record import Record, Training
from sdabench.registry import load_registry
from sdabench.registry.recipes import DESCRIPTIONS
from sdabench.registry.sources import is_source
from sdabench.report.cells import measured_number, number, tolerance, verdict_cell
from sdabench.report.render import markdown_text, plain, to_markdown
from sdabench.report.sheet import Cell, Heading, Sheet, headings, row
from sdabench.report.summary import describe_dataset, describe_protocol, metric_name
from sdabench.terminal import printable
from sdabench.tex import Tex
from sdabench.tools.card.card import Card

MARK = "<!-- written by sdabench card -->"
PIPELINES = {
    "classification": "image-classification",
    "detection": "object-detection",
    "segmentation": "image-segmentation",
}
# Names of datasets and metrics at Hugging Face.
DATASETS = {"imagenet": "imagenet-1k", "coco": "coco"}
METRIC_TYPES = {"top1_pct": "accuracy", "top5_pct": "top_5_accuracy", "ap_pct": "mAP"}
PRINTED = "Printed, not measured here"


def to_card(card: Card) -> str:
    """Return the text of ``README.md``."""
    front = yaml.safe_dump(
        front_matter(card), sort_keys=False, allow_unicode=True, width=1_000_000, default_flow_style=False
    )
    parts = (_summary, _results, _paper, _training, _use, _limits, _citation)
    sections = (section for part in parts for section in part(card))
    return "\n\n".join([f"---\n{front}---\n{MARK}", *sections]) + "\n"


def front_matter(card: Card) -> dict[str, Any]:
    """Return the metadata; ``model-index`` has only what was measured with trained weights.

    Values are fractions, as Hugging Face's metrics are.
    """
    tasks = list(card.runs) or ([*card.page.model.tasks] if card.page else [])
    metadata: dict[str, Any] = {"library_name": "sdabench", "tags": ["sdabench", "pytorch"]}
    if tasks:
        metadata["pipeline_tag"] = PIPELINES[tasks[-1]]
    record = card.record
    if record is None:
        return metadata
    trained_on = record.train_dataset
    if trained_on is not None and (official := _official(trained_on)):
        metadata["datasets"] = [official]
    results = [_result(task, run) for task, run in card.runs.items() if _is_trained(run)]
    if results:
        metadata["metrics"] = list(dict.fromkeys(each["type"] for one in results for each in one["metrics"]))
        metadata["model-index"] = [{"name": printable(card.name), "results": results}]
    return metadata


def _is_trained(run: Run) -> bool:
    return run.stored[-1].record.weights.trained


def _result(task: str, run: Run) -> dict[str, Any]:
    dataset, mean = run.stored[-1].record.dataset, ""
    if run.trainings > 1:
        mean = f", mean of {run.trainings} trainings"
    return {
        "task": {"type": PIPELINES[task], "name": PIPELINES[task].replace("-", " ").capitalize()},
        "dataset": {
            "type": _official(dataset) or ("generated" if dataset.name == "synthetic" else "custom"),
            "name": _dataset_name(dataset),
            "split": "validation" if dataset.split == "val" else "train",
        },
        "metrics": [
            {
                "type": METRIC_TYPES.get(metric, metric_name(metric, task)),
                "name": f"{_metric(task, metric)}{mean}",
                "value": round(run.mean(metric) / 100, 6),
                "verified": False,
            }
            for metric in run.metrics
        ],
    }


def _official(dataset: DatasetInfo) -> str | None:
    """Return Hugging Face's name of a complete official dataset."""
    return DATASETS.get(dataset.name) if dataset.complete else None


def _dataset_name(dataset: DatasetInfo) -> str:
    """Name a dataset without its place on this machine."""
    return printable(describe_dataset(dataset.model_copy(update={"root": "a local folder"})))


def _metric(task: str, metric: str) -> str:
    return metric_name(metric, task) + " accuracy" * metric.startswith("top")


def _summary(card: Card) -> Iterator[str]:
    title = plain(card.page.model.title) if card.page else card.name
    yield f"# {markdown_text(title)}"
    if card.page is None:
        redefined = card.record is not None and not card.record.is_defined
        changed = " Its definition has changed since then: its size is not stated." if redefined else ""
        yield f"The network {markdown_text(card.name)}, measured with sdabench.{changed}"
        return
    count = card.page.count
    depth = _depth_attention({stage.kind for stage in card.page.stages} - {None})
    classes = 1000 if card.page.model.backbone is None else 80  # in the tables
    where = "" if is_source(card.name) else " of sdabench, a benchmark of the SDA-xNet paper"
    if card.page.model.plugin:
        where = f" of the plugin '{markdown_text(card.page.model.plugin)}' for sdabench"
    head = "Built without further arguments" if is_source(card.name) else f"With {classes:,} classes"
    yield (
        f"The network `{card.name}`{where}.{depth} {head} it has {count.params:,} parameters and takes "
        f"{count.macs:,} multiply-adds for an input of {'x'.join(map(str, count.input))}, both counted by "
        "sdabench."
    )
    if not card.runs:
        yield "**This card describes an architecture. No weights and no measured accuracies belong to it.**"


def _depth_attention(kinds: set[str | None]) -> str:
    """State which depth attention a network has; other kinds than the learned one are its controls."""
    if not kinds:
        return ""
    others = " and ".join(sorted(str(kind) for kind in kinds - {"learned"}))
    return f" It has selective depth attention{f' with {others} weights' if others else ''}."


def _results(card: Card) -> Iterator[str]:
    if not card.runs:
        return
    yield "## Results"
    several = any(run.trainings > 1 for run in card.runs.values())
    rows = []
    for task, run in card.runs.items():
        for metric in run.metrics:
            sd = run.sd(metric)
            spread = ["" if sd is None else f"{sd:.2f}", run.trainings or "-"] if several else []
            rows.append(row(_metric(task, metric), f"{run.mean(metric):.2f}", *spread))
    of_several = ("SD", "trainings") if several else ()
    columns = [Heading("metric"), *headings("measured (%)", *of_several, numeric=True)]
    record = next(iter(card.runs.values())).stored[-1].record
    notes = [f"Evaluated on {_dataset_name(record.dataset)}."]
    if record.protocol is not None:
        notes.append(f"Preprocessing and precision: {describe_protocol(record.protocol)}.")
    if several:
        notes.append("Mean and standard deviation (SD) over trainings with different seeds.")
    if not all(map(_is_trained, card.runs.values())):
        notes.append("The weights are random: these numbers say nothing about the network.")
    notes.append("Values in the metadata are fractions, not percent. Nobody else has verified them.")
    yield to_markdown(Sheet("Measured by sdabench", columns, [rows], notes))


def _paper(card: Card) -> Iterator[str]:
    if card.page is None or not card.page.claims:
        return
    yield "## Printed numbers"
    if card.runs:
        yield (
            "The numbers that papers print, beside what sdabench measured, with the verdict. "
            "Accuracies are compared only under the conditions of the SDA-xNet paper."
        )
    else:
        yield f"{PRINTED}: accuracies and APs below are the authors' claims. Sizes and costs were counted."
    columns = [Heading("number"), *headings("paper", "measured", "±", numeric=True), Heading("verdict")]
    rows: dict[tuple[tuple[Cell, ...], ...], list[str]] = {}  # to the titles of all tables that print them
    for (table, label), claims in groupby(card.page.claims, lambda claim: (claim.table, claim.row.label)):
        rows.setdefault(tuple(map(_cells, claims)), []).append(f"{table}: {plain(label)}")
    for cells, titles in rows.items():
        yield to_markdown(Sheet("; ".join(titles), columns, [list(map(list, cells))]))
    reasons = dict.fromkeys(
        reason for run in card.runs.values() for one in run.stored for reason in one.record.obstacles
    )
    if reasons:
        yield "Why these results are not compared with printed numbers:"
        yield _bullets(map(markdown_text, reasons))


def _cells(claim: ClaimVerdict) -> tuple[Cell, ...]:
    column = claim.column
    numbers = number(claim.reported, column.decimals), measured_number(claim.measured, column)
    half, verdict = tolerance(claim.judged), verdict_cell(claim.verdict)
    return tuple(row(Tex(f"{column.header} ({column.unit})"), *numbers, half, verdict))


def _training(card: Card) -> Iterator[str]:
    record = card.record
    if record is None:
        return
    yield "## Training"
    if record.training is None or record.recipe is None:
        source = record.weights.source
        where = "random" if source == "random" else "given; how they were trained is not recorded"
        yield f"The weights are {where}. Their sha256 is {markdown_text(record.weights.sha256 or 'unknown')}."
        return
    runs = list(card.runs.values())
    yield _trained_how(record, record.training, runs[0])
    values = flattened({key: each for key, each in record.recipe.items() if key not in DESCRIPTIONS})
    rows = [row(key, _value(value)) for key, value in values.items()]
    title = f"Recipe {record.recipe.get('name', '')}"
    yield to_markdown(Sheet(title, headings("field", "value"), [rows]))
    yield _environment(record)
    digests = [
        row(_seeds(seeds), one.record.weights.sha256 or "-")
        for one, seeds in zip(runs[0].stored, runs[0].seeds, strict=True)
    ]
    yield to_markdown(Sheet("Weights", headings("seed", "sha256"), [digests]))
    if card.classes:
        shown = ", ".join(card.classes[:1000])
        yield f"Classes, in the order of the outputs ({len(card.classes):,}): {markdown_text(shown)}"


def _trained_how(record: Record, training: Training, run: Run) -> str:
    images = _dataset_name(record.train_dataset) if record.train_dataset else "unknown images"
    start = "random weights"
    if record.initial is not None:
        start = "given weights"
    elif record.backbone is not None:
        start = "a pretrained backbone"
    seeds = f"seed{'s' * (len(run.seeds) > 1)} {', '.join(map(_seeds, run.seeds))}"
    return markdown_text(
        f"Trained by sdabench from {start} for {plural(training.epochs, 'epoch')} ({training.steps:,} steps) "
        f"on {images}. {plural(len(run.stored), 'training')}, {seeds}; the loss of the last one went "
        f"from {training.first_loss:.3f} to {training.last_loss:.3f}."
    )


def _seeds(seeds: tuple[int | None, ...]) -> str:
    return "+".join(map(str, seeds))


def _value(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return "-" if value is None else str(value)


def _environment(record: Record) -> str:
    there = record.environment
    packages = there.get("packages") or {}
    parts = [f"sdabench {there.get('sdabench', 'of unknown version')}"]
    parts += [f"{name} {version}" for name, version in packages.items() if version]
    parts += [f"Python {there['python']}"] if there.get("python") else []
    parts += [f"on {there['device']}"] if there.get("device") else []
    parts += [f"revision {record.git_revision}"] if record.git_revision else []
    return markdown_text(f"Environment: {', '.join(parts)}.")


def _use(card: Card) -> Iterator[str]:
    yield "## Intended use"
    yield (
        "Research: to check printed results, and to compare networks under equal conditions. "
        "It is not meant for decisions about people or for products."
    )
    if card.page is not None:
        classes = ""
        record = card.record
        if record is not None and card.page.model.task == "classification":
            data = record.dataset
            outputs = len(card.classes) or data.num_classes or data.classes
            classes = f", num_classes={outputs}" if outputs != 1000 else ""
        lines = ["import sdabench", "", f'model = sdabench.create_model("{card.name}"{classes})']
        if card.runs:
            lines.append('sdabench.load_weights(model, "model.safetensors")')
        yield "\n".join(["```python", *lines, "model.eval()", "```"])


def _limits(card: Card) -> Iterator[str]:
    yield "## Limits"
    limits, record = [], card.record
    if record is None:
        limits.append("Random weights recognize nothing: train the network, or load weights first.")
    else:
        if record.dataset.name == "synthetic":
            limits.append("Evaluated on generated images. The numbers say nothing about photographs.")
        elif not record.dataset.complete:
            limits.append("Not evaluated on a complete official dataset, as published numbers are.")
        few = min(run.trainings for run in card.runs.values())
        if few == 1:
            limits.append("One training: another seed gives other numbers.")
        elif few == 0:
            limits.append("These numbers are about these weights: another training gives other numbers.")
        limits.append(
            "Measured on one kind of images. Robustness, bias, calibration and other domains were not tested."
        )
    yield _bullets(limits)


def _citation(card: Card) -> Iterator[str]:
    registry = load_registry()
    papers = registry.papers_of(card.name) if card.page else []
    shipped = not is_source(card.name) and not (card.page and card.page.model.plugin)
    own = [registry.paper] if shipped else []
    entries = dict.fromkeys(paper.bibtex for paper in [*own, *papers])
    if not entries:
        return
    yield "## Citation"
    yield "\n".join(["```bibtex", "\n\n".join(entries), "```"])


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {each}" for each in lines)
