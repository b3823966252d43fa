"""Detectors are trained, stopped, resumed and evaluated on real files; their results are COCO's."""

import json

import pytest
import torch
from pycocotools import mask as coco_mask
from safetensors.torch import load_file, save_file

from sdabench.errors import SdabenchError
from sdabench.hashing import sha256_of_file
from sdabench.scoring.bootstrap import standard_errors
from sdabench.scoring.coco import evaluate as evaluate_results
from sdabench.scoring.coco import read_results
from sdabench.training.evaluation import evaluate, evaluate_training, prepare_network
from sdabench.training.loop import train
from sdabench.training.prediction import predict
from sdabench.training.run_folder import read_run
from sdabench.training.tasks.detection import Detection
from sdabench.training.trainer import Trainer, load_training_batches
from tests.helpers.training import FASTER, MASK, StopsAfter, log_of, same, untrained, weights_of
from tests.helpers.training import detector_on as job_on


@pytest.fixture(scope="module")
def loose(shapes, tmp_path_factory):
    """A training without the weights of a backbone."""
    job = job_on(
        shapes,
        FASTER,
        epochs=1,
        optimizer={"learning_rate": 0.02},
        linear_rule=16,
        schedule={"milestones": [8], "warmup_steps": 500, "warmup_factor": 0.001},
        fit_below=100.0,
    )
    return train(job, tmp_path_factory.mktemp("loose"))


@pytest.mark.parametrize(("model", "frozen", "train_images"), [(FASTER, False, 4), (MASK, True, 2)])
def test_a_stopped_training_goes_on_to_the_same_weights(
    shapes, backbone, tmp_path, model, frozen, train_images
):
    """Flips and samples of boxes included; after two images, which are half an epoch, or one of two."""
    changes = {"train_images": train_images, "epochs": 4 // train_images}
    begin = backbone if frozen else None
    job = job_on(shapes, model, begin, **changes)
    whole = train(job, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(job, tmp_path / "parts", StopsAfter(2))
    folder = train(job_on(shapes, model, begin, workers=1, **changes), tmp_path / "parts")
    assert same(weights_of(whole), weights_of(folder))
    run, expected = read_run(folder).training, read_run(whole).training
    assert (run.resumed, run.first_loss, run.last_loss) == (1, expected.first_loss, expected.last_loss)
    assert [(line["step"], line["loss"]) for line in log_of(folder)] == [
        (line["step"], line["loss"]) for line in log_of(whole)
    ]
    parts = {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
    parts |= {"loss_mask"} if model == MASK else set()
    for line in log_of(folder):
        assert {key for key in line if key.startswith("loss_")} == parts
        assert line["loss"] == pytest.approx(sum(line[part] for part in parts))


def test_another_seed_is_another_training(shapes):
    losses = []
    for seed in (0, 1):
        trainer = Trainer(job_on(shapes, FASTER, seed=seed))
        trainer.take_step(next(iter(load_training_batches(trainer))))
        losses.append(trainer.progress.first_loss)
    assert losses[0] != losses[1]


def test_without_weights_of_a_backbone_nothing_is_frozen_and_with_them_it_is(
    loose, shapes, backbone, tmp_path
):
    run = read_run(loose)
    assert (run.training.frozen, run.spec.backbone, run.training.fits) == (False, None, True)
    assert run.training.steps == 2  # of five images the fifth is too few for a batch norm

    job = job_on(shapes, FASTER, backbone, epochs=1)
    folder = train(job, tmp_path)
    frozen = read_run(folder)
    assert frozen.training.frozen is True
    assert frozen.spec.backbone.sha256 == sha256_of_file(backbone)
    assert frozen.training.steps == 3
    before, after = load_file(backbone), weights_of(folder)
    kept = {
        key for key in before if torch.equal(before[key], after.get(f"backbone.body.{key}", torch.zeros(0)))
    }
    of_stem = ("conv1.", "bn1.", "layer1.")
    ends = ("running_mean", "running_var", "num_batches_tracked")
    assert kept == {key for key in before if key.startswith(of_stem) or key.endswith(ends)}

    [record] = evaluate_training(job, folder, tmp_path)
    assert record.backbone.sha256 == sha256_of_file(backbone)
    assert (record.training.frozen, record.spec_digest) == (True, job.spec.spec_digest)
    other = job_on(shapes, FASTER, epochs=1).spec.spec_digest
    assert other != record.spec_digest
    thawed = Trainer(job_on(shapes, FASTER, backbone, freeze=False))
    assert not thawed.network.frozen
    assert torch.equal(thawed.network.backbone.body.conv1.weight, before["conv1.weight"])


def original(shapes):
    """The validation split's file, its images by id, and its category ids."""
    path = shapes / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    return (
        path,
        {image["id"]: image for image in content["images"]},
        {one["id"] for one in content["categories"]},
    )


def test_a_mask_rcnn_is_measured_twice_in_original_ids_and_pixels(shapes, tmp_path):
    """It hardly learns, so that what it finds is many boxes of low scores."""
    job = job_on(
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
    _, images, categories = original(shapes)
    results = read_results(tmp_path / records[0].predictions)
    assert {entry["category_id"] for entry in results} <= categories == {1, 4, 7}
    farthest = 0.0
    for entry in results:
        image = images[entry["image_id"]]
        x, y, width, height = entry["bbox"]
        assert min(x, y, width, height) >= 0
        assert x + width <= image["width"] + 0.01
        assert y + height <= image["height"] + 0.01
        farthest = max(farthest, (x + width) / image["width"])
        assert entry["segmentation"]["size"] == [image["height"], image["width"]]
        left, top, w, h = coco_mask.toBbox(entry["segmentation"])
        if w:
            assert min(left - x, top - y, x + width - left - w, y + height - top - h) >= -1
    assert farthest > 0.9  # of 128 pixels, and not of 64
    [line] = log_of(folder)
    assert line["ap_pct"] == records[0].metrics["ap_pct"]
    assert line["segmentation_ap_pct"] == records[1].metrics["ap_pct"]
    assert all((record.samples, record.weights.source) == (1, "training") for record in records)
    assert not any(record.standard_errors for record in records)  # one image says nothing of others


class Finder(torch.nn.Module):
    """Finds what is annotated, in the pixels of the image that it is given; and something else besides."""

    def __init__(self, shapes, mistakes, masks):
        super().__init__()
        path, images, _ = original(shapes)
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
        [given] = inputs
        assert min(given.shape[-2:]) == 64
        image, its = self.queue.pop(0)
        boxes = torch.tensor([one["bbox"] for one in its]).reshape(-1, 4)
        boxes = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)
        scale = torch.tensor([given.shape[2] / image["width"], given.shape[1] / image["height"]] * 2)
        labels = torch.tensor([{1: 1, 4: 2, 7: 3}[one["category_id"]] for one in its], dtype=torch.int64)
        scores = torch.linspace(0.9, 0.5, len(its))
        if self.mistakes:
            boxes[::2, 2] += 2
        found = {"boxes": boxes * scale, "labels": labels, "scores": scores}
        return [found | {"masks": torch.ones(len(its), 28, 28)} if self.masks else found]


def test_a_network_that_finds_everything_has_an_ap_of_100(shapes):
    job = untrained(job_on(shapes, FASTER, val_images=2))  # the third has a box of no area
    finder = Finder(shapes, mistakes=False, masks=False)
    predictions = predict(finder, job, torch.device("cpu"))
    values = list(predictions.metrics()["detection"].values())
    assert values == pytest.approx([100.0] * len(values))
    annotations = json.loads(original(shapes)[0].read_text())["annotations"]
    first = [one["bbox"] for one in annotations if one["image_id"] == 1 and not one["iscrowd"]]
    assert [entry["bbox"] for entry in predictions.results] == [pytest.approx(box, abs=0.01) for box in first]
    assert len(values) > 3


def test_scoring_the_results_file_again_gives_exactly_the_records_metrics(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(Detection, "build", lambda self, job: Finder(shapes, mistakes=True, masks=True))
    records = evaluate(untrained(job_on(shapes)), tmp_path)
    annotations, _, _ = original(shapes)
    for record, iou_type in zip(records, ("bbox", "segm"), strict=True):
        results = read_results(tmp_path / record.predictions)
        again = evaluate_results(annotations, results, iou_type)
        assert again.score().metrics == record.metrics
        assert standard_errors(again) == record.standard_errors
        assert set(record.standard_errors) == set(record.metrics)
        assert 5 < record.metrics["ap_pct"] < 99
    assert records[0].metrics != records[1].metrics


def test_random_weights_are_evaluated_too_and_a_faster_rcnn_has_one_record(shapes, tmp_path):
    seen = []
    job = untrained(job_on(shapes, FASTER))
    [record] = evaluate(job, tmp_path, seen.append)
    assert seen == [1, 1, 1]
    assert record.predictions.endswith(".json.gz")
    assert record.task == "detection"
    assert record.weights.source == "random"
    assert record.protocol.preprocessing.model_dump()["short"] == 64
    assert record.protocol.preprocessing.model_dump()["long"] == 107  # 64 x 1333 / 800
    assert record.dataset.fingerprint_sha256 == job.split.fingerprint_sha256
    assert not any("segmentation" in entry for entry in read_results(tmp_path / record.predictions))


def test_weights_that_are_not_finite_are_a_failure_in_words(shapes, tmp_path):
    job = untrained(job_on(shapes, FASTER))
    network, _ = prepare_network(job)
    weights = network.state_dict()
    weights["backbone.body.layer4.0.conv1.weight"].fill_(float("nan"))
    save_file(weights, tmp_path / "nan.safetensors")
    broken = untrained(job_on(shapes, FASTER), weights=tmp_path / "nan.safetensors")
    with pytest.raises(SdabenchError, match="not finite"):
        evaluate(broken, tmp_path)


def test_the_learning_rate_is_by_the_linear_rule_and_recorded(loose):
    """0.02 for 16 images are 0.0025 for 2; the second of 500 steps has little more than a thousandth of it."""
    assert read_run(loose).training.learning_rate == pytest.approx(0.0025, rel=1e-12)
    [line] = log_of(loose)
    assert line["learning_rate"] == pytest.approx(0.0025 * (0.001 + 0.999 * 1 / 500), rel=1e-9)


def test_a_batch_in_parts_has_the_mean_of_their_losses(shapes, backbone):
    """Of three images in two parts the first counts twice; no batch norm mixes them."""
    losses, gradients = [], []
    for parts in (1, 2):
        many = {"anchor_samples": 100_000, "box_samples": 1_000}  # nothing is drawn by lot
        trainer = Trainer(job_on(shapes, MASK, backbone, batch_size=3, accumulate=parts, flip=0.0, **many))
        batch = next(iter(load_training_batches(trainer)))
        if parts == 2:
            of_parts = [
                sum(
                    trainer.task.losses(
                        trainer.network.train(), part.to(trainer.device, trainer.layout), trainer.job
                    ).values()
                )
                for part in batch.micro_batches(2)
            ]
            by_hand = (2 * of_parts[0].item() + of_parts[1].item()) / 3
        trainer.take_step(batch)
        losses.append(trainer.progress.first_loss)
        gradients.append(trainer.network.rpn.head.cls_logits.weight.grad.clone())
    assert losses[1] == pytest.approx(by_hand, rel=1e-4)
    assert losses[1] == pytest.approx(losses[0], rel=0.3)
    assert torch.nn.functional.cosine_similarity(*(each.flatten() for each in gradients), dim=0) > 0.8


@pytest.mark.parametrize(
    ("share", "last_loss", "fits"), [(0.5, 1.4, True), (0.5, 1.6, False), (None, 1.4, None)]
)
def test_whether_it_fits_is_decided_by_a_share_of_the_first_loss(shapes, share, last_loss, fits):
    trainer = Trainer(job_on(shapes, FASTER, fit_below=share))
    trainer.progress.first_loss, trainer.progress.last_loss = 3.0, last_loss
    assert trainer.result().fits is fits
