"""Comparison of several runs; intervals and p-values are those of SciPy and of comparisons of two records."""

import json
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from sdabench.claims.paired import compare_records
from sdabench.claims.several import compare_runs
from sdabench.claims.trainings import PRIOR_FREEDOM, PRIOR_SD
from sdabench.data.coco import read_coco
from sdabench.errors import DataError, UsageError
from sdabench.records.json_lines import append_lines
from sdabench.records.rescoring import read_stored
from sdabench.registry.recipes import load_recipe
from sdabench.report.render import to_markdown
from sdabench.report.several import several_sheets
from tests.helpers.records import DATASET, TEN_IMAGES, correct_on, record, store_record, trained

FULL = DATASET.model_copy(update={"fingerprint_sha256": "f" * 64})
SMALL = FULL.model_copy(update={"complete": False})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def store(folder, *records):
    for each in records:
        append_lines(folder / "records.jsonl", each.as_json())


def trainings(path, model, values, seeds=(0, 1, 2), **changes):
    path.mkdir(exist_ok=True)
    store(path, *(trained(model, value, seed, dataset=SMALL).model_copy(update=changes)
                  for value, seed in zip(values, seeds, strict=True)))  # fmt: skip


def differences(*names):
    [compared] = compare_runs(names)
    return {(each.a.name, each.b.name): each for each in compared.differences if each.metric == "top1_pct"}


A, B, C = [75.1, 75.3, 75.2], [75.9, 76.4, 75.8], [75.2, 75.5, 75.2]


@pytest.fixture
def trained_runs(folder):
    for name, model, values in (("a", "resnet50", A), ("b", "sda_resnet86", B), ("c", "resnet86_g8", C)):
        trainings(folder / name, model, values)
    return folder


def test_same_seeds_are_paired_as_in_a_t_test(trained_runs):
    """The spread is that of the trainings alone: published ones are of complete datasets."""
    found = differences("a", "b", "c")
    for (a, b), (first, second) in zip(found, combinations((A, B, C), 2), strict=True):
        expected = stats.ttest_rel(second, first)
        each = found[a, b]
        assert (each.basis, each.paired) == ("trainings", True)
        assert each.value == pytest.approx(np.mean(second) - np.mean(first))
        assert each.p == pytest.approx(expected.pvalue)
        bounds = expected.confidence_interval()
        assert (each.interval.low, each.interval.high) == pytest.approx((bounds.low, bounds.high))


def test_other_seeds_are_compared_as_in_a_pooled_t_test(trained_runs):
    trainings(trained_runs / "d", "senet50", [75.0, 75.2, 75.6, 75.3], seeds=(5, 6, 7, 8))
    each = differences("a", "b", "d")["b", "d"]
    expected = stats.ttest_ind([75.0, 75.2, 75.6, 75.3], B)
    assert (each.basis, each.paired) == ("trainings", False)
    assert each.p == pytest.approx(expected.pvalue)
    assert each.interval.low == pytest.approx(expected.confidence_interval().low)


def test_published_spread_counts_for_trainings_that_stand_beside_the_paper(folder):
    for name, model, values in (("a", "resnet50", A), ("b", "sda_resnet86", B), ("c", "resnet86_g8", C)):
        trainings(folder / name, model, values, dataset=FULL)
    each = differences("a", "b", "c")["a", "b"]
    pairs = np.subtract(B, A)
    prior = 2 * PRIOR_SD["top1_pct"] ** 2
    variance = (pairs.var() * 3 + PRIOR_FREEDOM * prior) / (2 + PRIOR_FREEDOM)
    margin = stats.t.ppf(0.975, 2 + PRIOR_FREEDOM) * np.sqrt(variance / 3)
    assert each.interval.low == pytest.approx(pairs.mean() - margin)


def test_p_values_are_corrected_by_holm(trained_runs):
    found = differences("a", "b", "c")
    ordered = sorted(found.values(), key=lambda each: each.p)
    assert ordered[0].p_holm == pytest.approx(3 * ordered[0].p)
    assert ordered[1].p_holm == pytest.approx(max(3 * ordered[0].p, 2 * ordered[1].p))
    assert found["a", "b"].p < 0.05 < found["a", "b"].p_holm
    assert found["a", "b"].better is None


def test_seeds_of_a_folder_are_one_run(trained_runs):
    """A repeated training counts once, by its last record; one with another recipe is left out and named."""
    other = trained("resnet50", 60.0, 3, "imagenet-120e", dataset=SMALL)
    repeated = trained("resnet50", 75.2, 2, dataset=SMALL)
    lines = [one.record for one in read_stored(trained_runs / "a")]
    (trained_runs / "a/records.jsonl").unlink()
    store(
        trained_runs / "a",
        other,
        *lines[:2],
        repeated.model_copy(update={"metrics": {"top1_pct": 70.0}}),
        repeated,
    )
    [compared] = compare_runs(["a", "b", "c"])
    run = compared.runs[0]
    assert (run.trainings, run.mean("top1_pct"), run.left_out) == (3, pytest.approx(75.2), 1)
    assert run.sd("top1_pct") == pytest.approx(0.1)
    assert run.seeds == [(0,), (1,), (2,)]
    text = to_markdown(*several_sheets(compared))
    assert "A: 1 earlier record of resnet50 with another recipe, protocol or weights left out." in text


def test_few_trainings_are_compared_by_their_images(folder):
    """Means over two trainings: of each image the share of trainings that is correct."""
    for name, correct in (("a", [(0, 1), (0, 1, 2)]), ("b", [(1, 2, 3), (1, 2, 3, 4)]), ("c", [(5,), (6,)])):
        (folder / name).mkdir()
        for seed, images in enumerate(correct):
            stored = store_record(folder / name, f"{name}{seed}", correct_on(*images), model="resnet50", seed=seed,
                                  recipe=load_recipe("paper").model_dump(mode="json"))  # fmt: skip
            store(folder / name, stored.record)
    each = differences("a", "b", "c")["a", "b"]
    shares = np.array([[2, 2, 1, 0, 0], [0, 2, 2, 2, 1]]) / 2
    of_image = 100 * np.pad(shares[1] - shares[0], (0, 5))
    assert (each.basis, each.a.trainings) == ("images", 2)
    assert each.value == pytest.approx(of_image.mean())
    margin = 1.959964 * of_image.std(ddof=1) / np.sqrt(10)
    assert each.interval.high == pytest.approx(of_image.mean() + margin, rel=1e-6)


@pytest.fixture
def given(folder):
    for name, images in (("a", (0, 1, 2, 3)), ("b", (1, 2, 3, 4, 5, 6)), ("c", range(10))):
        (folder / name).mkdir()
        store(folder / name, store_record(folder / name, "resnet50", correct_on(*images)).record)
    return folder


def test_given_weights_are_compared_as_two_records_are(given):
    found = differences("a", "b", "c")
    for (a, b), each in found.items():
        two = compare_records(read_stored(given / a)[0], read_stored(given / b)[0]).differences[0]
        assert (each.basis, each.interval, each.p) == ("images", two.interval, two.mcnemar_p)


def test_detections_are_compared_as_two_records_are(coco, folder):
    data = read_coco(coco, "val").subset(4).describe(["0" * 64] * 4)
    kite = {"image_id": 7, "category_id": 90, "score": 0.9, "bbox": [10, 10, 20, 20]}
    person = {"image_id": 7, "category_id": 1, "score": 0.8, "bbox": [0, 40, 10, 10]}
    half = 100 * 51 / 101 / 2
    for name, results, ap in (("a", [kite], half), ("b", [kite, person], half + 50), ("c", [person], 50.0)):
        (folder / name).mkdir()
        (folder / name / "p.json").write_text(json.dumps(results))
        metrics = {"ap_pct": ap}
        store(folder / name, record(task="detection", dataset=data, metrics=metrics, predictions="p.json"))
    (folder / "wrong.json").write_text("{}")
    with pytest.raises(DataError, match="wrong.json is not a COCO annotations file"):
        compare_runs(["a", "b", "c"], folder / "wrong.json")
    [compared] = compare_runs(["a", "b", "c"], resamples=50)
    two = compare_records(read_stored(folder / "a")[0], read_stored(folder / "b")[0], resamples=50)
    first = compared.differences[0]
    assert first.interval == two.differences[0].interval
    assert 0 < first.p < first.p_holm <= 1


def test_conditions_are_named_with_a_value_for_each_run(given):
    path = given / "c/records.jsonl"
    [one] = [each.record for each in read_stored(given / "c")]
    preprocessing = one.protocol.preprocessing.model_copy(update={"resize": 110, "crop": 96})
    path.unlink()
    store(
        given / "c",
        one.model_copy(update={"protocol": one.protocol.model_copy(update={"preprocessing": preprocessing})}),
    )
    [compared] = compare_runs(["a", "b", "c"])
    assert {each.field: each.values for each in compared.conditions} == {
        "protocol.preprocessing.resize": (256, 256, 110),
        "protocol.preprocessing.crop": (224, 224, 96),
    }
    comparable = {(each.a.name, each.b.name): each.comparable for each in compared.differences}
    assert comparable == {("a", "b"): True, ("a", "c"): False, ("b", "c"): False}
    assert not compared.as_json()["comparable"]
    assert "not comparable" in to_markdown(*several_sheets(compared))


def other_preprocessing(one):
    preprocessing = one.protocol.preprocessing.model_copy(update={"resize": 110, "crop": 96})
    return {"protocol": one.protocol.model_copy(update={"preprocessing": preprocessing})}


ODD = {
    "other images": {"dataset": TEN_IMAGES.model_copy(update={"fingerprint_sha256": "0" * 64})},
    "unknown images": {"dataset": TEN_IMAGES.model_copy(update={"fingerprint_sha256": None})},
    "another task": {"task": "detection"},
    "no predictions": {"predictions": None},
    "damaged predictions": {"predictions_sha256": "0" * 64},
    "other preprocessing": other_preprocessing(record()),
    "other metrics": {"metrics": {"top5_pct": 10.0, "top1000_pct": 100.0}},
    "other classes": {
        "dataset": TEN_IMAGES.model_copy(update={"classes": 4, "fingerprint_sha256": "0" * 64})
    },
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_odd_run_does_not_change_how_others_are_shown(given, kind, place):
    (given / "odd").mkdir()
    store(given / "odd", store_record(given / "odd", "resnet50", correct_on(1), **ODD[kind]).record)
    [alone] = compare_runs(["a", "b"])
    names = ["a", "b"]
    names.insert(place, "odd")
    [compared] = compare_runs(names)
    shown = {run.name: (run.mean("top1_pct"), run.mean("top5_pct")) for run in alone.runs}
    assert {run.name: (run.mean("top1_pct"), run.mean("top5_pct")) for run in compared.runs
            if run.name != "odd"} == shown  # fmt: skip
    kept = [each.as_json() for each in compared.differences if "odd" not in (each.a.name, each.b.name)]
    assert kept == [each.as_json() for each in alone.differences]
    odd = [each for each in compared.differences if "odd" in (each.a.name, each.b.name)]
    assert {each.better for each in odd} <= {None}
    assert all(each.reason or not each.comparable for each in odd if each.metric == "top1_pct")
    assert compared.without_records == (["odd"] if kind == "another task" else [])
    text = to_markdown(*several_sheets(compared))
    for each in odd:
        assert each.reason is None or each.reason.replace("_", "\\_") in text.replace("\\\\", "\\")


def test_the_difference_is_unknown_where_images_differ(given):
    (given / "odd").mkdir()
    store(given / "odd", store_record(given / "odd", "resnet50", correct_on(1), **ODD["other images"]).record)
    each = differences("a", "b", "odd")["a", "odd"]
    assert (each.value, each.interval, each.p, each.comparable) == (None, None, None, False)
    assert each.reason.startswith("not the same images: 10 in /d (fingerprint ffffffff) and 10 in /d (fin")


def test_runs_are_compared_on_the_images_that_most_have(given):
    """C and D share images that A and B lack; A has them too, as its earlier record."""
    shared = ODD["other images"]
    first = [one.record for one in read_stored(given / "a")]
    (given / "a/records.jsonl").unlink()
    store(
        given / "a",
        store_record(given / "a", "early", correct_on(1), **shared, model="resnet50").record,
        *first,
    )
    for name in ("c", "d", "e"):
        (given / name).mkdir(exist_ok=True)
        (given / name / "records.jsonl").unlink(missing_ok=True)
        store(given / name, store_record(given / name, "resnet50", correct_on(2), **shared).record)
    found = differences("a", "b", "c", "d", "e")
    assert [pair for pair, each in found.items() if each.value is None] == [
        ("a", "b"), ("b", "c"), ("b", "d"), ("b", "e"),
    ]  # fmt: skip


def test_seeds_are_averaged_beside_an_odd_run(trained_runs):
    """A run of given weights has neither seeds nor predictions; means of the others stay, and intervals."""
    (trained_runs / "odd").mkdir()
    store(trained_runs / "odd", record(model="senet50", dataset=SMALL, metrics={"top1_pct": 70.0}))
    found = differences("a", "b", "c", "odd")
    assert found["a", "b"] == differences("a", "b", "c")["a", "b"]
    assert found["a", "odd"].value == pytest.approx(70 - np.mean(A))
    assert (found["a", "odd"].basis, found["a", "odd"].interval) == ("images", None)
    assert found["a", "odd"].reason.startswith("no predictions of resnet50")


def test_seeds_of_single_trainings_are_conditions_beside_a_run_with_several(folder):
    trainings(folder / "a", "resnet50", [75.0], seeds=(0,))
    trainings(folder / "b", "resnet50", [76.0], seeds=(4,))
    trainings(folder / "c", "resnet50", C)
    [compared] = compare_runs(["a", "b", "c"])
    assert {each.field: each.values for each in compared.conditions}["seed"] == (0, 4, [0, 1, 2])


def test_detectors_without_resamples_have_means_and_a_reason(coco, folder):
    """As on the report page, which computes no bootstrap of minutes, whatever the number of records."""
    data = read_coco(coco, "val").subset(4).describe(["0" * 64] * 4)
    for name, values in (("a", [30.0, 30.0, 30.0]), ("b", [31.0])):
        (folder / name).mkdir()
        store(
            folder / name, *(record(task="detection", dataset=data, metrics={"ap_pct": ap}) for ap in values)
        )
    [each] = compare_runs(["a", "b"], resamples=0)[0].differences
    assert (each.value, each.interval) == (1.0, None)
    assert each.reason == "sdabench compare computes the interval of AP"


@pytest.mark.parametrize("again", ["a/", "./a", "a/records.jsonl", "a:resnet50", "link"])
def test_one_run_under_two_names_is_refused(given, again):
    (given / "link").symlink_to("a")
    with pytest.raises(UsageError, match=f"{again} is named twice, as a too; name each run once"):
        compare_runs(["a", "b", again])


@pytest.mark.parametrize("names", [[], ["a"], "ab"])
def test_fewer_than_two_runs_are_refused(given, names):
    with pytest.raises(UsageError, match="name two runs or more"):
        compare_runs(names)


def test_runs_without_a_common_task_are_refused(given):
    (given / "b/records.jsonl").unlink()
    store(given / "b", store_record(given / "b", "resnet50", correct_on(1), task="detection").record)
    with pytest.raises(UsageError, match="a, b have no task in common"):
        compare_runs(["a", "b"])


def test_trainings_without_spread_have_no_interval(folder):
    """Three equal differences do not show that there is no spread."""
    for name, values in (("a", [50.1, 60.3, 70]), ("b", [60.1, 70.3, 80]), ("c", [55, 61, 70])):
        trainings(folder / name, "resnet50", values)
    each = differences("a", "b", "c")["a", "b"]
    assert (each.value, each.interval, each.p, each.better) == (pytest.approx(10), None, None, None)


@pytest.mark.parametrize("dataset", [FULL, SMALL])
@pytest.mark.parametrize("trained_times", [1, 3])
def test_metrics_of_other_programs_are_compared_and_named(folder, dataset, trained_times):
    for name, value in zip("abc", (50.0, 51.0, 53.0), strict=True):
        values = [value + step * (value == 51) for step in (-0.1, 0.3, -0.2)[:trained_times]]
        for seed, one in enumerate(values):
            own = trained("resnet50", 75.0, seed, dataset=dataset)
            store(folder / name, own.model_copy(update={"metrics": {"macro_f1": one}}))
    [compared] = compare_runs(["a", "b", "c"])
    assert [each.value for each in compared.differences] == pytest.approx([1, 3, 2], abs=0.11)
    intervals = [each.interval is not None for each in compared.differences]
    assert intervals == [trained_times == 3, False, trained_times == 3]
    assert "macro_f1" in "".join(map(to_markdown, several_sheets(compared))).replace("\\", "")
