"""Simulate how often verdicts err: many papers and reproductions of known networks, judged by this program.

    python benchmarks/verdicts.py [--repeats N] [--seed N]

Each repeat makes up a paper with one training per network, and reproductions with 1, 3 and 5 trainings. The
values of trainings are normal with the standard deviation ``--spread`` times the published one. A faithful
reproduction has the expected values of the paper's networks. Then networks that are short of the paper's,
differences between two networks, and the intervals of AP by a bootstrap over made-up images, whose population
is known.
"""

import argparse
from collections.abc import Callable

import numpy as np
from scipy.special import ndtr, ndtri

from sdabench.claims.metrics import Judged, corrected, judge_difference, judge_values
from sdabench.claims.trainings import PRIOR_SD, of_pairs
from sdabench.registry.schema import Column
from sdabench.scoring.average_precision import CategoryMatches, Floats, Integers
from sdabench.scoring.bootstrap import draws

METRIC, NUMBERS, ROUNDING = "top1_pct", 40, 0.005  # judged together, printed with two decimals
COLUMN = Column(key=METRIC, header="Top-1", unit="%", decimals=2)
SEEDS = (1, 3, 5)
DIFFERENCE = 0.7  # points of top-1, about what the paper prints over a network of the same depth
FAMILY_SPREADS = (0.67, 1.0, 1.5, 2.0)
IMAGES, RESAMPLES, GROUPS = 1000, 300, 100
CLASSES = {"20 common classes": [0.1] * 20, "20 classes, some rare": list(np.geomspace(0.008, 0.4, 20))}


def family(generator: np.random.Generator, seeds: int, sd: float, short: float = 0.0) -> dict[int, Judged]:
    """Judge a family of networks that are ``short`` points below the paper's."""
    judged = {}
    for number in range(NUMBERS):
        reported = round(float(generator.normal(78.0, sd)), 2)
        values = generator.normal(78.0 - short, sd, seeds).tolist()
        judged[number] = judge_values(reported, COLUMN, values, seeds)
    return corrected(judged)


def simulate_families(generator: np.random.Generator, repeats: int) -> None:
    print(f"{NUMBERS} faithful reproductions judged together: share of families with a red verdict (exit 3)")
    for factor in FAMILY_SPREADS:
        sd, red, alone = factor * PRIOR_SD[METRIC], {}, {}
        for seeds in SEEDS:
            families = [family(generator, seeds, sd) for _ in range(repeats)]
            red[seeds] = np.mean([_red(each) > 0 for each in families])
            alone[seeds] = np.mean([each[0].p is not None and each[0].p < 0.05 for each in families])
        texts = [f"{seeds} seeds {red[seeds]:.1%} (alone {alone[seeds]:.1%})" for seeds in SEEDS]
        print(f"  standard deviation {sd:.2f} ({factor:g} of the published): {', '.join(texts)}")


def _red(family: dict[int, Judged]) -> int:
    return sum(each.verdict.outside_tolerance for each in family.values())


def simulate_short(generator: np.random.Generator, repeats: int) -> None:
    print("Networks that are short of the paper's: share of green verdicts, and of red ones in the family")
    for short in (0.2, 0.3, 0.5, 1.0):
        texts = []
        for seeds in (*SEEDS, 10):
            families = [family(generator, seeds, 0.12, short) for _ in range(repeats // 10)]
            verdicts = [each.verdict for one in families for each in one.values()]
            green = np.mean([each.name == "within" and not each.limited for each in verdicts])
            within = np.mean([each.name == "within" for each in verdicts])
            red = np.mean([each.outside_tolerance for each in verdicts])
            texts.append(f"{seeds} seeds {green:.0%} green ({within:.0%} within), {red:.0%} red")
        print(f"  {short:g} points short: {'; '.join(texts)}")


def difference_family(
    generator: np.random.Generator, seeds: int, true: float, sd: float
) -> dict[int, Judged]:
    """Judge printed differences of ``DIFFERENCE`` points; of our networks, ``true`` points are expected.

    Pairs of networks are trained with the same seeds, as in :mod:`sdabench.claims.implied`.
    """
    judged = {}
    for number in range(NUMBERS):
        reported = round(float(generator.normal(DIFFERENCE, np.sqrt(2) * sd)), 2)
        own, other = generator.normal(true, sd, seeds), generator.normal(0.0, sd, seeds)
        estimate = of_pairs(own.tolist(), other.tolist(), PRIOR_SD[METRIC])
        verdict = judge_difference(reported, estimate.prediction(2 * ROUNDING), 0)
        assert verdict is not None
        judged[number] = Judged(verdict, p=estimate.p_value(reported, 2 * ROUNDING))
    return corrected(judged)


def simulate_differences(generator: np.random.Generator, repeats: int) -> None:
    print(f"{NUMBERS} printed differences of about {DIFFERENCE:g} points judged together")
    for true in (DIFFERENCE, DIFFERENCE / 2, 0.0):
        texts = []
        for seeds in SEEDS[1:]:
            families = [
                difference_family(generator, seeds, true, PRIOR_SD[METRIC]) for _ in range(repeats // 4)
            ]
            names = [each.verdict.name for one in families for each in one.values()]
            shares = [np.mean([each == name for each in names]) for name in ("supported", "open")]
            red = np.mean([_red(each) > 0 for each in families])
            texts.append(
                f"{seeds} seeds {shares[0]:.0%} supported, {shares[1]:.0%} open, "
                f"{red:.1%} of families with exit 3"
            )
        print(f"  {true:g} points expected of ours: {'; '.join(texts)}")


def detector(generator: np.random.Generator, objects: Integers, skill: float) -> tuple[Integers, np.ndarray]:
    """Return images and correctness of the detections of a category, by decreasing score."""
    found = objects[generator.random(len(objects)) < 0.55 + 0.3 * skill]
    wrong = generator.integers(IMAGES, size=generator.poisson(2 * len(objects) * (1 - 0.2 * skill)))
    scores = [generator.beta(4 + 2 * skill, 2, len(found)), generator.beta(1.5, 3, len(wrong))]
    order = np.argsort(-np.concatenate(scores), kind="stable")
    right = np.arange(len(order)) < len(found)
    return np.concatenate([found, wrong]).astype(np.int32)[order], right[order]


def detectors(generator: np.random.Generator, rates: list[float]) -> list[list[CategoryMatches]]:
    """Return two detectors of different skill on the same images."""
    both: list[list[CategoryMatches]] = [[], []]
    for category, rate in enumerate(rates):
        objects = generator.integers(IMAGES, size=generator.poisson(rate * IMAGES)).astype(np.int32)
        if len(objects):
            for matches, skill in zip(both, (0.0, 0.3), strict=True):
                images, right = detector(generator, objects, skill)
                all_count = np.ones_like(right)[None]
                matches.append(CategoryMatches.of(category, 0, objects, images, right[None], all_count))
    return both


def average(categories: list[CategoryMatches], weights: Integers) -> Floats:
    values = np.stack([each.average_precision(weights)[:, 0] for each in categories])
    return np.asarray(100 * np.nanmean(values, axis=0))


def bca(resampled: Floats, estimate: float, jackknife: Floats) -> Floats:
    """Compute Efron's BCa interval, with the acceleration of a jackknife over groups of images."""
    bias = ndtri((np.sum(resampled < estimate) + 0.5 * np.sum(resampled == estimate)) / len(resampled))
    influence = jackknife.mean() - jackknife
    acceleration = (influence**3).sum() / (6 * (influence**2).sum() ** 1.5)
    normal = bias + ndtri(np.array([0.025, 0.975]))
    return np.asarray(np.quantile(resampled, ndtr(bias + normal / (1 - acceleration * normal))))


Method = Callable[[Floats, float, Floats], Floats]
METHODS: dict[str, Method] = {
    "percentile": lambda resampled, estimate, _: np.quantile(resampled, [0.025, 0.975]),
    "BCa": bca,
    "± 1.96 s.e.": lambda resampled, estimate, _: estimate + np.array([-1.96, 1.96]) * resampled.std(ddof=1),
}


def simulate_ap(generator: np.random.Generator, repeats: int) -> None:
    print(f"AP on {IMAGES:,} made-up images: coverage of 95 % intervals (below, above), {repeats} test sets")
    ones, resamples = np.ones((1, IMAGES), np.int32), np.stack(list(draws(IMAGES, RESAMPLES)))
    groups = np.ones((GROUPS, IMAGES), np.int32)
    for group in range(GROUPS):
        groups[group, group::GROUPS] = 0
    for words, rates in CLASSES.items():
        values: dict[str, list[list[Floats]]] = {"AP": [], "paired difference": []}
        for _ in range(repeats):
            a, b = (
                [average(each, w) for w in (ones, resamples, groups)] for each in detectors(generator, rates)
            )
            values["AP"].append(a)
            values["paired difference"].append([two - one for one, two in zip(a, b, strict=True)])
        for what, each in values.items():
            truth = np.mean([estimate[0] for estimate, _, _ in each])
            bias = np.mean([(boot.mean() - estimate[0]) / boot.std() for estimate, boot, _ in each])
            texts = []
            for name, method in METHODS.items():
                bounds = np.array([method(boot, float(estimate[0]), jack) for estimate, boot, jack in each])
                below, above = np.mean(bounds[:, 1] < truth), np.mean(bounds[:, 0] > truth)
                texts.append(f"{name} {1 - below - above:.1%} ({below:.1%}, {above:.1%})")
            print(f"  {words}, {what}, bootstrap bias {bias:+.2f} s.e.: {', '.join(texts)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=2000, help="number of papers  [default: 2000]")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator = np.random.default_rng(options.seed)
    simulate_families(generator, options.repeats)
    simulate_short(generator, options.repeats)
    simulate_differences(generator, options.repeats)
    simulate_ap(generator, max(options.repeats // 8, 2))


if __name__ == "__main__":
    main()
