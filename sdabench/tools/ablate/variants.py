"""The variants of a network with depth attention: declarations that differ from it in one choice."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sdabench.complexity import Count, count
from sdabench.errors import OutputError, UsageError
from sdabench.files import atomic_write
from sdabench.models.build import changed_network, create_model
from sdabench.progress import progress
from sdabench.registry import load_registry, matching
from sdabench.registry.schema import DepthAttention, Model, Network
from sdabench.registry.sources import is_source

STAGES = range(1, 5)
BLOCKS = range(2, 13)  # per stage
HIDDEN = (0.25, 0.5, 2, 4)  # multiples of min_hidden
CONTROLS = ("static", "uniform", "random")


@dataclass(frozen=True)
class Variant:
    """A network that differs from another one by ``changes`` to its declaration.

    Variants in one ``group`` make the same choice differently; ``choice`` names theirs.
    """

    name: str
    group: str
    choice: str
    changes: dict[str, Any]

    def count(self, base: str) -> Count:
        """Count parameters and multiply-adds at the default input."""
        with torch.device("meta"):
            network = create_model(base, **self.changes)
        return count(network, fvcore=False).model_copy(update={"model": self.name})


@dataclass(frozen=True)
class Ablation:
    """A network with depth attention, and its variants."""

    base: str
    variants: tuple[Variant, ...]

    @classmethod
    def of(cls, name: str) -> "Ablation":
        """List the variants of a network.

        Raises:
            UsageError: it is unknown, not for classification, or has no depth attention.
        """
        registry = load_registry()
        model = registry.model(name)
        if is_source(name) or not isinstance(model, Model):
            raise UsageError(f"'{name}' is not declared in the registry; ablate varies a declaration")
        if model.backbone is not None:
            step = "name its backbone" if model.depth_attention else "name a network with depth attention"
            backbone = model.backbone if model.depth_attention else f"sda_{model.backbone}"
            known = f", {backbone}" if backbone in registry.models else ""
            raise UsageError(f"'{name}' is a detector; {step}{known}")
        if not model.depth_attention:
            fused = f"sda_{name}"
            step = f"name {fused}" if fused in registry.models else "'sdabench list' shows networks that have"
            raise UsageError(f"'{name}' has no depth attention to vary; {step}")
        return cls(name, tuple(_variants(name, model.network)))

    @property
    def itself(self) -> Variant:
        """The network without changes."""
        return Variant(self.base, "", "as declared", {})

    @property
    def names(self) -> list[str]:
        """The network and its variants."""
        return [self.base, *(variant.name for variant in self.variants)]

    def select(self, patterns: Sequence[str]) -> "Ablation":
        """Keep the variants that match any of the names or wildcards.

        Raises:
            UsageError: one matches none of them.
        """
        chosen = matching(patterns, self.names, self.names, f"the variants of {self.base}")
        return Ablation(self.base, tuple(each for each in self.variants if each.name in chosen))

    def counts(self) -> dict[str, Count]:
        """Count the network and each variant, with a progress bar."""
        counts = {}
        with progress("counting", len(self.names), "networks") as advance:
            for variant in (self.itself, *self.variants):
                counts[variant.name] = variant.count(self.base)
                advance(1)
        return counts

    @property
    def declaration(self) -> dict[str, Any]:
        """The family of the variants, as a file of ``models/`` states it."""
        registry = load_registry()
        model = registry.models[self.base]
        paper = registry.families[model.family].paper
        return {
            "family": f"{self.base}-variants",
            **({"paper": paper.model_dump(mode="json", exclude_none=True)} if paper else {}),
            "derive": False,
            "network": _declared(model.network),
            "models": {variant.name: self._entry(variant, model) for variant in self.variants},
        }

    def _entry(self, variant: Variant, model: Model) -> dict[str, Any]:
        control = f"{self.base}-none"
        has_control = variant.name != control and variant.group not in ("head", "blocks")
        return {
            "title": f"{model.title}, {variant.choice}",
            "network": _declared(changed_network(self.base, variant.changes), set(variant.changes)),
            "baseline": self.base,
            **({"like_for_like": control} if has_control else {}),
            "note": f"Not in the paper. A variant of {self.base}.",
        }

    def write(self, folder: Path) -> Path:
        """Write the variants as a plugin in a folder; return the plugin's folder.

        Raises:
            OutputError: it cannot be written.
        """
        import yaml

        plugin = folder / f"{self.base}-variants"
        text = f"# Variants of {self.base}, written by 'sdabench ablate'.\n"
        text += yaml.safe_dump(self.declaration, sort_keys=False, width=110)
        path = plugin / "models" / f"{plugin.name}.yaml"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path, "name another --output") as file:
                file.write(text.encode())
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}; name another --output") from None
        return plugin


def _declared(network: Network, fields: set[str] | None = None) -> dict[str, Any]:
    """Return the fields of a network that are not the default, or the given ones, for YAML."""
    dumped = network.model_dump(mode="json", include=fields, exclude_defaults=fields is None)
    return dict(json.loads(json.dumps(dumped)))  # plain lists and texts


def _in_short(attention: Sequence[DepthAttention | None]) -> Any:
    """Return depth attention of four stages as a person would declare it."""
    stages = [False if each is None else each.model_dump(exclude_defaults=True) or True for each in attention]
    return stages[0] if all(each == stages[0] for each in stages) else stages


def _variants(name: str, network: Network) -> Iterator[Variant]:
    """Yield the variants, of which each keeps the batch norm before the head unless that is its choice."""
    own = network.stage_attention
    norm = {} if network.head_norm is not None else {"head_norm": True}

    def variant(suffix: str, group: str, choice: str, **changes: Any) -> Variant:
        return Variant(f"{name}-{suffix}", group, choice, changes)

    yield variant("none", "stages", "no depth attention", depth_attention=False, **norm)
    for stage in STAGES:
        alone = [each if number == stage else None for number, each in enumerate(own, start=1)]
        if any(alone) and alone != own:
            yield variant(f"stage{stage}", "stages", f"stage {stage} alone", depth_attention=_in_short(alone))
    for kind in CONTROLS:
        of_kind = [each and DepthAttention.model_validate({"kind": kind}) for each in own]
        if of_kind != own:
            yield variant(kind, "weights", f"{kind} weights", depth_attention=_in_short(of_kind))
    yield from _bottlenecks(network, variant)
    without = network.head_norm is not False
    choice = "no batch norm before the head" if without else "batch norm before the head"
    yield variant("no-head-norm" if without else "head-norm", "head", choice, head_norm=not without)
    for blocks in BLOCKS:
        if network.depths != [blocks] * 4:
            choice = f"{blocks} blocks in each stage"
            yield variant(f"blocks{blocks}", "blocks", choice, depths=[blocks] * 4)


def _bottlenecks(network: Network, variant: Callable[..., Variant]) -> Iterator[Variant]:
    """Yield variants with other values of min_hidden, unless no stage gets other hidden channels."""
    own = network.stage_attention
    channels = [width * network.expansion for width in network.widths]

    def hidden(attention: Sequence[DepthAttention | None]) -> list[int]:
        pairs = zip(attention, channels, strict=True)
        return [max(width // 16, each.min_hidden) for each, width in pairs if each and each.kind == "learned"]

    sizes = {each.min_hidden for each in own if each and each.kind == "learned"}
    for size in sorted({max(1, round(factor * size)) for size in sizes for factor in HIDDEN} - sizes):
        changed = [
            each.model_copy(update={"min_hidden": size}) if each and each.kind == "learned" else each
            for each in own
        ]
        if hidden(changed) != hidden(own):
            choice = f"at least {size} hidden channels"
            yield variant(f"hidden{size}", "bottleneck", choice, depth_attention=_in_short(changed))
