"""Paired comparison of two records on the same images. Expected values are counted by hand."""

import json

import pytest

from sdabench.claims.paired import compare_records
from sdabench.data.coco import read_coco
from sdabench.errors import DataError, UsageError
from sdabench.hashing import sha256_of_file
from sdabench.records.class_predictions import ClassPredictions
from sdabench.records.json_lines import append_lines
from sdabench.records.record import Training
from sdabench.records.rescoring import StoredRecord, read_stored
from sdabench.report.paired import metrics_sheet
from tests.helpers.records import LABELS, TEN_IMAGES, correct_on, record, store_record


def test_differences_and_changed_images_by_hand(tmp_path):
    a = store_record(tmp_path, "a", correct_on(0, 1, 2, 3))
    b = store_record(tmp_path, "b", correct_on(1, 2, 3, 4, 5, 6), top5=LABELS)
    top1, top5 = compare_records(a, b).differences
    assert (top1.a_pct, top1.b_pct, top1.only_a, top1.only_b) == (40, 60, 1, 3)
    assert top1.mcnemar_p == pytest.approx(2 * (1 + 4) / 2**4)
    assert top1.interval.estimate == pytest.approx(20)
    assert top1.interval.low < 0 < 20 < top1.interval.high
    assert (top5.a_pct, top5.b_pct, top5.only_a, top5.only_b) == (40, 100, 0, 6)
    assert top5.mcnemar_p == pytest.approx(2 / 2**6)
    changed = {one.image: (one.only_a, one.only_b) for one in compare_records(a, b).changed}
    assert changed == {"0.JPEG": (1, 0), "4.JPEG": (0, 1), "5.JPEG": (0, 1), "6.JPEG": (0, 1)}


def test_significance_is_that_of_the_p_value_which_is_printed(tmp_path):
    """Five of ten images against none: p is 2 / 2**5, although the interval is above zero."""
    comparison = compare_records(
        store_record(tmp_path, "a", correct_on()), store_record(tmp_path, "b", correct_on(0, 1, 2, 3, 4))
    )
    [[top1, *_]] = metrics_sheet(comparison).groups
    assert comparison.differences[0].interval.low > 0
    assert [cell.text for cell in top1[-2:]] == ["0.062", "not significant"]


def test_different_wrong_predictions_count_as_changed(tmp_path):
    a, b = store_record(tmp_path, "a", correct_on()), store_record(tmp_path, "b", correct_on() + 1)
    comparison = compare_records(a, b)
    assert [(one.only_a, one.only_b) for one in comparison.changed] == [(0, 0)] * 10
    assert comparison.changed[3].words == "class 3: A predicts 50, B predicts 51"
    assert comparison.differences[0].mcnemar_p == 1


def test_equal_predictions_have_no_difference(tmp_path):
    a = store_record(tmp_path, "a", correct_on(1, 2))
    comparison = compare_records(a, a)
    assert comparison.changed == []
    assert {one.interval.estimate for one in comparison.differences} == {0}


@pytest.mark.parametrize(
    ("fingerprint", "reason"),
    [("0" * 64, "not the same images"), (None, "not known to be the same images")],
)
def test_different_images_are_refused(tmp_path, fingerprint, reason):
    a = store_record(tmp_path, "a", correct_on(1))
    dataset = TEN_IMAGES.model_copy(update={"fingerprint_sha256": fingerprint})
    b = store_record(tmp_path, "b", correct_on(1), dataset=dataset)
    with pytest.raises(DataError, match=reason):
        compare_records(a, b)


def test_predictions_that_contradict_the_record_are_refused(tmp_path):
    a = store_record(tmp_path, "a", correct_on(1), metrics={"top1_pct": 20.0, "top5_pct": 20.0})
    with pytest.raises(DataError, match="gives top1_pct 10.0000, but the record of a has 20.0000"):
        compare_records(a, a)


def test_metric_of_another_epoch_is_left_out(tmp_path):
    """A quirk of the paper: the published top-5 may be of another epoch than the stored predictions."""
    training = Training(
        epochs=3, steps=3, first_loss=1, last_loss=1, fits=None, seconds=1, images_per_second=1,
        seeds=[0], best_epochs={"top1_pct": 3, "top5_pct": 2},
    )  # fmt: skip
    a = store_record(
        tmp_path, "a", correct_on(1), metrics={"top1_pct": 10.0, "top5_pct": 77.0}, training=training
    )
    assert [one.metric for one in compare_records(a, a).differences] == ["top1_pct"]


def test_damaged_predictions_with_the_same_metrics_are_refused(tmp_path):
    """The probability of a label changes no top-1, and yet the file is not the one that was recorded."""
    stored = store_record(tmp_path, "a", correct_on(1))
    record = stored.record.model_copy(update={"predictions_sha256": sha256_of_file(stored.predictions)})
    one = StoredRecord(record, tmp_path)
    assert compare_records(one, one).changed == []
    damaged = ClassPredictions.read(one.predictions)
    damaged.label_probability[3] = 0.75
    damaged.write(tmp_path / "a.csv.gz")
    assert damaged.metrics() == record.metrics
    with pytest.raises(DataError, match=r"a\.csv\.gz is damaged, or of another evaluation of a: its sha256"):
        compare_records(one, one)


def test_missing_predictions_and_other_tasks_are_refused(tmp_path):
    a = store_record(tmp_path, "a", correct_on(1))
    for missing in ({"predictions": None}, {"predictions": "none.csv.gz"}):
        with pytest.raises(UsageError, match="no predictions of a"):
            compare_records(a, store_record(tmp_path, "a", correct_on(1), **missing))
    with pytest.raises(UsageError, match="a record of classification with one of detection"):
        compare_records(a, store_record(tmp_path, "a", correct_on(1), task="detection"))


def test_records_are_read_from_a_folder_or_file(tmp_path):
    with pytest.raises(UsageError, match="no records in"):
        read_stored(tmp_path)
    append_lines(tmp_path / "records.jsonl", record().as_json())
    assert [one.record.model for one in read_stored(tmp_path)] == ["resnet50"]
    assert read_stored(tmp_path / "records.jsonl")[0].folder == tmp_path


KITE = {"image_id": 7, "category_id": 90, "score": 0.9, "bbox": [10, 10, 20, 20]}
PERSON = {"image_id": 7, "category_id": 1, "score": 0.8, "bbox": [0, 40, 10, 10]}
HALF = 100 * 51 / 101 / 2  # one of two kites, and no person


@pytest.fixture
def detected(coco, tmp_path):
    def store_record(name, results, ap, images=4):
        (tmp_path / f"{name}.json").write_text(json.dumps(results))
        data = read_coco(coco, "val").subset(images).describe(["0" * 64] * images)
        metrics = {"ap_pct": ap, "ap50_pct": ap, "ap75_pct": ap}
        return StoredRecord(
            record(model=name, task="detection", dataset=data, metrics=metrics, predictions=f"{name}.json"),
            tmp_path,
        )

    return store_record


def test_detections_are_compared_per_image(detected):
    a, b = detected("a", [KITE], HALF), detected("b", [KITE, PERSON], HALF + 50)
    progress = []
    comparison = compare_records(a, b, resamples=50, advance=progress.append)
    assert sum(progress) == 2 * 50
    ap = comparison.differences[0]
    assert (ap.metric, ap.a_pct, ap.b_pct) == ("ap_pct", HALF, HALF + 50)
    assert ap.interval.estimate == pytest.approx(50)
    [changed] = comparison.changed
    assert (changed.image, changed.only_a, changed.only_b) == ("000000000007.jpg", 0, 1)
    assert changed.words == "objects found: 1 by A, 2 by B"
    assert (
        "bias of a single AP, 0.3 to 0.4 standard errors, nearly cancels"
        in metrics_sheet(comparison).notes[1]
    )


def test_equal_detections_have_a_zero_interval(detected):
    a = detected("a", [KITE], HALF)
    interval = compare_records(a, a, resamples=50).differences[0].interval
    assert (interval.low, interval.high) == (0, 0)


def test_single_image_has_no_interval(detected):
    a, b = detected("a", [KITE], 50, images=1), detected("b", [KITE, PERSON], 100, images=1)
    difference = compare_records(a, b, resamples=50).differences[0]
    assert (difference.b_pct - difference.a_pct, difference.interval) == (50, None)


def test_annotations_may_be_moved_but_not_changed(detected, coco, tmp_path):
    a = detected("a", [KITE], HALF)
    annotations = coco / "annotations/instances_val2017.json"
    moved = annotations.rename(tmp_path / "moved.json")
    with pytest.raises(UsageError, match="or add --annotations FILE"):
        compare_records(a, a, resamples=10)
    assert compare_records(a, a, moved, resamples=10).changed == []
    content = json.loads(moved.read_text())
    content["annotations"] = [one for one in content["annotations"] if one["id"] != 2]
    annotations.write_text(json.dumps(content))
    with pytest.raises(DataError, match="has changed since a was evaluated"):
        compare_records(a, a, resamples=10)
    with pytest.raises(DataError, match="name the predictions and annotations of that evaluation"):
        compare_records(a, a, annotations, resamples=10)
