"""Store and measure evaluations on a few images, for the checks of predictions and metrics.

In the folder of the golden files, ``predictions/`` holds ``records.jsonl``, ``subset.txt`` (the ids of the
images) and a file of predictions for each network.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdabench.data.subset import image_ids, write_ids
from sdabench.hashing import sha256_of_file
from sdabench.models.skeleton import ResNet
from sdabench.records.class_predictions import ClassPredictions
from sdabench.records.conditions import differences as recorded_differences
from sdabench.records.environment import environment
from sdabench.records.json_lines import read_lines, write_lines
from sdabench.records.record import Record
from sdabench.records.spec import RANDOM, Weights
from sdabench.report.summary import describe_conditions
from sdabench.scoring.coco import read_results
from sdabench.tools.check.evaluation_jobs import RECORDS, SUBSET, JobFactory
from sdabench.tools.check.gate import Check, CheckName, Problem
from sdabench.tools.check.golden_files import ELSEWHERE, differences, registry_order
from sdabench.tools.check.seeded_inputs import seeded_network
from sdabench.training.evaluation import prepare_network
from sdabench.training.job import AnyJob, ClassificationJob
from sdabench.training.precision import strict_fp32
from sdabench.training.prediction import predict
from sdabench.training.tasks import Predictions, load_batches, task_of

CONDITIONS = ("sdabench", "python", "packages", "device", "threads")  # fields of the environment to store
SPREAD = 2.0  # standard deviation of the logits of seeded weights over the images

ImagePredictions = ClassPredictions | list[dict[str, Any]]  # the list: entries of a COCO results file


@dataclass(frozen=True)
class Evaluation:
    """The records of one network, one for each task, and its predictions: in a ``file``, or ``computed``."""

    records: tuple[Record, ...]
    file: Path | None = None
    computed: Predictions | None = None

    @property
    def record(self) -> Record:
        return self.records[0]

    @property
    def belongs_together(self) -> bool:
        """Whether the file of predictions is that of the record."""
        stored = self.record.predictions_sha256
        return self.file is None or stored is None or sha256_of_file(self.file) == stored

    @cached_property
    def predictions(self) -> ImagePredictions:
        classification = self.record.task == "classification"
        if self.file is not None:
            return ClassPredictions.read(self.file) if classification else read_results(self.file)
        computed: Any = self.computed
        predictions: ImagePredictions = computed.classes if classification else computed.results
        return predictions


@dataclass
class Evaluations:
    """The golden evaluations of a folder, and the measured ones; each network is evaluated only once.

    Args:
        make_job: returns the evaluation of a network; weights are seeded if the job has none.
    """

    folder: Path
    make_job: JobFactory
    _measured: dict[str, Evaluation] = field(init=False, default_factory=dict)
    _written: dict[str, Evaluation] = field(init=False, default_factory=dict)

    @property
    def path(self) -> Path:
        return self.folder / RECORDS

    @cached_property
    def golden(self) -> dict[str, Evaluation]:
        """The golden evaluations with both records and predictions."""
        records: dict[str, list[Record]] = defaultdict(list)
        for record in read_lines(self.path, Record):
            records[record.model].append(record)
        files = {name: self.folder / str(own[0].predictions) for name, own in records.items()}
        return {
            name: Evaluation(tuple(records[name]), file) for name, file in files.items() if file.is_file()
        }

    def check(
        self,
        name: CheckName,
        networks: Sequence[str],
        problems: Callable[[Evaluation, Evaluation], list[Problem]],
    ) -> Check[Evaluation]:
        """Make a check of these evaluations; ``problems`` compares two under the same conditions."""
        return Check(
            name,
            networks,
            lambda name: self.path,
            golden=lambda: self.golden,
            measure=self.measure,
            problems=lambda golden, measured: (
                condition_problems(golden.record, measured.record)
                or _with_conditions(golden.record, measured.record, problems(golden, measured))
            ),
            write=self.write,
        )

    def measure(self, name: str) -> Evaluation:
        if name not in self._measured:
            self._measured[name] = self._evaluate(name)
        return self._measured[name]

    def write(self, evaluations: dict[str, Evaluation]) -> None:
        """Replace the golden evaluations, but not the files of predictions that were not measured again."""
        latest = {name: self._written.get(name, each) for name, each in evaluations.items()}
        for name, each in evaluations.items():
            if each.computed is not None and name not in self._written:
                path = each.computed.write(self.path.with_name(name))
                place = {
                    "predictions": path.relative_to(self.folder).as_posix(),
                    "predictions_sha256": sha256_of_file(path),
                }
                records = tuple(record.model_copy(update=place) for record in each.records)
                latest[name] = self._written[name] = Evaluation(records, path)
        records_in_order = [record for name in registry_order(latest) for record in latest[name].records]
        write_lines(self.path, records_in_order, ELSEWHERE)
        for name in self.golden.keys() - latest.keys():
            if (file := self.golden[name].file) is not None:
                file.unlink(missing_ok=True)
        for name in self._written:  # all have the same subset
            write_ids(self.folder / SUBSET, image_ids(self.make_job(name).split))

    def _evaluate(self, name: str) -> Evaluation:
        job: AnyJob = self.make_job(name)
        device = torch.device(job.machine.device)
        with strict_fp32(device, job.machine.deterministic):
            network, weights = (
                prepare_network(job) if job.weights else (seeded_classifier(job), Weights(source=RANDOM))
            )
            predictions = predict(network, job, device)
            conditions = {key: environment(device)[key] for key in CONDITIONS}
        assert predictions is not None  # because there is a single process
        root = Path(*job.split.root.parts[-2:])  # independent of this machine
        dataset = job.split.describe(predictions.sha256).model_copy(update={"root": str(root)})
        metrics = predictions.metrics()
        records = [
            Record.of(
                job.spec,
                task,
                weights=weights,
                batch_size=job.batch_size,
                dataset=dataset,
                metrics=metrics[task],
                samples=len(job.split.items),
                environment=conditions,
            )
            for task in job.spec.tasks
        ]
        return Evaluation(tuple(records), computed=predictions)


@torch.inference_mode()
def seeded_classifier(job: ClassificationJob) -> nn.Module:
    """Build a network with seeded weights whose predictions are spread over the classes.

    With seeded weights alone, nearly all images would get the same class. Therefore the last layer is scaled
    and shifted so that the logits over all images have a mean of 0 and a standard deviation of ``SPREAD``.
    """
    network = seeded_network(job.model, job.spec.seed, num_classes=job.split.num_classes)
    assert isinstance(network, ResNet)
    task = task_of(job.spec.task)
    batches: Any = load_batches(
        task.evaluation_images(job), task.batch_of, 0, False, batch_size=job.batch_size
    )
    inputs = (batch.to(torch.device("cpu"), torch.contiguous_format).images for batch in batches)
    logits: Tensor = torch.cat([network(images) for images in inputs])
    scale = SPREAD / (logits - logits.mean(dim=0)).std()
    network.fc.weight.mul_(scale)  # type: ignore[operator]
    network.fc.bias.sub_(logits.mean(dim=0)).mul_(scale)  # type: ignore[operator]
    return network


def condition_problems(golden: Record, measured: Record) -> list[Problem]:
    """List the reasons why two evaluations cannot be compared."""
    if (golden.weights.identity, golden.seed) != (measured.weights.identity, measured.seed):
        message = f"the weights are not the golden ones: {_weights(golden)} -> {_weights(measured)}"
        return [Problem(message, status="integrity")]
    old, new = golden.dataset, measured.dataset
    if old.listing_sha256 != new.listing_sha256:
        words = f"{old.samples} of {old.name} -> {new.samples} of {new.name}, other names or sizes"
        return [Problem(f"the images are not the golden ones: {words}", status="integrity")]
    if old.fingerprint_sha256 != new.fingerprint_sha256:
        words = f"fingerprint {_short(old.fingerprint_sha256)} -> {_short(new.fingerprint_sha256)}"
        return [Problem(f"the contents of the image files changed: {words}", status="integrity")]
    if golden.protocol != measured.protocol:
        before, after = (each.protocol.model_dump() if each.protocol else {} for each in (golden, measured))
        return [Problem(f"the protocol changed: {'; '.join(differences(before, after))}")]
    return []


def _with_conditions(golden: Record, measured: Record, problems: list[Problem]) -> list[Problem]:
    """Add other recorded conditions that differ, such as versions, to the first problem, if there is one."""
    others = [each for each in recorded_differences([golden, measured]) if each.kind == "condition"]
    if not problems or not others:
        return problems
    message = f"{problems[0].message}; measured under other conditions: {describe_conditions(others)}"
    return [replace(problems[0], message=message), *problems[1:]]


def _weights(record: Record) -> str:
    if not record.weights.trained:
        return f"seed {record.seed}"
    return f"sha256 {_short(record.weights.sha256)}"


def _short(digest: str | None) -> str:
    return (digest or "none")[:12]
