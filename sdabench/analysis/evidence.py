"""The measurements in ``results/`` that speak to the paper's statements about the mechanism."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from math import log2
from pathlib import Path
from statistics import fmean

from sdabench.analysis.inspection import SHARES, FieldSize, InspectedNetwork, read_inspection
from sdabench.claims.statements import Evidence, JudgedStatement, Measured, Outcome, judge_statements
from sdabench.claims.studies import JudgedStudy, judged_in, t_test
from sdabench.claims.trainings import LEVEL, holm
from sdabench.paths import results_dir
from sdabench.records.studies import shipped_study
from sdabench.registry import Registry, load_registry
from sdabench.registry.statements import FieldProperty, Statement, load_statements
from sdabench.registry.studies import load_study

FIELDS = "receptive-fields"  # the folder in results/, with one inspection for each seed


def judged_statements(registry: Registry | None = None) -> list[JudgedStatement]:
    """Judge all statements by the printed numbers and by the measurements in ``results/``."""
    registry = registry or load_registry()
    statements = load_statements(registry)
    evidence = {
        name: study_evidence(each) if each.study is not None else field_evidence(registry, each)
        for name, each in statements.items()
        if each.is_measured
    }
    return judge_statements(registry, statements, evidence)


def study_evidence(statement: Statement) -> Evidence:
    """Return the result of the test of a study that a statement names.

    It is not measured without results, and if they are those of another version, which lacks the test.
    """
    assert statement.study is not None
    name, _, test = statement.study.partition("/")
    folder = shipped_study(name)
    judged = judged_in(folder) if folder.has_study else None
    if judged is None or test not in judged.study.tests:
        judged = JudgedStudy(load_study(name), [])
    found = judged.result(test)
    return Evidence(
        name,
        [
            Measured(
                name=" minus ".join(found.test.arms),
                metric=found.test.key,
                unit=found.test.unit,
                outcome=found.verdict,
                interval=found.interval,
                p=found.adjusted,
                trainings=len(found.values),
            )
        ],
    )


def field_evidence(registry: Registry, statement: Statement, folder: Path | None = None) -> Evidence:
    """Compare untrained networks with their controls by their receptive fields, over seeds.

    ``folder`` has one inspection for each seed [default: that in ``results/``].
    """
    assert statement.fields is not None
    folder = results_dir() / FIELDS if folder is None else folder
    seeds = [read_inspection(path).networks for path in sorted(folder.glob("*/inspection.json"))]
    networks = [{each.model: each for each in found if each.state == "untrained"} for found in seeds]
    values: dict[str, list[float]] = {}
    for model, control in _pairs(registry, statement):
        pairs = [(found[model], found[control]) for found in networks if {model, control} <= found.keys()]
        fused = _fused_stages(registry, model)
        values[f"{model} minus {control}"] = [
            property_of(own, fused, statement.fields) - property_of(other, (), statement.fields)
            for own, other in pairs
        ]
    return Evidence("untrained networks", list(_measured(values, statement.fields)))


def property_of(network: InspectedNetwork, fused: Collection[str], name: FieldProperty) -> float:
    """Return a property of the receptive fields of a network, in octaves (powers of two) of their side.

    The side of a field is that of a square whose area holds half of it. The weights of depth attention are
    taken as constant: through their pooling, each output depends on the whole image. ``range`` is from the
    smallest to the largest field that a network passes on: a ``fused`` stage passes on all its blocks,
    another stage its last block. ``stages`` is the mean over the outputs of the stages.
    """
    constant = any(each.constant_weights for each in network.fields)
    fields = [each for each in network.fields if each.constant_weights == constant and each.areas]
    if name == "stages":
        return fmean(_side(each) for each in fields if each.block is None)
    sides = [_side(each) for each in fields if (each.block is not None) == (each.stage in fused)]
    return max(sides) - min(sides)


def _side(field: FieldSize) -> float:
    """Return the side of a square that holds half of a field, in octaves of the side of the image."""
    assert field.areas is not None
    return log2(field.areas[SHARES.index(0.5)]) / 2


def _fused_stages(registry: Registry, model: str) -> set[str]:
    attention = registry.models[model].network.stage_attention
    return {f"layer{number}" for number, each in enumerate(attention, start=1) if each is not None}


def _pairs(registry: Registry, statement: Statement) -> Iterator[tuple[str, str]]:
    """Yield each network with depth attention of the tables with its control."""
    rows = [row.model for name in statement.tables for row in registry.tables[name].rows]
    for name in dict.fromkeys(rows):
        control = registry.models[name].like_for_like if name in registry.models else None
        chosen = not statement.models or any(fnmatchcase(name, each) for each in statement.models)
        if control is not None and chosen and registry.models[name].depth_attention:
            yield name, control


def _measured(values: Mapping[str, Sequence[float]], name: FieldProperty) -> Iterator[Measured]:
    """Yield the comparison of each pair; the statement predicts a larger range, or smaller fields."""
    predicted = 1 if name == "range" else -1
    metric = "range of receptive fields" if name == "range" else "receptive fields of stages"
    tested = {pair: t_test(list(each), LEVEL) for pair, each in values.items()}
    adjusted = holm({pair: found[1] for pair, found in tested.items() if found is not None})
    for pair, found in tested.items():
        if found is None:
            number = len(values[pair])  # several are equal, so that there is no t-test
            yield Measured(pair, metric, "octaves", "open" if number > 1 else None, trainings=number)
            continue
        interval, p = found
        outcome: Outcome = "open"
        if interval.estimate * predicted > 0 and p < 1 - LEVEL:
            outcome = "supported"
        elif interval.estimate * predicted < 0 and adjusted[pair] < 1 - LEVEL:
            outcome = "contradicted"
        yield Measured(pair, metric, "octaves", outcome, interval, p, len(values[pair]))
