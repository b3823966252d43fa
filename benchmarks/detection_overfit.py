"""Check that the detectors learn: a Mask R-CNN with random initial weights overfits a few real images.

    python benchmarks/detection_overfit.py COCO [--split val] [--model NAME] [--images N] [--epochs N]
        [--short-side PIXELS] [--device cuda] [--output DIR]

COCO is a folder in COCO's layout. The images are the first ones with one to five objects, none of which is a
crowd or smaller than 2 % of the image. The detector is trained and evaluated on the same images, without
augmentation. AP at IoU 0.5 of boxes and of masks has to reach 50 %. The default, four images of at most 267
pixels, takes about nine minutes on one CPU core; --images 60 --short-side 480 is meant for a GPU.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from sdabench.data.coco import CocoImage, CocoSplit, read_coco
from sdabench.data.source import DataSource
from sdabench.registry.recipes import DetectionRecipe
from sdabench.training.evaluation import evaluate_training
from sdabench.training.job import Machine, training_job
from sdabench.training.loop import train

REQUIRED_PCT = 50.0


def is_simple(image: CocoImage) -> bool:
    objects = image.annotations
    large = all(one.area >= 0.02 * image.height * image.width for one in objects)
    return 1 <= len(objects) <= 5 and large and not any(one.iscrowd for one in objects)


def first_simple(split: CocoSplit, count: int) -> CocoSplit:
    chosen = [item for item in split.items if is_simple(item)][:count]
    return replace(split, items=tuple(chosen), complete=False)


def recipe(images: int, epochs: int, short_side: int) -> DetectionRecipe:
    return DetectionRecipe.model_validate(
        {
            "name": "overfit",
            "title": "Overfitting a few images",
            "epochs": epochs,
            "batch_size": min(images, 8),
            "optimizer": {"name": "adamw", "learning_rate": 3e-4, "weight_decay": 0.0},
            "schedule": {"kind": "cosine", "warmup_steps": 20, "warmup_factor": 0.1},
            "validation": {"every_epochs": max(1, epochs // 4)},
            "short_side": short_side,
            "flip": 0.0,
            "freeze": False,
            "anchor_samples": 128,
            "box_samples": 64,
            "proposals": 300,
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("coco", type=Path)
    parser.add_argument("--split", choices=["train", "val"], default="train")
    parser.add_argument("--model", default="mask_rcnn_resnet50")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--short-side", type=int, default=160)
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=Path("runs/overfit"))
    options = parser.parse_args()
    split = first_simple(read_coco(options.coco, options.split), options.images)
    job = training_job(
        options.model,
        DataSource("coco", options.coco),
        recipe(len(split.items), options.epochs, options.short_side),
        machine=Machine(device=options.device),
        splits=(split, split),
    )
    objects = sum(len(item.labels) for item in split.items)
    print(f"{options.model}: {len(split.items)} images, {objects} objects, {options.epochs} epochs")
    folder = train(job, options.output, log=lambda line: print(line, flush=True))
    records = evaluate_training(job, folder, options.output)
    for record in records:
        print(f"{record.task}: AP50 {record.metrics['ap50_pct']:.1f} %, AP {record.metrics['ap_pct']:.1f} %")
    training = records[0].training
    assert training is not None
    print(f"loss {training.first_loss:.3f} to {training.last_loss:.3f}, {training.seconds / 60:.1f} min")
    if min(record.metrics["ap50_pct"] for record in records) < REQUIRED_PCT:
        raise SystemExit(f"an AP50 is below {REQUIRED_PCT:g} %")


if __name__ == "__main__":
    main()
