"""All that is known of one network: where it comes from, how it is built, what is claimed and measured."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sdabench.claims.comparison import ComparedRow, compare
from sdabench.claims.verdicts import Verdict
from sdabench.complexity import Count
from sdabench.records.counts import fresh_counts, stored_counts
from sdabench.records.record import Record
from sdabench.registry import Registry, Table
from sdabench.registry.schema import Column, Explanation, Model, Paper


@dataclass(frozen=True)
class StagePlan:
    """A stage as it is built: the module ``attention`` fuses so many maps through ``hidden`` channels."""

    stage: int
    blocks: int
    channels: int
    stride: int
    attention: str | None = None
    fused: int = 0
    hidden: int = 0


@dataclass(frozen=True)
class Claim:
    """One number that a README table prints for the network, and what we make of it."""

    table: str
    label: str
    column: Column
    reported: float
    measured: float | None
    verdict: Verdict
    explanation: Explanation | None

    def as_json(self) -> dict[str, Any]:
        return {
            "table": self.table,
            "label": self.label,
            "claim": self.column.key,
            "reported": self.reported,
            "measured": self.measured,
            "verdict": str(self.verdict),
            "because": self.explanation and self.explanation.text,
        }


@dataclass(frozen=True)
class Profile:
    name: str
    model: Model
    papers: list[Paper]
    differences: list[str]  # from the authors' own code
    relatives: dict[str, list[str]]  # by what they are to it
    stages: list[StagePlan]
    counts: dict[str, Count]  # its own, and of those it is compared with
    claims: list[Claim]
    records: list[Record]

    @property
    def count(self) -> Count:
        return self.counts[self.name]

    def as_json(self) -> dict[str, Any]:
        described = self.model.model_dump(include={"title", "family", "task", "note", "sources"})
        return {
            "model": self.name,
            **described,
            "depth_attention": self.model.depth_attention,
            "backbone": self.model.backbone,
            "differences": self.differences,
            "papers": [paper.reference for paper in self.papers],
            "relatives": self.relatives,
            "stages": [asdict(stage) for stage in self.stages],
            "counts": self.count.as_json(mmcv=self.model.backbone is not None),
            "claims": [claim.as_json() for claim in self.claims],
            "records": [record.as_json() for record in self.records],
        }


def profile(registry: Registry, name: str, records: Sequence[Record]) -> Profile:
    """What the registry, the stored counts and some records say of a network.

    Raises:
        UsageError: there is no such network.
    """
    model = registry.model(name)
    own = [record for record in records if record.model == name]
    known = stored_counts()
    compared = dict.fromkeys(filter(None, [name, model.baseline, model.like_for_like]))
    counts = {each: known[each] if each in known else fresh_counts([each])[each] for each in compared}
    claims = [
        claim
        for table in registry.tables.values()
        for row in compare(table, counts, own)
        if row.row.model == name
        for claim in _claims(table, row)
    ]
    return Profile(
        name=name,
        model=model,
        papers=registry.papers_of(name),
        differences=registry.families[model.family].differences,
        relatives=_relatives(registry, name),
        stages=_stages(name, model),
        counts=counts,
        claims=claims,
        records=own,
    )


def _claims(table: Table, compared: ComparedRow) -> list[Claim]:
    row = compared.row
    return [
        Claim(
            table=table.name,
            label=row.label,
            column=column,
            reported=reported,
            measured=compared.measured[column.key],
            verdict=verdict,
            explanation=row.claims.get(column.key),
        )
        for column in table.columns
        if (reported := row.reported[column.key]) is not None
        and (verdict := compared.verdicts[column.key]) is not None
    ]


def _relatives(registry: Registry, name: str) -> dict[str, list[str]]:
    model, others = registry.model(name), registry.models.items()
    return {
        "baseline": [model.baseline] if model.baseline else [],
        "like for like": [model.like_for_like] if model.like_for_like else [],
        "baseline of": [other for other, each in others if each.baseline == name],
        "like for like of": [other for other, each in others if each.like_for_like == name],
    }


def _stages(name: str, model: Model) -> list[StagePlan]:
    """The stages of the network itself, built without memory for its weights."""
    import torch

    from sdabench.models.build import create_trunk
    from sdabench.models.depth_attention import DepthAttention

    with torch.device("meta"):
        trunk = create_trunk(name)
    stages: list[StagePlan] = []
    for info, depth in zip(trunk.feature_info, model.network.depths, strict=True):
        layer, number = info["module"], len(stages) + 1
        stage = StagePlan(number, depth, channels=info["num_chs"], stride=info["reduction"])
        for path, module in trunk.get_submodule(layer).named_modules(prefix=layer):
            if isinstance(module, DepthAttention):
                hidden = module.reduce.out_channels
                stage = replace(stage, attention=path, fused=len(module.select), hidden=hidden)
        stages.append(stage)
    return stages
