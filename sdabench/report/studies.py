"""Show a study: what was measured of its arms, its tests, and its decision."""

from collections.abc import Callable, Iterator, Sequence
from statistics import fmean, stdev

from sdabench.claims.studies import JudgedStudy, Outcome, TestResult
from sdabench.claims.study_power import TestPower
from sdabench.data.official import plural
from sdabench.registry.studies import (
    OF_DEPTH_WEIGHTS,
    AnyData,
    DetectionData,
    FrozenStudy,
    Study,
    of_octave,
)
from sdabench.report.cells import number, p_text, signed
from sdabench.report.sheet import Cell, Heading, Sheet, Tone, headings, row

TONES: dict[Outcome, Tone] = {"supported": "good", "contradicted": "bad", "open": "fair"}
DECIMALS = {"points": 2, "depth per octave": 4}


def octave_text(octave: int) -> str:
    """Name an octave by the sizes of its objects, as shares of the short side: 1/4–1/2 for -2."""
    return f"{_share(octave)}–{_share(octave + 1)}"


def _share(exponent: int) -> str:
    return "1" if exponent == 0 else f"1/{2**-exponent}"


def arms_sheet(judged: JudgedStudy) -> Sheet:
    """Show a row for each arm, with the mean and standard deviation over seeds of each measure."""
    study = judged.study
    shown, keys, notes = _measures(study.data)
    columns = [Heading("arm"), Heading("model"), Heading("seeds", numeric=True), *shown]
    rows = []
    for name, arm in study.arms.items():
        values = [each.values for each in judged.of_arm[name].values()]
        cells = []
        for key in keys:
            form = signed if key in OF_DEPTH_WEIGHTS else number
            decimals = DECIMALS["depth per octave" if key == "depth_slope" else "points"]
            cells.append(_over_seeds([each[key] for each in values if key in each], form, decimals))
        rows.append(row(name, arm.model, len(values), *cells))
    notes = ["Mean ± standard deviation over seeds.", *notes]
    return Sheet(f"Study {study.name}: {study.title}", columns, [rows], notes)


def _measures(data: AnyData) -> tuple[list[Heading], list[str], list[str]]:
    """Return the columns of measures, the keys of their values, and notes on them."""
    if isinstance(data, DetectionData):
        columns = headings("small", "medium", "large", "all", over="AP (%) by object size", numeric=True)
        note = (
            "AP of boxes at IoU 0.50:0.95. Small objects have areas below 32² pixels, medium ones up to 96², "
            "and large ones above."
        )
        return columns, ["ap_s_pct", "ap_m_pct", "ap_l_pct", "ap_pct"], [note]
    octaves = sorted(data.octaves, reverse=True)
    columns = headings(*map(octave_text, octaves), "mean", over="top-1 (%) by object size", numeric=True)
    columns += headings("swap drop", "depth slope", numeric=True)
    keys = [*(of_octave("top1_pct", octave) for octave in octaves), "octave_top1_pct", *OF_DEPTH_WEIGHTS]
    notes = [
        "Sizes are shares of the short side of the image.",
        "swap drop: what depth weights of images of another octave cost beyond those of other images of the "
        "same octave, in points. depth slope: attention depth per octave of object size, minus that of the "
        "untrained network.",
    ]
    return columns, keys, notes


def _over_seeds(values: Sequence[float], form: Callable[[float, int], str], decimals: int) -> str:
    if not values:
        return "-"
    spread = f" ± {stdev(values):.{decimals}f}" if len(values) > 1 else ""
    return f"{form(fmean(values), decimals)}{spread}"


def results_sheet(judged: JudgedStudy, digest: str) -> Sheet:
    """Show the tests and the decision."""
    level = f"{100 * (1 - judged.study.alpha):g} %"
    columns = [
        Heading("test"),
        *headings("estimate", "SD", f"{level} interval", "p", "p (Holm)", numeric=True),
    ]
    columns.append(Heading("verdict"))
    groups = [[_test_row(each) for each in some] for some in (judged.primary, judged.secondary) if some]
    return Sheet("Tests over seeds", columns, groups, list(_notes(judged, digest)))


def _test_row(result: TestResult) -> list[Cell]:
    decimals = DECIMALS[result.test.unit]
    estimate = "-" if result.estimate is None else signed(result.estimate, decimals)
    found = result.interval
    bounds = "-" if found is None else f"{signed(found.low, decimals)} to {signed(found.high, decimals)}"
    verdict = Cell()
    if result.verdict is not None:
        verdict = Cell(result.verdict, tone=TONES[result.verdict])
    elif result.primary:
        verdict = Cell("not decided", tone="dim")
    adjusted = p_text(result.adjusted) if result.primary else ""
    return row(
        result.name, estimate, number(result.sd, decimals), bounds, p_text(result.p), adjusted, verdict
    )


def decision_text(judged: JudgedStudy, brief: bool = False) -> str:
    """State the decision of a study, or why there is none; ``brief`` leaves out the hypothesis."""
    study = judged.study
    if judged.pilot:
        seeds = ", ".join(map(str, judged.seeds)) or "none measured"
        return f"No decision: pilot seeds ({seeds}), which the study does not use."
    if judged.missing:
        total = len(study.arms) * len(study.seeds)
        return f"No decision yet: {total - len(judged.missing)} of {plural(total, 'training')} measured."
    decision = f"Decision: {judged.decision}."
    return decision if brief else f"{decision} Hypothesis: {study.hypothesis}"


def _notes(judged: JudgedStudy, digest: str) -> Iterator[str]:
    study = judged.study
    yield decision_text(judged)
    yield (
        "SD: standard deviation between seeds. Intervals and p are those of t-tests over seeds, without "
        "correction; verdicts rest on p (Holm)."
    )
    yield f"Rule: {study.decision.words}"
    for result in judged.results:
        test = result.test
        against = f"{test.arm} minus {test.against}" if test.against else test.arm
        role = f"predicted: {test.direction}" if result.primary else "secondary, no verdict"
        text = f"{result.name}: {test.reading} ({test.key} of {against}, {test.unit}; {role})"
        if judged.is_complete and result.verdict == "open" and result.excludes_relevant_effects:
            text += f" An effect of {test.smallest_effect:g} or more is outside the interval."
        if result.is_undefined:
            text += " All seeds have the same value, so there is no t-test."
        if judged.is_complete and not result.values:
            text += " It was not measured in any training, as AP of a size that no object has."
        yield text
    yield from study.other_measurements
    if digest:
        yield digest


def declaration_sheet(frozen: FrozenStudy, state: str) -> Sheet:
    """Show what a study states before it runs."""
    study = frozen.study
    columns = [Heading("arm"), Heading("model"), Heading("title")]
    rows = [row(name, arm.model, arm.title) for name, arm in study.arms.items()]
    notes = [
        f"Hypothesis: {study.hypothesis}",
        f"Data: {_data_text(study.data)}.",
        f"Recipe {study.recipe}; seeds {', '.join(map(str, study.seeds))}.",
        *(f"{name}: {test.reading}" for name, test in study.tests.items()),
        f"Rule: {study.decision.words}",
        *([f"Pilot: {study.pilot.text}"] if study.pilot else []),
        f"Source: {study.source}",
        f"Digest {frozen.sha256[:8]}. {state}",
    ]
    return Sheet(f"Study {study.name}: {study.title}", columns, [rows], notes)


def _data_text(data: AnyData) -> str:
    if isinstance(data, DetectionData):
        categories = plural(data.categories, "generated category", "generated categories")
        images = f"{data.train:,} training and {data.val:,} validation images"
        return f"{categories}, {images}, {data.image_size} pixels"
    return (
        f"{len(data.classes)} generated classes, {data.train_per_class:,} training and "
        f"{data.val_per_class:,} validation images each, {data.image_size} pixels, objects of "
        f"{', '.join(map(octave_text, data.octaves))} of the short side"
    )


def power_sheet(study: Study, found: Sequence[TestPower]) -> Sheet:
    """Show the power of the primary tests."""
    columns = [Heading("test"), Heading("unit")]
    columns += headings(
        "pilot SD", "smallest effect", "power (%)", "effect at 80 %", "seeds for 80 %", numeric=True
    )
    rows = []
    known = {each.name: each for each in found}
    for name, test in study.tests.items():
        decimals, each = DECIMALS[test.unit], known.get(name)
        if each is None:
            rows.append(row(name, test.unit, "-", number(test.smallest_effect, decimals), "-", "-", "-"))
            continue
        sizes = [number(value, decimals) for value in (each.sd, test.smallest_effect)]
        seeds = "over 1000" if each.seeds is None else each.seeds
        rows.append(
            row(name, test.unit, *sizes, f"{100 * each.power:.0f}", number(each.detectable, decimals), seeds)
        )
    notes = [
        f"Two-sided t-tests over {plural(len(study.seeds), 'seed')} at {100 * study.alpha:g} % / "
        f"{len(study.tests)}, the strictest level of Holm's method.",
    ]
    if len(known) < len(study.tests):
        notes.append(
            "-: the pilot gives no standard deviation; 'sdabench study run NAME --seeds 100-102' measures it."
        )
    return Sheet("Power", columns, [rows], notes)


def studies_sheet(rows: Sequence[tuple[Study, str, str]]) -> Sheet:
    """List studies with their digests and what was measured."""
    columns = headings("study", "title", "digest", "state")
    return Sheet(
        "Studies", columns, [[row(each.name, each.title, sha[:8], state) for each, sha, state in rows]]
    )
