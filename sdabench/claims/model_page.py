"""The page of a model: its lineage, structure, claims and records."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sdabench.claims.audit import count_evidence
from sdabench.claims.tables import ClaimVerdict, compare_tables
from sdabench.complexity import Count
from sdabench.records.counts import fresh_counts, known_counts
from sdabench.records.record import Record
from sdabench.registry import Registry
from sdabench.registry.schema import Model, NamedModel, Paper


@dataclass(frozen=True)
class Stage:
    """A stage of the network, and its depth-attention module, if it has one.

    The module named ``attention`` fuses ``fused`` feature maps; a learned one has ``hidden`` channels.
    """

    stage: int
    blocks: int
    channels: int
    stride: int
    attention: str | None = None
    kind: str | None = None  # of the depth attention
    fused: int = 0
    hidden: int = 0


@dataclass(frozen=True)
class ModelPage:
    name: str
    model: NamedModel
    papers: list[Paper]
    differences: list[str]  # from the authors' code
    relatives: dict[str, list[str]]  # names of related models, by their relation to this one
    stages: list[Stage]
    counts: dict[str, Count]  # of the model, its baseline and its control
    claims: list[ClaimVerdict]
    records: list[Record]

    @property
    def count(self) -> Count:
        return self.counts[self.name]

    def as_json(self) -> dict[str, Any]:
        return {
            "model": self.name,
            **{key: getattr(self.model, key) for key in ("family", "task", "title", "sources", "note")},
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


def model_page(registry: Registry, name: str, records: Sequence[Record]) -> ModelPage:
    """Collect the registry entry, the counts, the claims and the ``records`` of a model.

    Records of other models tell how a detector's backbone was trained.
    """
    model = registry.model(name)
    own = [record for record in records if record.model == name]
    known = known_counts()
    compared = dict.fromkeys(filter(None, [name, model.baseline, model.like_for_like]))
    counts = {each: known[each] if each in known else fresh_counts([each])[each] for each in compared}
    tables = [
        replace(table, rows=tuple(row for row in table.rows if row.model == name))
        for table in registry.tables.values()
    ]
    elsewhere = count_evidence(tables)
    claims = [claim for each in compare_tables(tables, counts, records, elsewhere) for claim in each.claims]
    return ModelPage(
        name=name,
        model=model,
        papers=registry.papers_of(name),
        differences=family.differences if (family := registry.families.get(model.family)) else [],
        relatives=_relatives(registry, name),
        stages=_stages(name, model) if isinstance(model, Model) else [],
        counts=counts,
        claims=claims,
        records=own,
    )


def _relatives(registry: Registry, name: str) -> dict[str, list[str]]:
    model, others = registry.model(name), registry.models.items()
    return {
        "baseline": [model.baseline] if model.baseline else [],
        "like for like": [model.like_for_like] if model.like_for_like else [],
        "baseline of": [other for other, each in others if each.baseline == name],
        "like for like of": [other for other, each in others if each.like_for_like == name],
    }


def _stages(name: str, model: Model) -> list[Stage]:
    """Read the stages from the network, built on the meta device."""
    import torch

    from sdabench.models.build import create_trunk
    from sdabench.models.depth_attention import DepthWeights, LearnedWeights

    with torch.device("meta"):
        trunk = create_trunk(name)
    stages: list[Stage] = []
    declared = zip(trunk.feature_info, model.network.depths, model.network.stage_attention, strict=True)
    for number, (info, depth, attention) in enumerate(declared, start=1):
        layer = info["module"]
        stage = Stage(number, depth, channels=info["num_chs"], stride=info["reduction"])
        for path, module in trunk.get_submodule(layer).named_modules(prefix=layer):
            if attention is not None and isinstance(module, DepthWeights):
                hidden = module.reduce.out_channels if isinstance(module, LearnedWeights) else 0
                found = {"attention": path, "kind": attention.kind, "fused": module.depth, "hidden": hidden}
                stage = replace(stage, **found)
        stages.append(stage)
    return stages
