"""The tables of the paper compared with records."""

from sdabench.claims.tables import compare_table
from sdabench.data.description import Resizing
from sdabench.registry import load_registry
from tests.helpers.records import COCO, record


def test_only_comparable_records_are_compared():
    table = load_registry().table("classification-multiscale")
    measured = [
        record(metrics={"top1_pct": 75.35, "top5_pct": 90.0}),
        record(model="sda_resnet86", metrics={"top1_pct": 99.0, "top5_pct": 99.0}).model_copy(
            update={"dataset": record().dataset.model_copy(update={"complete": False})}
        ),
    ]
    rows = {row.row.label: row for row in compare_table(table, {}, measured).rows}
    assert str(rows["ResNet-50"].verdicts["top1_pct"]) == "within (unknown recipe)"
    assert str(rows["ResNet-50"].verdicts["top5_pct"]) == "worse (unknown recipe)"
    assert rows["ResNet-50"].measured["top1_pct"] == 75.35
    assert rows["SDA-ResNet-86 (ours)"].measured["top1_pct"] is None
    assert str(rows["SDA-ResNet-86 (ours)"].verdicts["top1_pct"]) == "not measured"


def test_box_and_mask_ap_are_compared_with_their_own_tables():
    resizing = {"preprocessing": Resizing()}
    boxes, masks = (
        record(
            model="mask_rcnn_resnet50", task=task, metrics={"ap_pct": value, "ap50_pct": value},
            protocol=record().protocol.model_copy(update=resizing), dataset=COCO,
        )
        for task, value in (("detection", 37.24), ("segmentation", 35.2))
    )  # fmt: skip
    for name, expected, verdict in (("detection", 37.24, "within"), ("segmentation", 35.2, "better")):
        compared = compare_table(load_registry().table(name), {}, [boxes, masks])
        row = next(each for each in compared.rows if each.row.model == "mask_rcnn_resnet50")
        assert row.measured["ap_pct"] == expected
        assert str(row.verdicts["ap_pct"]) == f"{verdict} (unknown recipe)"
        assert str(row.verdicts["ap75_pct"]) == "not measured"
