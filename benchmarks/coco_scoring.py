"""Compare the speed of the vectorised evaluator with pycocotools; both give the same six COCO metrics.

    python benchmarks/coco_scoring.py [--images N] [--rounds N] [--iou-type segm] [--program] [--output FILE]

Both read the same generated files of the size of val2017: 5,000 images, 80 categories, 36,000 objects and 80
detections per image. They are interleaved, each in its own process. CPU time is measured on one core, because
other load affects it less than wall-clock time. ``scoring`` starts with the parsed files; ``with reading``
includes the parsing, in which sdabench validates each entry. The exit code is 1 if scoring is less than 10
times as fast (median) or a metric is not bit-identical. --program adds the wall-clock time of ``sdabench
rescore`` with each evaluator: start, JSON, scoring, and 1,000 bootstrap samples.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from timing import output_option, write_record

from sdabench.data.annotations import read_annotations
from sdabench.scoring import Evaluator, IouType
from sdabench.scoring.coco import METRICS, evaluate, read_results

FLOOR = 10.0
KINDS: tuple[Evaluator, ...] = ("pycocotools", "vectorised")
CATEGORIES, OBJECTS, DETECTIONS = 80, 7.2, 80  # the last two per image
HEIGHT, WIDTH = 480, 640
Entry = dict[str, Any]


def generate(images: int, masks: bool) -> tuple[Entry, list[Entry]]:
    """Generate annotations and results; a third of the objects has one category, and sizes are like COCO's.

    Each object has up to four detections, shifted by a few percent. All other detections are wrong, half of
    them in categories of the image.
    """
    rng = np.random.default_rng(0)
    chances = 1 / np.arange(3, CATEGORIES + 3)
    chances[0] = chances.sum() / 2
    chances /= chances.sum()
    annotations: list[Entry] = []
    results: list[Entry] = []

    def region(box: np.ndarray) -> Entry:
        x, y, width, height = box.round(2).tolist()
        if not masks:
            return {"bbox": [x, y, width, height]}
        angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        outline = [x + width * (1 + np.cos(angles)) / 2, y + height * (1 + np.sin(angles)) / 2]
        points = np.stack(outline, axis=1).round(2).flatten().tolist()
        return {"bbox": [x, y, width, height], "segmentation": [points]}

    def boxes(count: int) -> np.ndarray:
        sides = np.exp(rng.normal(4.0, 1.0, (count, 2))).clip(4, 460)
        return np.concatenate([rng.random((count, 2)) * ((WIDTH, HEIGHT) - sides).clip(1), sides], axis=1)

    for image in range(1, images + 1):
        count = min(60, int(rng.geometric(1 / (OBJECTS + 1))) - 1)
        of_image = rng.choice(CATEGORIES, size=max(1, min(count, 3)), p=chances) + 1
        kinds, places = rng.choice(of_image, size=count), boxes(count)
        for kind, box in zip(kinds.tolist(), places, strict=True):
            area, crowd = float(0.7 * box[2] * box[3]), int(rng.random() < 0.012)
            more = {"image_id": image, "category_id": kind, "area": area, "iscrowd": crowd}
            annotations.append({"id": len(annotations) + 1, **more, **region(box)})
        again = np.repeat(np.arange(count), rng.integers(0, 5, count))[:DETECTIONS]
        shifted = places[again] + rng.normal(0, 0.07, (len(again), 4)) * np.tile(places[again, 2:], 2)
        wrong = DETECTIONS - len(again)
        anywhere = rng.choice(CATEGORIES, size=wrong) + 1
        guessed = np.where(rng.random(wrong) < 0.5, rng.choice(of_image, size=wrong), anywhere)
        scores = np.concatenate([rng.beta(3, 2, len(again)), rng.beta(1, 4, wrong)]).round(4)
        found = np.concatenate([shifted, boxes(wrong)])
        found[:, 2:] = found[:, 2:].clip(2)
        every = zip([*kinds[again].tolist(), *guessed.tolist()], found, scores.tolist(), strict=True)
        for kind, box, score in every:
            entry = {"image_id": image, "category_id": kind, "score": score, **region(box)}
            if masks:
                [mask] = coco_mask.frPyObjects(entry["segmentation"], HEIGHT, WIDTH)
                entry["segmentation"] = mask | {"counts": mask["counts"].decode()}
                del entry["bbox"]
            results.append(entry)
    content = {
        "images": [
            {"id": number, "file_name": f"{number}.jpg", "height": HEIGHT, "width": WIDTH}
            for number in range(1, images + 1)
        ],
        "categories": [{"id": number, "name": f"kind {number}"} for number in range(1, CATEGORIES + 1)],
        "annotations": annotations,
    }
    return content, results


@dataclass(frozen=True)
class Measurement:
    """CPU seconds of reading and of scoring, and the metrics."""

    reading: float
    scoring: float
    metrics: list[float]

    @property
    def seconds(self) -> float:
        return self.reading + self.scoring


def measure_pycocotools(truth: Path, found: Path, iou_type: IouType) -> Measurement:
    started = time.process_time()
    content, results = json.loads(truth.read_text()), json.loads(found.read_text())
    parsed = time.process_time()
    with redirect_stdout(StringIO()):
        objects = COCO()
        objects.dataset = content
        objects.createIndex()
        matched = COCOeval(objects, objects.loadRes(results), iou_type)
        matched.evaluate()
        matched.accumulate()
        matched.summarize()
    metrics = [100 * float(value) for value in matched.stats[: len(METRICS)]]
    return Measurement(parsed - started, time.process_time() - parsed, metrics)


def measure_vectorised(truth: Path, found: Path, iou_type: IouType) -> Measurement:
    started = time.process_time()
    file, results = read_annotations(truth), read_results(found)
    parsed = time.process_time()
    metrics = evaluate(file, results, iou_type, None, "vectorised").score().metrics
    return Measurement(parsed - started, time.process_time() - parsed, [metrics[name] for name in METRICS])


def in_own_process(measure: Callable[..., Measurement], *arguments: Any) -> Measurement:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(measure, *arguments).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--iou-type", choices=["bbox", "segm"], default="bbox")
    parser.add_argument("--program", action="store_true", help="also time 'sdabench rescore'")
    output_option(parser)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        truth, found = Path(folder) / "annotations.json", Path(folder) / "results.json"
        generated = generate(options.images, options.iou_type == "segm")
        for path, content in zip((truth, found), generated, strict=True):
            path.write_text(json.dumps(content))
        objects, detections = len(generated[0]["annotations"]), len(generated[1])
        del generated, content
        rounds = [
            [
                in_own_process(measure, truth, found, options.iou_type)
                for measure in (measure_pycocotools, measure_vectorised)
            ]
            for _ in range(options.rounds)
        ]
        worst = max(
            abs(one - other)
            for peer, own in rounds
            for one, other in zip(peer.metrics, own.metrics, strict=True)
        )
        seconds = {
            "scoring": tuple([each.scoring for each in kind] for kind in zip(*rounds, strict=True)),
            "with reading": tuple([each.seconds for each in kind] for kind in zip(*rounds, strict=True)),
        }
        if options.program:
            seconds["sdabench rescore"] = ([], [])
            command = [sys.executable, "-m", "sdabench", "rescore", found, "--annotations", truth, "--json"]
            command += ["--iou-type", options.iou_type, "--evaluator"]
            for _ in range(options.rounds):
                for times, kind in zip(seconds["sdabench rescore"], KINDS, strict=True):
                    started = time.perf_counter()
                    subprocess.run([*map(str, command), kind], check=True, capture_output=True)
                    times.append(time.perf_counter() - started)
    print(f"{detections:,} detections, {options.iou_type}; largest difference of a metric {worst:.1e} points")
    print(f"{'':32}", *(f"{name:>12}" for name in KINDS), f"{'ratio':>8}  lowest to highest", sep="")
    ratios = {name: [one / other for one, other in zip(*pair, strict=True)] for name, pair in seconds.items()}
    for name, pair in seconds.items():
        print(f"{name:32}", *(f"{median(times):>10.2f} s" for times in pair), end="", sep="")
        print(f"{median(ratios[name]):>8.1f}  {min(ratios[name]):.1f} to {max(ratios[name]):.1f}")
    write_record(
        options.output,
        "coco_scoring",
        iou_type=options.iou_type,
        images=options.images,
        objects=objects,
        detections=detections,
        largest_difference_pct=worst,
        metrics=dict(zip(METRICS, rounds[-1][1].metrics, strict=True)),
        seconds={name: dict(zip(KINDS, pair, strict=True)) for name, pair in seconds.items()},
    )
    sys.exit(worst > 0 or median(ratios["scoring"]) < FLOOR)


if __name__ == "__main__":
    main()
