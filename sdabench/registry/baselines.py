"""Load the accuracies that others publish for networks of the paper's tables."""

from typing import Annotated

from pydantic import Field

from sdabench.errors import RegistryError
from sdabench.registry import Registry, unknown
from sdabench.registry.schema import Strict, Task
from sdabench.registry.yaml_files import read_model

Percent = Annotated[float, Field(gt=1, lt=100)]  # a share such as 0.76 is refused
BEST = "best"  # the highest number of all sources


class PublishedResult(Strict):
    """The metrics of one training of a network, in percent; ``task`` is that of the model by default."""

    model: str
    task: Task | None = None
    training: str
    metrics: Annotated[dict[str, Percent], Field(min_length=1)]


class Source(Strict):
    """Published results of one origin; ``place`` says where they can be read."""

    title: str
    place: str
    results: Annotated[list[PublishedResult], Field(min_length=1)]


class BaselinesFile(Strict):
    sources: dict[str, Source] = Field(min_length=1)


def load_baselines(registry: Registry) -> dict[str, Source]:
    """Read ``baselines.yaml`` of a registry.

    Raises:
        RegistryError: the file is missing or invalid, names a model or metric that its task lacks, or has two
            numbers for one training.
    """
    path = registry.folder / "baselines.yaml"
    sources = read_model(path, BaselinesFile).sources
    known: dict[str, dict[str, set[str]]] = {}  # metrics by task and model
    for table in registry.tables.values():
        metrics = {column.key for column in table.columns if column.convention is None}
        for row in table.rows:
            known.setdefault(table.task, {}).setdefault(row.model, set()).update(metrics)
    if BEST in sources:
        raise RegistryError(f"{path}: '{BEST}' stands for all sources; rename that source")
    for name, source in sources.items():
        given: set[tuple[str, str, str, str]] = set()
        for result in source.results:
            where = f"{path}: {name}: {result.model}"
            model = registry.models.get(result.model)
            task = result.task or (model.task if model else "classification")
            of_task = known[task]
            if result.model not in of_task:
                raise RegistryError(f"{where}: {unknown('model', result.model, of_task, 'no row names it')}")
            for metric in result.metrics:
                if metric not in of_task[result.model]:
                    listing = f"choose from {', '.join(sorted(of_task[result.model]))}"
                    raise RegistryError(
                        f"{where}: {unknown('metric', metric, of_task[result.model], listing)}"
                    )
                if (number := (task, result.model, result.training, metric)) in given:
                    raise RegistryError(
                        f"{where}: {metric} of '{result.training}' is given twice for {task}; remove one"
                    )
                given.add(number)
    return sources
