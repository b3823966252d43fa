"""Choose the records that are comparable with the paper: all trainings of a network, or its given weights."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sdabench.records.record import Record
from sdabench.records.spec import TRAINED_HERE

UNKNOWN = "unknown"
Recipe = tuple[str, str]  # digest of the training, and of its backbone's training: empty without a backbone


@dataclass(frozen=True)
class ComparableRecords:
    """The records of one network for one task, one for each training, in the order of writing.

    ``recipes`` has the training of each record. It is empty for given weights of unknown recipe, of which
    there is one record.
    """

    records: tuple[Record, ...]
    recipes: tuple[Recipe, ...] = ()

    def of_recipes(self, chosen: Iterable[Recipe]) -> "ComparableRecords":
        """Keep the trainings with these recipes."""
        wanted = set(chosen)
        kept = [pair for pair in zip(self.records, self.recipes, strict=True) if pair[1] in wanted]
        return ComparableRecords(tuple(record for record, _ in kept), tuple(recipe for _, recipe in kept))

    def with_metric(self, metric: str) -> "ComparableRecords":
        """Keep the records that have a metric."""
        kept = [index for index, record in enumerate(self.records) if metric in record.metrics]
        recipes = tuple(self.recipes[index] for index in kept) if self.recipes else ()
        return ComparableRecords(tuple(self.records[index] for index in kept), recipes)

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


def comparable_records(records: Sequence[Record]) -> dict[tuple[str, str], ComparableRecords]:
    """Return the comparable records by task and network.

    All comparable trainings count, of any seed and recipe. A repeated training counts once, by its last
    record; an evaluation of the weights of a training is no further one. Only a network without trainings is
    represented by given weights, those of its last comparable record.
    """
    of_network: dict[tuple[str, str], list[tuple[Record, str | None]]] = {}
    backbones: dict[str | None, str] = {}
    for record in records:
        if record.comparable:
            digest = record.training_digest
            of_network.setdefault((record.task, record.model), []).append((record, digest))
            if record.task == "classification" and digest is not None:
                backbones[record.weights.sha256] = digest
    return {key: _chosen(each, backbones) for key, each in of_network.items()}


def _chosen(
    known: Sequence[tuple[Record, str | None]], backbones: Mapping[str | None, str]
) -> ComparableRecords:
    """Choose one record for each training; ``known`` are pairs of a record and its training's digest."""
    trained = [(record, digest) for record, digest in known if digest is not None]
    if not trained:
        return ComparableRecords((known[-1][0],))
    chosen = distinct_trainings(trained)
    recipes = tuple((digest, _backbone_training(record, backbones)) for record, digest in chosen)
    return ComparableRecords(tuple(record for record, _ in chosen), recipes)


def distinct_trainings(trained: Iterable[tuple[Record, str]]) -> list[tuple[Record, str]]:
    """Keep one record for each training: the last of its own evaluation, else of its weights.

    The records are those of one network and task, each with the digest of its training.
    """
    own_last = sorted(trained, key=lambda pair: pair[0].weights.source == TRAINED_HERE)
    return list({_identity(record, digest): (record, digest) for record, digest in own_last}.values())


def _identity(record: Record, digest: str) -> tuple[object, ...]:
    """What determines a training, whatever its recipe is called and where its weights are evaluated."""
    return digest, record.backbone and record.backbone.identity, seeds_of(record)


def _backbone_training(record: Record, backbones: Mapping[str | None, str]) -> str:
    if record.task == "classification":
        return ""
    sha256 = record.backbone and record.backbone.sha256
    return backbones.get(sha256, UNKNOWN) if sha256 else UNKNOWN
