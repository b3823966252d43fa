"""Match COCO results with pycocotools, faster-coco-eval or vectorized matching. Free of torch."""

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from itertools import chain
from operator import add, itemgetter
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from sdabench.data.annotations import AnnotationFile, Entry
from sdabench.data.masks import compressed_rle
from sdabench.errors import UsageError
from sdabench.scoring import Evaluator, IouType
from sdabench.scoring.average_precision import METRIC_INDICES, RECALLS, Floats
from sdabench.scoring.matching import AREAS, THRESHOLDS, Matches, Regions, match

Precisions = tuple[list[float | None], dict[int, tuple[float, float]]]


def match_with_package(
    evaluator: Evaluator,
    file: AnnotationFile,
    entries: Sequence[Mapping[str, Any]],
    iou_type: IouType,
    image_ids: list[int],
) -> Any:
    """Match with pycocotools or faster-coco-eval; return the evaluator object of the package.

    Raises:
        UsageError: the package is not installed.
    """
    dataset_class, evaluator_class = _package_classes(evaluator)

    # Both packages modify their input, take the id 0 for 'unmatched', and fail at ids of more than 64 bits.
    images = {
        number: rank for rank, number in enumerate(sorted(image["id"] for image in file.images), start=1)
    }
    categories = {number: rank for rank, number in enumerate(file.category_ids, start=1)}
    sizes = file.sizes if iou_type == "segm" else dict.fromkeys(images, (1, 1))  # boxes need none

    def dataset(annotations: list[Entry]) -> Any:
        built = dataset_class()
        built.dataset = {
            "images": [
                {"id": rank, "height": sizes[number][0], "width": sizes[number][1]}
                for number, rank in images.items()
            ],
            "categories": [{"id": rank, "name": str(rank)} for rank in categories.values()],
            "annotations": annotations,
        }
        built.createIndex()
        return built

    def copied(entry: Mapping[str, Any], *fields: str) -> Entry:
        number = entry["image_id"]
        copy: Entry = {"image_id": images[number], "category_id": categories[entry["category_id"]]}
        if iou_type == "segm":
            copy["segmentation"] = dict(compressed_rle(entry["segmentation"], *sizes[number]))
        else:
            copy["bbox"] = list(entry["bbox"])
        return copy | {field: entry[field] for field in fields}

    chosen = set(image_ids)
    truth = [
        copied(entry, "area", "iscrowd") | {"id": number}
        for number, entry in enumerate(file.annotations, start=1)
        if entry["image_id"] in chosen
    ]
    found = [copied(entry, "score") for entry in entries]
    with redirect_stdout(io.StringIO()):
        ground_truth = dataset(truth)
        detections = ground_truth.loadRes(found) if found else dataset([])  # loadRes fails on an empty list
        matched = evaluator_class(ground_truth, detections, iou_type)
        matched.params.imgIds = [images[number] for number in image_ids]
        matched.evaluate()
    return matched


def _package_classes(evaluator: Evaluator) -> tuple[Any, Any]:
    if evaluator == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        return COCO, COCOeval
    try:
        import faster_coco_eval
    except ImportError:
        raise UsageError("faster-coco-eval is not installed; pip install 'sdabench[fast]'") from None
    return faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster


def match_vectorized(
    file: AnnotationFile, entries: Sequence[Mapping[str, Any]], iou_type: IouType, image_ids: list[int]
) -> Matches:
    """Match with :func:`sdabench.scoring.matching.match`."""
    images = {image: index for index, image in enumerate(image_ids)}
    category_ids = file.category_ids
    categories = {category: index * len(images) for index, category in enumerate(category_ids)}
    if len(images) < len(file.images):
        entries = [entry for entry in entries if entry["image_id"] in images]
    objects = [one for one in file.annotations if one["image_id"] in images]

    def column(items: Sequence[Mapping[str, Any]], field: str, kind: Any = np.float64) -> Any:
        return np.fromiter(map(itemgetter(field), items), dtype=kind, count=len(items))

    def pairs(items: Sequence[Mapping[str, Any]]) -> Any:
        own = map(categories.__getitem__, map(itemgetter("category_id"), items))
        within = map(images.__getitem__, map(itemgetter("image_id"), items))
        return np.fromiter(map(add, own, within), dtype=np.intp, count=len(items))

    def boxes(items: Sequence[Mapping[str, Any]]) -> Any:
        sides = chain.from_iterable(map(itemgetter("bbox"), items))
        return np.fromiter(sides, dtype=np.float64, count=4 * len(items)).reshape(-1, 4)

    if iou_type == "bbox":
        shapes: Any = boxes(entries)
        areas = shapes[:, 2] * shapes[:, 3]
        object_shapes = boxes(objects)
    else:
        shapes = [entry["segmentation"] for entry in entries]
        areas = _mask_areas(shapes)
        sizes = file.sizes
        object_shapes = [compressed_rle(one["segmentation"], *sizes[one["image_id"]]) for one in objects]
    return match(
        len(images),
        category_ids,
        Regions(pairs(entries), areas, shapes),
        column(entries, "score"),
        Regions(pairs(objects), column(objects, "area"), object_shapes),
        column(objects, "id", np.object_),
        column(objects, "iscrowd", np.bool_),
    )


def _mask_areas(masks: list[Entry]) -> Floats:
    """Compute the areas (N,) in blocks, because pycocotools takes at most 255 masks."""
    pieces = [coco_mask.area(masks[first : first + 255]) for first in range(0, len(masks), 255)]
    return np.concatenate([np.zeros(0), *pieces])


def compute_precisions(matched: Any, category_ids: Sequence[int]) -> Precisions:
    """Compute precisions from the result of :func:`match_with_package` or :func:`match_vectorized`.

    Args:
        category_ids: ids of all categories in ascending order.

    Returns:
        In percent: the six metrics, None without an object; AP and AP50 of categories with objects, by id.
    """
    if isinstance(matched, Matches):
        return _precisions(matched)
    with redirect_stdout(io.StringIO()):
        matched.accumulate()
        matched.summarize()
    stats = [100 * float(value) for value in matched.stats[: len(METRIC_INDICES)]]
    # IoU thresholds, recall points, categories, area ranges, limits of detections
    classes = _class_precisions(matched.eval["precision"][:, :, :, 0, -1], category_ids)
    return [value if value >= 0 else None for value in stats], classes


def _precisions(matches: Matches) -> Precisions:
    """Average the same values in the same order as pycocotools, for bit-identical results."""
    indices = {category: index for index, category in enumerate(matches.category_ids)}
    precision = np.full((len(THRESHOLDS), len(RECALLS), len(indices), len(AREAS)), -1.0)
    for category in matches.categories:
        index = indices[category.category_id]
        precision[:, :, index, category.area] = category.precision(matches.image_count)
    metrics: list[float | None] = []
    for area, threshold in METRIC_INDICES:
        chosen = precision[slice(None) if threshold is None else [threshold], :, :, area]
        measured = chosen[chosen > -1]
        metrics.append(100 * float(measured.mean()) if len(measured) else None)
    return metrics, _class_precisions(precision[..., 0], matches.category_ids)


def _class_precisions(precision: Floats, category_ids: Sequence[int]) -> dict[int, tuple[float, float]]:
    """Average the precision (T, R, K) by category; it is -1 for categories without objects."""
    return {
        category: (
            100 * float(precision[:, :, index].mean()),
            100 * float(precision[0, :, index].mean()),
        )
        for index, category in enumerate(category_ids)
        if (precision[:, :, index] > -1).any()
    }
