"""Define records: a stored result with its spec, measurements and environment. Free of torch."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from sdabench.data.description import FrozenModel, Preprocessing, Resizing
from sdabench.paths import COUNTS, OUTPUTS, results_dir
from sdabench.records.json_lines import read_lines
from sdabench.records.spec import Protocol, RunSpec, SpecBase
from sdabench.scoring.intervals import standard_error_pct

Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


class Training(FrozenModel, populate_by_name=True):
    """The result of a training. Losses are means over images; ``last_loss`` is that of the last epoch.

    ``fits`` states whether the last loss fell below the recipe's limit; None if the recipe has none.
    Each batch was split into ``micro_batches`` with separate batch-norm statistics, over ``world_size``
    processes. ``learning_rate`` is that for the batch size, before any schedule. ``frozen`` states whether
    a detector's stem, first stage and batch-norm statistics were frozen, ``new_classifier`` whether initial
    weights lack a classifier of this number of classes, so that it started from random weights.
    """

    epochs: int
    steps: int
    first_loss: float
    last_loss: float
    fits: bool | None
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
        if self.task == "classification":
            return standard_error_pct(self.metrics[metric], self.samples)
        return self.standard_errors.get(metric)

    @property
    def preprocessed_as_standard(self) -> bool:
        """Whether the images were preprocessed by the standard protocol, which is the paper's."""
        return self.protocol is not None and self.protocol.preprocessing in (Preprocessing(), Resizing())

    @property
    def comparable(self) -> bool:
        """Whether the metrics can be compared with the paper.

        This requires the registry's definition of the network, trained weights, the complete real dataset
        and the paper's preprocessing. Weights that sdabench trained also require the paper's recipe, the
        complete training set and, for a detector, a pretrained backbone; a classifier starts from random
        weights.
        """
        return (
            self.failure is None
            and self.is_defined
            and self.dataset.complete
            and self.weights.trained
            and self.samples > 0
            and self.preprocessed_as_standard
            and (self.recipe is None or self._reproduces)
        )

    @property
    def _reproduces(self) -> bool:
        assert self.recipe is not None
        complete = self.train_dataset is not None and self.train_dataset.complete
        initialized = self.initial is None if self.task == "classification" else self.backbone is not None
        return complete and initialized and bool(self.recipe.get("reproduction"))

    def as_json(self) -> dict[str, Any]:
        fields = self.model_dump(mode="json", by_alias=True)
        first = {"schema": fields.pop("schema"), "spec_digest": self.spec_digest}
        return first | fields


def stored_records() -> list[Record]:
    """Read the records in ``results/``."""
    paths = sorted(path for path in results_dir().glob("*.jsonl") if path.name not in (COUNTS, OUTPUTS))
    return [record for path in paths for record in read_lines(path, Record)]
