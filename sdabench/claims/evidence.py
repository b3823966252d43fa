"""Choose the records that may stand beside the paper: all trainings of a network, or its given weights."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sdabench.records.record import Record
from sdabench.records.spec import TRAINED_HERE

UNKNOWN = "unknown"
Recipe = tuple[str, str]  # digest of the training, and of its backbone's training: empty without a backbone


@dataclass(frozen=True)
class Evidence:
    """The records of one network for one task, one for each training, in the order of writing.

    ``recipes`` has the training of each record. It is empty for given weights of unknown recipe, of which
    there is one record.
    """

    records: tuple[Record, ...]
    recipes: tuple[Recipe, ...] = ()

    def of_recipes(self, chosen: Iterable[Recipe]) -> "Evidence":
        """Keep the trainings with these recipes."""
        wanted = set(chosen)
        kept = [pair for pair in zip(self.records, self.recipes, strict=True) if pair[1] in wanted]
        return Evidence(tuple(record for record, _ in kept), tuple(recipe for _, recipe in kept))

    def with_metric(self, metric: str) -> "Evidence":
        """Keep the records that have a metric."""
        kept = [index for index, record in enumerate(self.records) if metric in record.metrics]
        recipes = tuple(self.recipes[index] for index in kept) if self.recipes else ()
        return Evidence(tuple(self.records[index] for index in kept), recipes)

    def values(self, metric: str) -> list[float]:
        return [record.metrics[metric] for record in self.records]

    @property
    def seeds(self) -> list[tuple[Recipe, tuple[int | None, ...]]]:
        """What pairs a training with one of another network: its recipe and its seeds."""
        return [(recipe, seeds_of(one)) for one, recipe in zip(self.records, self.recipes, strict=True)]

    @property
    def limits(self) -> list[str]:
        """What is not known of the trainings, in the words of a verdict's detail."""
        if not self.recipes:
            return ["unknown recipe"]
        return ["unknown backbone"] if any(backbone == UNKNOWN for _, backbone in self.recipes) else []


def seeds_of(record: Record) -> tuple[int | None, ...]:
    return tuple(record.training.seeds) if record.training else (record.seed,)


def evidence_of(records: Sequence[Record]) -> dict[tuple[str, str], Evidence]:
    """Return the evidence by task and network.

    All comparable trainings count, of any seed and recipe. A repeated training counts once, by its last
    record; an evaluation of the weights of a training is no further one. Only a network without trainings is
    represented by given weights, those of its last comparable record.
    """
    of_network: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if record.comparable:
            of_network.setdefault((record.task, record.model), []).append(record)
    backbones = {
        record.weights.sha256: digest
        for record in records
        if record.task == "classification"
        and record.comparable
        and (digest := record.training_digest) is not None
    }
    return {key: _evidence(each, backbones) for key, each in of_network.items()}


def _evidence(records: Sequence[Record], backbones: Mapping[str | None, str]) -> Evidence:
    trained = list(_trainings(records))
    if not trained:
        return Evidence((records[-1],))
    recipes = [(one.training_digest or "", _backbone_training(one, backbones)) for one in trained]
    return Evidence(tuple(trained), tuple(recipes))


def _trainings(records: Iterable[Record]) -> Iterator[Record]:
    """Yield one record for each training: the last of its own evaluation, else of its weights."""
    known = [record for record in records if record.training_digest is not None]
    own_last = sorted(known, key=lambda record: record.weights.source == TRAINED_HERE)
    yield from {_identity(record): record for record in own_last}.values()


def _identity(record: Record) -> tuple[object, ...]:
    """What determines a training, whatever its recipe is called and where its weights are evaluated."""
    return record.training_digest, record.backbone and record.backbone.identity, seeds_of(record)


def _backbone_training(record: Record, backbones: Mapping[str | None, str]) -> str:
    if record.task == "classification":
        return ""
    sha256 = record.backbone and record.backbone.sha256
    return backbones.get(sha256, UNKNOWN) if sha256 else UNKNOWN
