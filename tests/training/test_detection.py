"""Train, interrupt, resume and evaluate detectors on real files; results are COCO results files."""

import json
import shutil

import pytest
import torch
from pycocotools import mask as coco_mask
from safetensors.torch import load_file, save_file

from sdabench.data.coco import read_coco
from sdabench.data.source import DataSource
from sdabench.errors import SdabenchError
from sdabench.hashing import sha256_of_file
from sdabench.records.rescoring import StoredRecord, match_detections
from sdabench.records.spec import protocol_at
from sdabench.scoring.bootstrap import standard_errors
from sdabench.scoring.coco import evaluate as evaluate_results
from sdabench.scoring.coco import read_results
from sdabench.training.evaluation import evaluate, evaluate_training, prepare_network
from sdabench.training.job import evaluation_job
from sdabench.training.loop import train
from sdabench.training.prediction import predict
from sdabench.training.run_folder import read_run
from sdabench.training.tasks.detection import Detection
from sdabench.training.trainer import Trainer, load_training_batches
from tests.helpers.training import (
    FASTER,
    MASK,
    StopAfter,
    evaluation_job_for,
    final_weights,
    read_log,
    same_weights,
)
from tests.helpers.training import detector_job as make_job


@pytest.fixture(scope="module")
def without_backbone(shapes, tmp_path_factory):
    """Train a detector without backbone weights."""
    job = make_job(
        shapes,
        FASTER,
        epochs=1,
        optimizer={"learning_rate": 0.02},
        linear_rule=16,
        schedule={"warmup_steps": 500, "warmup_factor": 0.001},
        fit_below=100.0,
    )
    return train(job, tmp_path_factory.mktemp("loose"))


@pytest.mark.parametrize(("model", "frozen", "train_images"), [(FASTER, False, 4), (MASK, True, 2)])
def test_interrupted_training_resumes_bit_identically(
    shapes, backbone, tmp_path, model, frozen, train_images
):
    """Interrupt after two images, within an epoch or between two; flips and box sampling are on."""
    changes = {"train_images": train_images, "epochs": 4 // train_images}
    initial_weights = backbone if frozen else None
    job = make_job(shapes, model, initial_weights, **changes)
    reference = train(job, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(job, tmp_path / "parts", StopAfter(2))
    folder = train(make_job(shapes, model, initial_weights, workers=1, **changes), tmp_path / "parts")
    assert same_weights(final_weights(reference), final_weights(folder))
    run, expected = read_run(folder).training, read_run(reference).training
    assert (run.resumed, run.first_loss, run.last_loss) == (1, expected.first_loss, expected.last_loss)
    assert [(line["step"], line["loss"]) for line in read_log(folder)] == [
        (line["step"], line["loss"]) for line in read_log(reference)
    ]
    loss_names = {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
    loss_names |= {"loss_mask"} if model == MASK else set()
    for line in read_log(folder):
        assert {key for key in line if key.startswith("loss_")} == loss_names
        assert line["loss"] == pytest.approx(sum(line[name] for name in loss_names))


def test_seed_changes_the_first_loss(shapes):
    losses = []
    for seed in (0, 1):
        trainer = Trainer(make_job(shapes, FASTER, seed=seed))
        trainer.take_step(next(iter(load_training_batches(trainer))))
        losses.append(trainer.progress.first_loss)
    assert losses[0] != losses[1]


def test_freezing_depends_on_backbone_weights(without_backbone, shapes, backbone, tmp_path):
    run = read_run(without_backbone)
    assert (run.training.frozen, run.spec.backbone, run.training.fits) == (False, None, True)
    assert run.training.steps == 2  # the fifth of five images alone is too few for a batch norm

    job = make_job(shapes, FASTER, backbone, epochs=1)
    folder = train(job, tmp_path)
    frozen = read_run(folder)
    assert frozen.training.frozen is True
    assert frozen.spec.backbone.sha256 == sha256_of_file(backbone)
    assert frozen.training.steps == 3
    before, after = load_file(backbone), final_weights(folder)
    unchanged = {
        key for key in before if torch.equal(before[key], after.get(f"backbone.body.{key}", torch.zeros(0)))
    }
    stem_prefixes = ("conv1.", "bn1.", "layer1.")
    statistics_suffixes = ("running_mean", "running_var", "num_batches_tracked")
    assert unchanged == {
        key for key in before if key.startswith(stem_prefixes) or key.endswith(statistics_suffixes)
    }

    [record] = evaluate_training(job, folder, tmp_path)
    assert record.backbone.sha256 == sha256_of_file(backbone)
    assert (record.training.frozen, record.spec_digest) == (True, job.spec.spec_digest)
    other = make_job(shapes, FASTER, epochs=1).spec.spec_digest
    assert other != record.spec_digest
    unfrozen = Trainer(make_job(shapes, FASTER, backbone, freeze=False))
    assert not unfrozen.network.frozen
    assert torch.equal(unfrozen.network.backbone.body.conv1.weight, before["conv1.weight"])


def original_annotations(shapes):
    """Return the annotation file of the validation split, its images by id, and its category ids."""
    path = shapes / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    return (
        path,
        {image["id"]: image for image in content["images"]},
        {one["id"] for one in content["categories"]},
    )


def test_mask_rcnn_results_use_original_ids_and_pixels(shapes, tmp_path):
    """The learning rate is tiny, so the detector returns many boxes with low scores."""
    job = make_job(
        shapes,
        epochs=1,
        train_images=2,
        val_images=1,
        optimizer={"learning_rate": 1e-9},
        validation={"every_epochs": 1},
    )
    folder = train(job, tmp_path)
    records = evaluate_training(job, folder, tmp_path)
    assert [record.task for record in records] == ["detection", "segmentation"]
    assert [record.key for record in records] == job.spec.keys
    _, images, categories = original_annotations(shapes)
    results = read_results(tmp_path / records[0].predictions)
    assert {entry["category_id"] for entry in results} <= categories == {1, 4, 7}
    max_right_edge = 0.0
    for entry in results:
        image = images[entry["image_id"]]
        x, y, width, height = entry["bbox"]
        assert min(x, y, width, height) >= 0
        assert x + width <= image["width"] + 0.01
        assert y + height <= image["height"] + 0.01
        max_right_edge = max(max_right_edge, (x + width) / image["width"])
        assert entry["segmentation"]["size"] == [image["height"], image["width"]]
        left, top, w, h = coco_mask.toBbox(entry["segmentation"])
        if w:
            assert min(left - x, top - y, x + width - left - w, y + height - top - h) >= -1
    assert max_right_edge > 0.9  # relative to 128 pixels, not to the resized 64
    [line] = read_log(folder)
    assert line["ap_pct"] == records[0].metrics["ap_pct"]
    assert line["segmentation_ap_pct"] == records[1].metrics["ap_pct"]
    assert all((record.samples, record.weights.source) == (1, "training") for record in records)
    assert not any(record.standard_errors for record in records)  # one image gives no standard error


class OracleDetector(torch.nn.Module):
    """Return the annotated boxes in pixels of the resized input; ``mistakes`` widens every second box."""

    def __init__(self, shapes, mistakes, masks):
        super().__init__()
        path, images, _ = original_annotations(shapes)
        annotations = json.loads(path.read_text())["annotations"]
        self.mistakes, self.masks = mistakes, masks
        self.queue = [
            (
                image,
                [
                    one
                    for one in annotations
                    if one["image_id"] == number and one["area"] and not one["iscrowd"]
                ],
            )
            for number, image in sorted(images.items())
        ]

    def forward(self, inputs):
        [image_tensor] = inputs
        assert min(image_tensor.shape[-2:]) == 64
        image, annotated = self.queue.pop(0)
        boxes = torch.tensor([one["bbox"] for one in annotated]).reshape(-1, 4)
        boxes = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)
        scale = torch.tensor(
            [image_tensor.shape[2] / image["width"], image_tensor.shape[1] / image["height"]] * 2
        )
        labels = torch.tensor(
            [{1: 1, 4: 2, 7: 3}[one["category_id"]] for one in annotated], dtype=torch.int64
        )
        scores = torch.linspace(0.9, 0.5, len(annotated))
        if self.mistakes:
            boxes[::2, 2] += 2
        detections = {"boxes": boxes * scale, "labels": labels, "scores": scores}
        return [detections | {"masks": torch.ones(len(annotated), 28, 28)} if self.masks else detections]


def test_perfect_detections_have_ap_100(shapes):
    job = evaluation_job_for(make_job(shapes, FASTER, val_images=2))  # the third image has a box without area
    oracle = OracleDetector(shapes, mistakes=False, masks=False)
    predictions = predict(oracle, job, torch.device("cpu"))
    values = list(predictions.metrics()["detection"].values())
    assert values == pytest.approx([100.0] * len(values))
    annotations = json.loads(original_annotations(shapes)[0].read_text())["annotations"]
    first = [one["bbox"] for one in annotations if one["image_id"] == 1 and not one["iscrowd"]]
    assert [entry["bbox"] for entry in predictions.results] == [pytest.approx(box, abs=0.01) for box in first]
    assert len(values) > 3


def test_skipped_images_do_not_count_for_ap(shapes, tmp_path, monkeypatch):
    """Objects of a broken image would be missed, and AP be too low."""
    folder = shutil.copytree(shapes, tmp_path / "coco")
    source, split = DataSource("coco", folder), read_coco(folder, "val")
    skipped = split.items[2].path
    (folder / skipped).write_bytes(b"")
    oracle = OracleDetector(shapes, mistakes=False, masks=False)
    oracle.queue.pop(2)
    monkeypatch.setattr(Detection, "build", lambda self, job: oracle)
    protocol = protocol_at(64, "detection")
    job = evaluation_job(FASTER, source, split, skip_broken=True, protocol=protocol)
    [record] = evaluate(job, tmp_path)
    assert (record.dataset.skipped, record.samples) == ((skipped,), 2)
    assert record.metrics["ap_pct"] == pytest.approx(100)
    stored = StoredRecord(record, tmp_path)
    (folder / skipped).write_bytes((shapes / skipped).read_bytes())
    for annotations in (None, split.annotations_file):
        assert match_detections(stored, annotations).score().metrics == record.metrics


def test_rescoring_results_file_reproduces_metrics(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(
        Detection, "build", lambda self, job: OracleDetector(shapes, mistakes=True, masks=True)
    )
    records = evaluate(evaluation_job_for(make_job(shapes)), tmp_path)
    annotations, _, _ = original_annotations(shapes)
    for record, iou_type in zip(records, ("bbox", "segm"), strict=True):
        results = read_results(tmp_path / record.predictions)
        again = evaluate_results(annotations, results, iou_type)
        assert again.score().metrics == record.metrics
        assert standard_errors(again) == record.standard_errors
        assert set(record.standard_errors) == set(record.metrics)
        assert 5 < record.metrics["ap_pct"] < 99
    assert records[0].metrics != records[1].metrics


def test_faster_rcnn_with_random_weights_has_one_record(shapes, tmp_path):
    progress = []
    job = evaluation_job_for(make_job(shapes, FASTER))
    [record] = evaluate(job, tmp_path, progress.append)
    assert progress == [1, 1, 1]
    assert record.predictions.endswith(".json.gz")
    assert record.task == "detection"
    assert record.weights.source == "random"
    assert record.protocol.preprocessing.model_dump()["short"] == 64
    assert record.protocol.preprocessing.model_dump()["long"] == 107  # 64 x 1333 / 800
    assert record.dataset.fingerprint_sha256 == job.split.fingerprint_sha256
    assert not any("segmentation" in entry for entry in read_results(tmp_path / record.predictions))


def test_nan_weights_are_an_error(shapes, tmp_path):
    job = evaluation_job_for(make_job(shapes, FASTER))
    network, _ = prepare_network(job)
    weights = network.state_dict()
    weights["backbone.body.layer4.0.conv1.weight"].fill_(float("nan"))
    save_file(weights, tmp_path / "nan.safetensors")
    nan_job = evaluation_job_for(make_job(shapes, FASTER), weights=tmp_path / "nan.safetensors")
    with pytest.raises(SdabenchError, match="not finite"):
        evaluate(nan_job, tmp_path)


def test_learning_rate_follows_the_linear_rule(without_backbone):
    """0.02 for 16 images is 0.0025 for 2; warmup step 2 of 500 has little more than a thousandth of it."""
    assert read_run(without_backbone).training.learning_rate == pytest.approx(0.0025, rel=1e-12)
    [line] = read_log(without_backbone)
    assert line["learning_rate"] == pytest.approx(0.0025 * (0.001 + 0.999 * 1 / 500), rel=1e-9)


def test_micro_batch_losses_are_averaged(shapes, backbone):
    """The first of two micro-batches has two of three images and counts twice; batch norms are frozen."""
    losses, gradients = [], []
    for micro_batches in (1, 2):
        no_sampling = {"anchor_samples": 100_000, "box_samples": 1_000}  # large enough to use all
        trainer = Trainer(
            make_job(shapes, MASK, backbone, batch_size=3, accumulate=micro_batches, flip=0.0, **no_sampling)
        )
        batch = next(iter(load_training_batches(trainer)))
        if micro_batches == 2:
            micro_batch_losses = [
                sum(
                    trainer.task.losses(
                        trainer.network.train(), micro_batch.to(trainer.device, trainer.layout), trainer.job
                    ).values()
                )
                for micro_batch in batch.micro_batches(2)
            ]
            by_hand = (2 * micro_batch_losses[0].item() + micro_batch_losses[1].item()) / 3
        trainer.take_step(batch)
        losses.append(trainer.progress.first_loss)
        gradients.append(trainer.network.rpn.head.cls_logits.weight.grad.clone())
    assert losses[1] == pytest.approx(by_hand, rel=1e-4)
    assert losses[1] == pytest.approx(losses[0], rel=0.3)
    assert torch.nn.functional.cosine_similarity(*(each.flatten() for each in gradients), dim=0) > 0.8


@pytest.mark.parametrize(
    ("share", "last_loss", "fits"), [(0.5, 1.4, True), (0.5, 1.6, False), (None, 1.4, None)]
)
def test_fit_is_decided_by_share_of_first_loss(shapes, share, last_loss, fits):
    trainer = Trainer(make_job(shapes, FASTER, fit_below=share))
    trainer.progress.first_loss, trainer.progress.last_loss = 3.0, last_loss
    assert trainer.result().fits is fits
