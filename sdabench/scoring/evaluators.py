"""What matches results with objects and says how precise they are: two packages, or our own matching.

Free of torch.
"""

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from itertools import chain
from operator import add, itemgetter
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from sdabench.data.annotations import AnnotationFile, Entry
from sdabench.errors import UsageError
from sdabench.scoring import Evaluator, IouType
from sdabench.scoring.average_precision import METRIC_PLACES, RECALLS, Floats
from sdabench.scoring.matching import AREAS, THRESHOLDS, Matches, Regions, match

NEEDED = {"bbox": "bbox", "segm": "segmentation"}


def matched_by(
    evaluator: Evaluator,
    file: AnnotationFile,
    entries: Sequence[Mapping[str, Any]],
    iou_type: IouType,
    image_ids: list[int],
) -> Any:
    """What pycocotools or faster-coco-eval makes of it.

    Raises:
        UsageError: it is not installed.
    """
    dataset_class, evaluator_class = _classes_of(evaluator)

    def dataset(annotations: list[Entry]) -> Any:
        made = dataset_class()
        made.dataset = {"images": file.images, "categories": file.categories, "annotations": annotations}
        made.createIndex()
        return made

    # Evaluators write into what they are given, and take the id 0 for 'unmatched'.
    truth = [entry | {"id": number} for number, entry in enumerate(file.annotations, start=1)]
    found = [{key: entry[key] for key in ("image_id", "category_id", "score")} for entry in entries]
    needed, kind = NEEDED[iou_type], list if iou_type == "bbox" else dict
    for copied, entry in zip(found, entries, strict=True):
        copied[needed] = kind(entry[needed])
    with redirect_stdout(io.StringIO()):
        ground_truth = dataset(truth)
        detections = ground_truth.loadRes(found) if found else dataset([])  # loadRes takes no empty list
        matched = evaluator_class(ground_truth, detections, iou_type)
        matched.params.imgIds = image_ids
        matched.evaluate()
    return matched


def _classes_of(evaluator: Evaluator) -> tuple[Any, Any]:
    if evaluator == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        return COCO, COCOeval
    try:
        import faster_coco_eval
    except ImportError:
        raise UsageError("faster-coco-eval is not installed; pip install 'sdabench[fast]'") from None
    return faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster


def matched_by_us(
    file: AnnotationFile, entries: Sequence[Mapping[str, Any]], iou_type: IouType, image_ids: list[int]
) -> Matches:
    """The columns of results and objects, matched by :func:`~sdabench.scoring.matching.match`."""
    images = {image: place for place, image in enumerate(image_ids)}
    category_ids = sorted(category["id"] for category in file.categories)
    categories = {category: place * len(images) for place, category in enumerate(category_ids)}
    if len(images) < len(file.images):
        entries = [entry for entry in entries if entry["image_id"] in images]
    objects = [one for one in file.annotations if one["image_id"] in images]

    def column(of: Sequence[Mapping[str, Any]], field: str, kind: Any = np.float64) -> Any:
        return np.fromiter(map(itemgetter(field), of), dtype=kind, count=len(of))

    def pairs(of: Sequence[Mapping[str, Any]]) -> Any:
        own = map(categories.__getitem__, map(itemgetter("category_id"), of))
        within = map(images.__getitem__, map(itemgetter("image_id"), of))
        return np.fromiter(map(add, own, within), dtype=np.intp, count=len(of))

    def boxes(of: Sequence[Mapping[str, Any]]) -> Any:
        sides = chain.from_iterable(map(itemgetter("bbox"), of))
        return np.fromiter(sides, dtype=np.float64, count=4 * len(of)).reshape(-1, 4)

    if iou_type == "bbox":
        shapes: Any = boxes(entries)
        areas = shapes[:, 2] * shapes[:, 3]
        object_shapes = boxes(objects)
    else:
        shapes = [entry["segmentation"] for entry in entries]
        areas = _mask_areas(shapes)
        sizes = {image["id"]: (image["height"], image["width"]) for image in file.images}
        object_shapes = [encoded(one["segmentation"], *sizes[one["image_id"]]) for one in objects]
    return match(
        len(images),
        category_ids,
        Regions(pairs(entries), areas, shapes),
        column(entries, "score"),
        Regions(pairs(objects), column(objects, "area"), object_shapes),
        column(objects, "id", np.int64),
        column(objects, "iscrowd", np.bool_),
    )


def _mask_areas(masks: list[Entry]) -> Floats:
    """(N,); pycocotools takes no more than 255 at once."""
    pieces = [coco_mask.area(masks[first : first + 255]) for first in range(0, len(masks), 255)]
    return np.concatenate([np.zeros(0), *pieces])


def encoded(segmentation: Any, height: int, width: int) -> Entry:
    """Polygons, or RLE of either kind, as compressed RLE."""
    rle: Entry = {"size": [height, width], "counts": [height * width]} if segmentation == [] else segmentation
    if isinstance(rle, list):
        rle = coco_mask.merge(coco_mask.frPyObjects(rle, height, width))
    elif isinstance(rle["counts"], list):
        rle = coco_mask.frPyObjects(rle, height, width)
    return rle


@dataclass(frozen=True)
class Precisions:
    """In percent: the six metrics, None without an object; AP and AP50 of the categories that have one."""

    metrics: list[float | None]
    classes: dict[int, tuple[float, float]]


def precisions_of(matched: Any) -> Precisions:
    """By what :func:`matched_by` or :func:`matched_by_us` gave."""
    if isinstance(matched, Matches):
        return _precisions(matched)
    with redirect_stdout(io.StringIO()):
        matched.accumulate()
        matched.summarize()
    stats = [100 * float(value) for value in matched.stats[: len(METRIC_PLACES)]]
    # IoU thresholds, recalls, categories, area ranges, most detections
    classes = _of_classes(matched.eval["precision"][:, :, :, 0, -1], matched.params.catIds)
    return Precisions([value if value >= 0 else None for value in stats], classes)


def _precisions(matches: Matches) -> Precisions:
    """Means of the same values as pycocotools', in the same order: its numbers, to the bit."""
    places = {category: place for place, category in enumerate(matches.category_ids)}
    precision = np.full((len(THRESHOLDS), len(RECALLS), len(places), len(AREAS)), -1.0)
    for category in matches.categories:
        precision[:, :, places[category.category_id], category.area] = category.precision(matches.image_count)
    metrics: list[float | None] = []
    for area, threshold in METRIC_PLACES:
        chosen = precision[slice(None) if threshold is None else [threshold], :, :, area]
        measured = chosen[chosen > -1]
        metrics.append(100 * float(measured.mean()) if len(measured) else None)
    return Precisions(metrics, _of_classes(precision[..., 0], matches.category_ids))


def _of_classes(precision: Floats, category_ids: Sequence[int]) -> dict[int, tuple[float, float]]:
    """By the precision (T, R, K) at IoU thresholds and recall points: -1 where there is no object."""
    return {
        int(category): (
            100 * float(precision[:, :, place].mean()),
            100 * float(precision[0, :, place].mean()),
        )
        for place, category in enumerate(category_ids)
        if (precision[:, :, place] > -1).any()
    }
