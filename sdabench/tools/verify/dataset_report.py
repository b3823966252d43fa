"""Reports on a dataset: its splits, leakage between them, and the order of its labels."""

from dataclasses import dataclass
from typing import Any

from sdabench.data.official import Issue
from sdabench.errors import DataError, NothingMeasuredError, SdabenchError
from sdabench.tools.verify.label_order import LabelOrder
from sdabench.tools.verify.split_report import SplitReport


@dataclass(frozen=True)
class DatasetReport:
    """The reports on all splits; ``failure``: the error if the label order could not be inferred."""

    splits: tuple[SplitReport, ...]
    leakage: Issue | None = None
    label_order: LabelOrder | None = None
    failure: SdabenchError | None = None

    @property
    def error(self) -> SdabenchError | None:
        """Why the dataset is not what it claims to be, or was not tested; None if it is sound."""
        errors = [f"{split.dataset.split}: {error.words}" for split in self.splits for error in split.errors]
        order = self.label_order
        if order is not None and order.order == "other":
            errors.append(order.words)
        if errors:
            total = f" (first of {len(errors)} errors)" if len(errors) > 1 else ""
            failure = f"; --probe failed: {self.failure}" if self.failure else ""
            return DataError(f"{errors[0]}{total}{failure}")
        if order is not None and order.order == "unknown":
            return NothingMeasuredError(order.words)
        return self.failure

    def as_json(self) -> dict[str, Any]:
        return {
            "sound": self.error is None,
            "splits": [split.as_json() for split in self.splits],
            "remarks": [self.leakage.as_json()] if self.leakage else [],
            "probe": self.label_order and self.label_order.as_json(),
        }
