"""What a user chooses for an evaluation. Free of torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdabench.data.description import DatasetInfo, Preprocessing
from sdabench.evidence.records import Precision, Protocol, Record, Weights


@dataclass(frozen=True)
class EvaluationSettings:
    """Everything but the network and the data."""

    weights: Path | None = None
    batch_size: int = 64
    workers: int = 0
    device: str = "cpu"
    precision: Precision = "fp32"
    channels_last: bool = False
    resolution: int = 224
    seed: int = 0

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing.at(self.resolution)

    def record(self, model: str, dataset: DatasetInfo, weights: Weights, **measured: Any) -> Record:
        """A record of these settings; without measurements, the question that a record answers."""
        return Record(
            model=model,
            task="classification",
            dataset=dataset,
            weights=weights,
            protocol=Protocol(
                preprocessing=self.preprocessing,
                precision=self.precision,
                channels_last=self.channels_last,
            ),
            seed=self.seed,
            batch_size=self.batch_size,
            **measured,
        )
