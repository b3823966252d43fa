"""Run ``sdabench rescore`` as a user does: output and exit codes."""

import contextlib
import gzip
import importlib.util
import io
import json
import subprocess
import sys

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sdabench.data.coco import read_coco
from sdabench.hashing import sha256_of_file
from sdabench.records.json_lines import append_lines
from sdabench.records.record import Record
from tests.helpers.program import assert_error, sdabench
from tests.helpers.records import correct_on, store_record

BOXES = [
    {"image_id": 7, "category_id": 90, "score": 0.9, "bbox": [10, 10, 20, 20]},
    {"image_id": 22, "category_id": 1, "score": 0.8, "bbox": [10, 10, 20, 20]},  # empty image
]
MASKS = [{"image_id": 7, "category_id": 1, "score": 0.9, "segmentation": [[0, 40, 10, 40, 10, 50, 0, 50]]}]
# One of two kites is found (the other has no area), the only person is not: AP is the mean of both classes.
AP = 100 * 51 / 101 / 2
ERROR = 18.89  # from all 256 resamples of the four images, as tests/scoring/test_bootstrap.py computes it


@pytest.fixture
def rescore(coco, tmp_path):
    def call(results, *options, annotations=coco / "annotations/instances_val2017.json"):
        path = tmp_path / "mask_rcnn.bbox.json"
        path.write_text(results if isinstance(results, str) else json.dumps(results))
        return sdabench("rescore", path, "--annotations", annotations, *options)

    return call


def test_prints_ap_metrics_and_per_class_table(rescore):
    result = rescore(BOXES)
    assert result.returncode == 0
    assert result.stderr == ""
    assert "mask_rcnn.bbox.json, 4 images" in result.stdout
    assert "boxes 25.25 25.25 25.25 25.25 - - " in " ".join(result.stdout.split())
    assert "± s.e. 1" in " ".join(result.stdout.split())
    assert "kite" not in result.stdout
    page = " ".join(rescore(BOXES, "--per-class").stdout.split())
    for words in (
        "AP50",
        "AP per category, scored by boxes",
        "person 1 1 0.00 0.00",
        "cat 0 0 - -",
        "kite 2 1 50.50 50.50",
    ):
        assert words in page
    assert "masks 50.00" in " ".join(rescore(MASKS, "--iou-type", "segm").stdout.split())


def test_json_is_one_record(rescore, coco, tmp_path):
    result = rescore(BOXES, "--json")
    assert result.stderr == ""
    record = Record.model_validate_json(result.stdout)
    assert (record.model, record.task, record.samples) == ("mask_rcnn.bbox", "detection", 4)
    assert record.metrics == pytest.approx(dict.fromkeys(("ap_pct", "ap50_pct", "ap75_pct", "ap_s_pct"), AP))
    assert set(record.standard_errors) == set(record.metrics)
    assert record.standard_error("ap_pct") == pytest.approx(ERROR, rel=0.15)
    path = tmp_path / "mask_rcnn.bbox.json"
    assert (record.weights.source, record.weights.sha256) == (str(path), sha256_of_file(path))
    dataset = record.dataset
    assert (dataset.name, dataset.split, dataset.root) == ("coco", "val", str(coco.resolve()))
    assert (dataset.classes, dataset.samples, dataset.complete) == (2, 4, False)
    assert dataset.listing_sha256 != read_coco(coco, "val").listing_sha256  # images not listed
    assert "pycocotools" in record.environment["packages"]
    assert (
        Record.model_validate_json(rescore(MASKS, "--iou-type", "segm", "--json").stdout).task
        == "segmentation"
    )


def test_json_per_class_is_a_record_and_classes(rescore):
    output = json.loads(rescore(BOXES, "--json", "--per-class").stdout)
    assert set(output) == {"record", "classes"}
    assert Record.model_validate(output["record"]).metrics["ap_pct"] == pytest.approx(AP)
    person, cat, kite = output["classes"]
    assert cat == {
        "category_id": 7, "name": "cat", "ap_pct": None, "ap50_pct": None, "ground_truth": 0, "detections": 0,
    }  # fmt: skip
    assert (kite["category_id"], kite["ground_truth"], kite["detections"]) == (90, 2, 1)
    assert person["ap_pct"] == 0


@pytest.mark.skipif(importlib.util.find_spec("faster_coco_eval") is None, reason="not installed")
def test_faster_coco_eval_gives_the_same_metrics(rescore):
    fast = Record.model_validate_json(rescore(BOXES, "--json", "--evaluator", "faster-coco-eval").stdout)
    assert fast.metrics == pytest.approx(Record.model_validate_json(rescore(BOXES, "--json").stdout).metrics)
    assert "faster-coco-eval" in fast.environment["packages"]


def test_built_in_evaluator_gives_the_same_metrics(rescore):
    for results, iou_type in ((BOXES, "bbox"), (MASKS, "segm")):
        built_in, peer = (
            Record.model_validate_json(
                rescore(results, "--json", "--iou-type", iou_type, "--evaluator", name).stdout
            )
            for name in ("vectorised", "pycocotools")
        )
        assert (built_in.metrics, built_in.standard_errors) == (peer.metrics, peer.standard_errors)
        assert [one.environment["evaluator"] for one in (built_in, peer)] == ["vectorised", "pycocotools"]
        assert set(built_in.environment["packages"]) == {"numpy", "pycocotools"}


def test_id_zero_is_reported_where_pycocotools_differs(rescore, coco):
    """A match with the annotation of id 0 counts here, but not in pycocotools by itself."""
    path = coco / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    for one in content["annotations"]:
        one["id"] -= 1
    path.write_text(json.dumps(content))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        direct = COCOeval(truth, truth.loadRes([dict(one) for one in BOXES]), "bbox")
        direct.evaluate()
        direct.accumulate()
        direct.summarize()
    assert direct.stats[0] == 0
    for evaluator in ("vectorised", "pycocotools"):
        result = rescore(BOXES, "--json", "--evaluator", evaluator)
        record = Record.model_validate_json(result.stdout)
        assert record.metrics["ap_pct"] == pytest.approx(AP)
        assert result.stderr.count("annotation with id 0") == result.stderr.count("\n") == 1
        assert "annotation with id 0" in record.environment["annotation_id_0"]


def test_no_detections_score_zero(rescore):
    record = Record.model_validate_json(rescore([], "--json").stdout)
    assert record.metrics["ap_pct"] == 0
    assert record.samples == 4


def test_torch_is_not_imported(coco, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(BOXES))
    arguments = ["rescore", str(path), "--annotations", str(coco / "annotations/instances_val2017.json")]
    for options in ([], ["--json"], ["--per-class"]):
        code = (
            "import sys; from sdabench.cli import cli; "
            f"cli.main({arguments + options!r}, standalone_mode=False); sys.exit('torch' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_errors_are_one_line(rescore, coco, tmp_path):
    first = BOXES[0]
    assert_error(rescore("[1", "--json"), 4, "mask_rcnn.bbox.json is not JSON")
    assert_error(rescore({"annotations": []}), 4, "is not a COCO results file")
    assert_error(
        rescore([first, {"image_id": 7}]), 4, "mask_rcnn.bbox.json, entry 2: category_id: Field required"
    )
    assert_error(rescore([first | {"image_id": 8}]), 4, "image_id 8 is not in", "instances_val2017.json")
    assert_error(
        rescore([first | {"category_id": 3}]),
        4,
        "category_id 3",
        "(1 to 90); the results seem to have indices from 1 instead of ids",
    )
    assert_error(rescore(BOXES, "--iou-type", "segm"), 4, "result 1 has no segmentation; use --iou-type bbox")
    assert_error(rescore(MASKS), 4, "result 1 has no bbox; use --iou-type segm")
    assert_error(
        rescore(BOXES, annotations=tmp_path / "mask_rcnn.bbox.json"), 4, "is not a COCO annotations file"
    )
    assert_error(rescore(BOXES, annotations=tmp_path / "nowhere.json"), 2, "nowhere.json' does not exist")
    assert_error(rescore(BOXES, "--evaluator", "mine"), 2, "'mine' is not one of")
    assert_error(sdabench("rescore", tmp_path / "mask_rcnn.bbox.json"), 2, "--annotations")
    assert_error(
        sdabench("rescore", tmp_path / "none.json", "--annotations", tmp_path / "none.json"),
        2,
        "does not exist",
    )
    annotations = coco / "annotations/instances_val2017.json"
    content = json.loads(annotations.read_text())
    annotations.write_text(json.dumps(content | {"annotations": []}))
    assert_error(rescore(BOXES, "--json"), 5, "nothing was measured", "has no annotation in 4 images")


def test_stored_class_predictions_are_rescored(tmp_path):
    one = store_record(tmp_path, "resnet50-01ab", correct_on(1, 2, 3), top5=range(10))
    result = sdabench("rescore", one.predictions)
    assert (
        result.stdout == "resnet50-01ab: top-1 30.00 % ± 14.49, top-5 100.00 %, on 10 images of 10 classes\n"
    )
    record = json.loads(sdabench("rescore", one.predictions, "--json").stdout)
    assert record["metrics"] == {"top1_pct": 30.0, "top5_pct": 100.0}
    assert record["samples"] == 10


def test_byte_order_mark_changes_no_kind_of_file(tmp_path):
    one = store_record(tmp_path, "a", correct_on(1))
    bom = b"\xef\xbb\xbf"
    (tmp_path / "b.csv").write_bytes(bom + gzip.decompress(one.predictions.read_bytes()))
    assert "top-1 10.00 %" in sdabench("rescore", tmp_path / "b.csv").stdout
    (tmp_path / "c.json").write_bytes(bom + b"[]")
    assert_error(sdabench("rescore", tmp_path / "c.json"), 2, "is a COCO results file")


def test_rescoring_a_run_reproduces_its_records(tmp_path):
    one = store_record(tmp_path, "resnet50", correct_on(1, 2, 3))
    append_lines(tmp_path / "records.jsonl", one.record.as_json())
    result = sdabench("rescore", tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("resnet50: top-1 30.00 % ± 14.49")
    store_record(tmp_path, "resnet50", correct_on(1, 2))
    assert_error(sdabench("rescore", tmp_path), 4, "gives top1_pct 20.0000", "has 30.0000")
    assert_error(sdabench("rescore", tmp_path, "--per-class"), 2, "--per-class and --evaluator need")
    one.predictions.unlink()
    assert_error(sdabench("rescore", tmp_path), 2, "no stored predictions in")


def test_record_of_a_repeated_evaluation_replaces_the_earlier_one(tmp_path):
    for correct in (correct_on(1, 2, 3), correct_on(1, 2)):
        one = store_record(tmp_path, "resnet50", correct)
        digest = sha256_of_file(one.predictions)
        record = one.record.model_copy(update={"predictions_sha256": digest})
        append_lines(tmp_path / "records.jsonl", record.as_json())
    result = sdabench("rescore", tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("resnet50: top-1 20.00 % ± 12.65")
    assert len(result.stdout.splitlines()) == 1


def test_missing_predictions_are_reported(tmp_path):
    for name in ("resnet50", "senet50"):
        one = store_record(tmp_path, name, correct_on(1, 2, 3))
        append_lines(tmp_path / "records.jsonl", one.record.as_json())
    one.predictions.unlink()
    result = sdabench("rescore", tmp_path)
    assert result.returncode == 0
    assert result.stderr == "senet50: skipped, its predictions file is missing\n"


def test_missing_annotations_and_empty_predictions_are_errors(tmp_path):
    (tmp_path / "r.json").write_text("[]")
    assert_error(sdabench("rescore", tmp_path / "r.json"), 2, "with --annotations FILE")
    (tmp_path / "p.csv").write_text("path,label,label_probability,top1,top2,top3,top4,top5\n")
    assert_error(sdabench("rescore", tmp_path / "p.csv"), 5, "no image in")
