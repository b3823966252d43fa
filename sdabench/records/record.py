"""Define records: a stored result with its spec, measurements and environment. Free of torch."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from sdabench.data.description import DatasetInfo, FrozenModel, Preprocessing, Resizing
from sdabench.data.official import plural
from sdabench.hashing import sha256_of_lines
from sdabench.paths import COUNTS, OUTPUTS, registry_dir, results_dir
from sdabench.records.json_lines import read_lines
from sdabench.records.network_source import NetworkSource
from sdabench.records.spec import RANDOM, Protocol, RunSpec, SpecBase
from sdabench.registry.plugins import active_plugins
from sdabench.registry.recipes import DESCRIPTIONS, MIN_BATCH_NORM_IMAGES, RECIPES, Recipe
from sdabench.registry.schema import DataTask
from sdabench.registry.sources import is_source
from sdabench.scoring.intervals import standard_error_pct

Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
# Limits of what may differ from the paper's training, for the reasons in docs/recipes.md.
AUTHORS_BATCH_NORM_IMAGES = 64
MAX_SKIPPED_SHARE = 0.001
OFFICIAL: dict[DataTask, str] = {"classification": "imagenet", "detection": "coco"}


class Training(FrozenModel, populate_by_name=True):
    """The result of a training. Losses are means over images; ``last_loss`` is that of the last epoch.

    ``skipped_steps`` of the ``steps`` changed no weight, because their gradients in float16 were not finite.
    ``fits`` states whether the last loss fell below the recipe's limit; None if the recipe has none.
    ``unsound`` lists the faults that the check of the network found; None if the recipe has no check.
    Each batch was split into ``micro_batches`` with separate batch-norm statistics, over ``world_size``
    processes. ``learning_rate`` is that for the batch size, before any schedule. ``frozen`` states whether
    a detector's stem, first stage and batch-norm statistics were frozen, ``new_classifier`` whether initial
    weights lack a classifier of this number of classes, so that it started from random weights.
    """

    epochs: int
    steps: int
    skipped_steps: int = 0
    first_loss: float
    last_loss: float
    fits: bool | None
    unsound: tuple[str, ...] | None = None
    seconds: float
    images_per_second: float
    skipped_images: int = 0
    resumed: int = 0
    world_size: int = Field(1, alias="processes")
    micro_batches: int | None = Field(None, alias="parts")
    seeds: list[int]
    learning_rate: float | None = None
    frozen: bool | None = None
    new_classifier: bool | None = None
    best_epochs: dict[str, int] = Field(default={})

    @property
    def passes(self) -> bool:
        """Whether the network fits and is sound, as far as the recipe checks it."""
        return self.fits is not False and not self.unsound


class Failure(FrozenModel):
    kind: str
    message: str
    traceback: str | None = None


class Record(SpecBase, populate_by_name=True):
    """One result of one network: a spec, its measurements by one task's metrics, and the environment.

    Metrics are in percent, unrounded; the record of a failed job has a failure instead. ``standard_errors``
    are those of AP in percentage points; those of accuracies follow from metric and samples.
    """

    record_schema: Literal["sdabench.record/1"] = Field("sdabench.record/1", alias="schema")
    task: str
    protocol: Protocol | None = None  # None for third-party predictions
    recipe: dict[str, Any] | None = None  # as written, possibly by another version
    seed: int | None = None
    metrics: dict[str, Percent] = Field(default={})
    standard_errors: dict[str, Percent] = Field(default={})
    samples: Annotated[int, Field(ge=0)] = 0
    batch_size: int | None = None
    fitted_batch_size: int | None = None  # the batch size that fits into memory, if smaller
    training: Training | None = None
    failure: Failure | None = None
    predictions: str | None = None
    predictions_sha256: str | None = None  # of the predictions file; None in records of earlier versions
    environment: dict[str, Any] = Field(default={})
    network_source: NetworkSource | None = None  # of a network by source
    git_revision: str | None = None
    wall_seconds: float = 0.0
    peak_memory_bytes: int | None = None
    created: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))

    @classmethod
    def of(cls, spec: RunSpec, task: str, **measured: Any) -> "Record":
        """Build the record of a spec for one of its tasks."""
        shared = {name: getattr(spec, name) for name in (*SpecBase.model_fields, "seed")}
        shared |= spec.model_dump(mode="json", include={"protocol", "recipe"})
        return cls(**shared | {"task": task} | measured)

    @model_validator(mode="before")
    @classmethod
    def _recompute_the_digest(cls, data: Any) -> Any:
        """Drop the stored digest, which is computed from the other fields."""
        if isinstance(data, dict):
            return {key: value for key, value in data.items() if key != "spec_digest"}
        return data

    @property
    def key(self) -> tuple[str, str]:
        """The key of a record: the digest of its spec, and its task."""
        return self.spec_digest, self.task

    def standard_error(self, metric: str) -> float | None:
        """Return a standard error in percentage points; None if it or the metric is unknown."""
        if metric not in self.metrics or self.samples == 0:
            return None
        if self.task == "classification" and metric not in self.standard_errors:
            return standard_error_pct(self.metrics[metric], self.samples)
        return self.standard_errors.get(metric)

    @property
    def preprocessed_as_standard(self) -> bool:
        """Whether the images were preprocessed by the standard protocol, which is the paper's."""
        standard = Preprocessing() if self._data_task == "classification" else Resizing()
        return self.protocol is not None and self.protocol.preprocessing == standard

    @property
    def _data_task(self) -> DataTask:
        return "classification" if self.task == "classification" else "detection"

    def _is_official(self, dataset: DatasetInfo, split: str) -> bool:
        """Whether a dataset is the complete official split of this task."""
        whole = dataset.complete and dataset.subset_of is None and not dataset.skipped
        return whole and (dataset.name, dataset.split) == (OFFICIAL[self._data_task], split)

    @property
    def comparable(self) -> bool:
        """Whether the metrics can be compared with the paper: see :attr:`obstacles`."""
        return not self.obstacles

    @property
    def obstacles(self) -> tuple[str, ...]:
        """Why the metrics cannot be compared with the paper: one sentence for each reason.

        A comparison requires the registry's definition of the network, trained weights, the complete real
        dataset, and the paper's preprocessing in float32. Weights that sdabench trained also require the
        values of a recipe that reproduces the paper, the complete training set, and the paper's initial
        weights.
        """
        if self.failure is not None:
            return (f"The job failed: {self.failure.message}",)
        found = list(self._obstacles_of_evaluation())
        if self.recipe is not None and self.dataset.name != "synthetic":
            found += self._obstacles_of_training(self.recipe)
        return tuple(found)

    def _obstacles_of_evaluation(self) -> Iterator[str]:
        dataset = self.dataset
        if not self.is_defined:
            who = "Its code" if is_source(self.model) else "The registry"
            yield f"{who} has changed the definition of {self.model} since it was measured."
        if not self.weights.trained:
            yield "Results of random weights are not compared with printed numbers."
        if dataset.name == "synthetic":
            yield "Results on generated images are not compared with printed numbers."
            return
        if self.samples < dataset.samples:
            yield f"Only {self.samples:,} of {plural(dataset.samples, 'image')} were evaluated."
        if dataset.skipped:
            broken = plural(len(dataset.skipped), "broken image")
            yield f"Results without {broken} are not compared with printed numbers."
        elif not self._is_official(dataset, "val"):
            yield "Only results on the complete validation set are compared with printed numbers."
        if not self.preprocessed_as_standard:
            yield "Only results with the standard preprocessing are compared with printed numbers."
        if self.protocol is not None and self.protocol.precision != "fp32":
            precision = self.protocol.precision
            yield f"Results in {precision} are not compared with printed numbers; evaluate in fp32."

    def _obstacles_of_training(self, recorded: dict[str, Any]) -> Iterator[str]:
        name, judged, training = recorded.get("name"), self._judged_recipe, self.training
        if judged is None:
            yield f"The recipe {name} is of another version of sdabench, which cannot be compared."
        elif different := judged[1]:
            yield f"The recipe {name} does not reproduce the SDA-xNet paper: {', '.join(different)}."
        elif training is None:
            yield f"The record has a recipe, {name}, but does not state how the training ended."
        elif training.epochs != (epochs := judged[0].epochs):
            yield f"The network was trained for {training.epochs:,} of {epochs:,} epochs."
        if training is not None and training.unsound:
            yield f"The network is unsound: {training.unsound[0]}."
        if self.train_dataset is None or not self._is_official(self.train_dataset, "train"):
            yield "Only networks trained on the complete training set are compared with printed numbers."
        if self.task == "classification":
            if self.initial is not None:
                yield "Only classifiers trained from random weights are compared with printed numbers."
        elif self.backbone is None:
            yield "Only detectors trained from a pretrained backbone are compared with printed numbers."
        if (images := self.batch_norm_images) is not None and images < MIN_BATCH_NORM_IMAGES:
            yield f"Each batch norm saw {images} images in training, fewer than {MIN_BATCH_NORM_IMAGES}."
        if self._skipped_share > MAX_SKIPPED_SHARE:
            yield f"{self._skipped_words}, more than {MAX_SKIPPED_SHARE:.1%}."

    @property
    def remarks(self) -> tuple[str, ...]:
        """What differs from the paper and does not prevent a comparison: one sentence for each."""
        found = []
        if self.fitted_batch_size is not None:
            found.append(f"Evaluated in batches of {self.fitted_batch_size}, which fit into memory.")
        if (recipe := self._valid_recipe) is None:
            return tuple(found)
        if recipe.precision != "fp32":
            found.append(f"Trained in {recipe.precision}.")
        images = self.batch_norm_images
        if images not in (None, AUTHORS_BATCH_NORM_IMAGES):
            found.append(
                f"Each batch norm saw {images} images in training; the authors': {AUTHORS_BATCH_NORM_IMAGES}."
            )
        if 0 < self._skipped_share <= MAX_SKIPPED_SHARE:
            found.append(f"{self._skipped_words}.")
        if self.training is not None and self.training.resumed and (lost := recipe.quirks.lost_by_resume):
            times = plural(self.training.resumed, "time")
            found.append(f"Resumed {times} with {', '.join(lost)}.")
        if self.backbone is not None:
            found.append("The record does not state how the weights of the backbone were trained.")
        return tuple(found)

    @property
    def batch_norm_images(self) -> int | None:
        """Number of images that a batch norm normalizes together; None if unknown, or none is trained."""
        recipe, training = self._valid_recipe, self.training
        if recipe is None:
            return None
        counted = training.micro_batches if training else recipe.accumulate
        return recipe.batch_norm_images(
            counted or max(recipe.accumulate, training.world_size if training else 1)
        )

    @property
    def training_digest(self) -> str | None:
        """The identity of a training apart from network and seed; None for weights of unknown training.

        It is the sha256 of the recipe's values, the training set and the initial weights. The backbone of a
        detector is only distinguished from none, because each network has its own, and micro-batches make no
        difference to its frozen batch norms. How seeds are drawn makes none either, nor does what a resume
        loses if there was none, or whose statistics are kept if a batch is not split.
        """
        if self.recipe is None:
            return None
        if (recipe := self._valid_recipe) is None:
            values = {key: value for key, value in self.recipe.items() if key not in DESCRIPTIONS}
        else:
            values = recipe.decisive()
            values["accumulate"] = self.batch_norm_images
            for quirk in self._idle_quirks(recipe):
                del values[f"quirks.{quirk}"]
        trained_on = self.train_dataset.listing_sha256 if self.train_dataset else ""
        initial = self.initial.identity or "" if self.initial else RANDOM
        backbone = "backbone" if self.backbone else "none"
        return sha256_of_lines([json.dumps(values, sort_keys=True), trained_on, initial, backbone])

    def _idle_quirks(self, recipe: Recipe) -> Iterator[str]:
        """Yield the quirks that made no difference to this training."""
        yield "no_seed"
        if self.training is None or not self.training.resumed:
            yield from ("resume_without_optimizer", "resume_without_best")
        if self.batch_norm_images in (None, recipe.batch_size):
            yield "first_replica_statistics"

    @property
    def _valid_recipe(self) -> Recipe | None:
        """The recipe; None if there is none, or it is of another version."""
        judged = self._judged_recipe
        return judged and judged[0]

    @property
    def _judged_recipe(self) -> tuple[Recipe, tuple[str, ...]] | None:
        """The recipe and its deviations; None if there is none, or it is of another version."""
        if self.recipe is None:
            return None
        return _judged(json.dumps(self.recipe, sort_keys=True), self._data_task, registry_dir())

    @property
    def _skipped_share(self) -> float:
        """Share of the images drawn in training that were skipped because they are broken."""
        if self.training is None or self.train_dataset is None:
            return 0.0
        return self.training.skipped_images / max(self._drawn_images, 1)

    @property
    def _drawn_images(self) -> int:
        assert self.training is not None
        return self.training.epochs * (self.train_dataset.samples if self.train_dataset else 0)

    @property
    def _skipped_words(self) -> str:
        assert self.training is not None
        return (
            f"{self.training.skipped_images:,} of {self._drawn_images:,} images drawn in training were broken"
        )

    def as_json(self) -> dict[str, Any]:
        fields = self.model_dump(mode="json", by_alias=True)
        first = {"schema": fields.pop("schema"), "spec_digest": self.spec_digest}
        return first | fields


@lru_cache
def _judged(recipe: str, task: DataTask, registry: Path) -> tuple[Recipe, tuple[str, ...]] | None:
    """Validate a recipe in JSON and list its deviations; ``registry`` is the folder that they depend on."""
    try:
        valid = RECIPES[task].model_validate(json.loads(recipe))
    except ValidationError:
        return None
    return valid, tuple(valid.deviations())


def stored_record_files() -> list[Path]:
    """List the files of records in ``results/``, of this version and of plugins."""
    folders = [results_dir(), *(plugin.folder / "results" for plugin in active_plugins())]
    paths = (path for folder in folders for path in sorted(folder.glob("*.jsonl")))
    return [path for path in paths if path.name not in (COUNTS, OUTPUTS)]


def stored_records() -> list[Record]:
    """Read the records in ``results/``."""
    return [record for path in stored_record_files() for record in read_lines(path, Record)]
