"""Evaluations on a few images, as they are stored and as they are made: what two checks look at.

In the folder of the baselines ``predictions/`` holds ``records.jsonl``, ``subset.txt`` (the images) and, for
each network, a file of what it said of each image.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdabench.data.subset import image_ids, write_ids
from sdabench.models.skeleton import ResNet
from sdabench.records.class_predictions import ClassPredictions
from sdabench.records.environment import environment
from sdabench.records.json_lines import read_lines
from sdabench.records.record import Record
from sdabench.records.spec import RANDOM, Weights
from sdabench.scoring.coco import read_results
from sdabench.tools.check import Problem
from sdabench.tools.check.evaluations import RECORDS, SUBSET, JobOf
from sdabench.tools.check.golden_files import in_order, write_baselines
from sdabench.tools.check.seeded_inputs import seeded_network
from sdabench.training.evaluation import prepare_network
from sdabench.training.job import AnyJob, ClassificationJob
from sdabench.training.precision import strict_fp32
from sdabench.training.prediction import predict
from sdabench.training.tasks import Predictions, load_batches, task_of

CONDITIONS = ("sdabench", "python", "packages", "device", "threads")  # that a number may depend on
SPREAD = 2.0  # standard deviation of the logits of seeded weights over the images

Said = ClassPredictions | list[dict[str, Any]]  # or entries of a COCO results file


@dataclass(frozen=True)
class Evaluated:
    """One network's records, one for each of its tasks, and what it said: in a file, or just now."""

    records: tuple[Record, ...]
    file: Path | None = None
    fresh: Predictions | None = None

    @property
    def record(self) -> Record:
        return self.records[0]

    @cached_property
    def said(self) -> Said:
        if self.file is None:
            told: Any = self.fresh
            said: Said = told.results if self.record.task != "classification" else told.classes
            return said
        detections = self.record.task != "classification"
        return read_results(self.file) if detections else ClassPredictions.read(self.file)


@dataclass
class Evaluations:
    """The stored evaluations of a folder, and new ones: each network is evaluated once.

    Args:
        job_of: how a network is evaluated; without a file of weights they are seeded.
    """

    folder: Path
    job_of: JobOf
    _measured: dict[str, Evaluated] = field(init=False, default_factory=dict)
    _written: dict[str, Evaluated] = field(init=False, default_factory=dict)

    @property
    def path(self) -> Path:
        return self.folder / RECORDS

    @cached_property
    def stored(self) -> dict[str, Evaluated]:
        """Those whose records and predictions are both there."""
        records: dict[str, list[Record]] = defaultdict(list)
        for record in read_lines(self.path, Record):
            records[record.model].append(record)
        files = {name: self.folder / str(own[0].predictions) for name, own in records.items()}
        return {
            name: Evaluated(tuple(own), files[name]) for name, own in records.items() if files[name].is_file()
        }

    def measured(self, name: str) -> Evaluated:
        if name not in self._measured:
            self._measured[name] = self._evaluate(name)
        return self._measured[name]

    def write(self, evaluations: dict[str, Evaluated]) -> None:
        """Replaces what is stored; of what was not made anew the file stays as it is."""
        latest = {name: self._written.get(name, each) for name, each in evaluations.items()}
        for name, each in evaluations.items():
            if each.fresh is not None and name not in self._written:
                path = each.fresh.write(self.path.with_name(name))
                kept = path.relative_to(self.folder).as_posix()
                records = [record.model_copy(update={"predictions": kept}) for record in each.records]
                latest[name] = self._written[name] = Evaluated(tuple(records), path)
        write_baselines(self.path, [record for name in in_order(latest) for record in latest[name].records])
        for name in self.stored.keys() - latest.keys():
            if (file := self.stored[name].file) is not None:
                file.unlink(missing_ok=True)
        for name in self._written:  # the same for all
            write_ids(self.folder / SUBSET, image_ids(self.job_of(name).split))

    def _evaluate(self, name: str) -> Evaluated:
        job: AnyJob = self.job_of(name)
        device = torch.device(job.machine.device)
        with strict_fp32(device, job.machine.deterministic):
            network, weights = prepare_network(job) if job.weights else (seeded(job), Weights(source=RANDOM))
            predictions = predict(network, job, device)
            conditions = {key: environment(device)[key] for key in CONDITIONS}
        assert predictions is not None  # of one process
        root = Path(*job.split.root.parts[-2:])  # not where it lies on this machine
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
        return Evaluated(tuple(records), fresh=predictions)


@torch.inference_mode()
def seeded(job: ClassificationJob) -> nn.Module:
    """A classifier with seeded weights whose predictions are spread over the classes.

    Seeded weights alone would give nearly all images the same class. The classifier's bias and scale are
    therefore set by the mean and the spread of the logits over all images.
    """
    network = seeded_network(job.model, job.spec.seed, num_classes=job.split.num_classes)
    assert isinstance(network, ResNet)
    task = task_of(job.spec.task)
    batches: Any = load_batches(
        task.evaluation_images(job), task.batch_of, 0, False, batch_size=job.batch_size
    )
    inputs = (batch.to(torch.device("cpu"), torch.contiguous_format).images for batch in batches)
    logits: Tensor = torch.cat([network(images) for images in inputs])
    centred = logits - logits.mean(dim=0)
    scale = SPREAD / centred.std()
    network.fc.weight.mul_(scale)  # type: ignore[operator]
    network.fc.bias.sub_(logits.mean(dim=0)).mul_(scale)  # type: ignore[operator]
    return network


def differing_conditions(was: Record, now: Record) -> list[Problem]:
    """Why two evaluations cannot be compared, if they cannot."""
    if (was.weights.identity, was.seed) != (now.weights.identity, now.seed):
        words = f"the weights are not the baseline's: {_weights(was)} -> {_weights(now)}"
        return [Problem(words, status="integrity")]
    old, new = was.dataset, now.dataset
    if old.listing_sha256 != new.listing_sha256:
        words = f"{old.samples} of {old.name} -> {new.samples} of {new.name}, other names or sizes"
        return [Problem(f"the images are not the baseline's: {words}", status="integrity")]
    if old.fingerprint_sha256 != new.fingerprint_sha256:
        words = f"fingerprint {_short(old.fingerprint_sha256)} -> {_short(new.fingerprint_sha256)}"
        return [
            Problem(f"the images' files hold other bytes than the baseline's: {words}", status="integrity")
        ]
    if was.protocol != now.protocol:
        before, after = (each.protocol.model_dump() if each.protocol else {} for each in (was, now))
        return [Problem(f"the protocol changed: {'; '.join(_changes(before, after))}")]
    return []


def _weights(record: Record) -> str:
    if not record.weights.trained:
        return f"seeded by {record.seed}"
    return f"sha256 {_short(record.weights.sha256)}"


def _short(digest: str | None) -> str:
    return (digest or "none")[:12]


def _changes(was: dict[str, Any], now: dict[str, Any]) -> list[str]:
    lines = []
    for key in was | now:
        old, new = was.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += _changes(old, new)
        elif old != new:
            lines.append(f"{key} {old} -> {new}")
    return lines
