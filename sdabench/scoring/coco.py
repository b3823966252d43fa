"""Compute COCO's AP of boxes or masks in percent. Free of torch.

pycocotools is the reference. The default evaluator (:mod:`sdabench.scoring.matching`, vectorized) and
faster-coco-eval compute the same numbers.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any

from pycocotools import mask as coco_mask
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from sdabench.data.annotations import AnnotationFile, read_annotations
from sdabench.data.masks import compressed_rle, is_absent, mask_problem
from sdabench.data.objects import is_scored, nothing_to_score
from sdabench.data.rle import are_rle, is_compressed
from sdabench.errors import DataError, NothingMeasuredError
from sdabench.garbage import without_garbage_collection
from sdabench.json_files import read_json
from sdabench.scoring import DEFAULT_EVALUATOR, REQUIRED_FIELD, Evaluator, IouType
from sdabench.scoring.evaluators import (
    compute_precisions,
    match_vectorized,
    match_with_package,
)
from sdabench.scoring.matching import Matches

# In the order of COCO's numbers. Small, medium and large areas: below 32², up to 96², and above, in pixels.
METRICS = ("ap_pct", "ap50_pct", "ap75_pct", "ap_s_pct", "ap_m_pct", "ap_l_pct")

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Result(BaseModel):
    """One detection of a results file; ``bbox`` is (x, y, width, height) in pixels."""

    model_config = ConfigDict(strict=True)

    image_id: int
    category_id: int
    score: Finite
    bbox: Annotated[list[Finite], Field(min_length=4, max_length=4)] | None = None
    segmentation: Any = None  # unchecked, because boxes do not need it; see mask_problem

    @model_validator(mode="after")
    def has_region(self) -> "Result":
        if self.bbox is None and self.segmentation is None:
            raise ValueError("neither bbox nor segmentation")
        if self.bbox is not None and min(self.bbox[2:]) < 0:
            raise ValueError(
                "bbox has a negative width or height; it must be (x, y, width, height), not corners"
            )
        return self


@dataclass(frozen=True)
class ClassScore:
    """AP of one category, None without ground truth; crowds do not count as ground truth."""

    category_id: int
    name: str
    ap_pct: float | None
    ap50_pct: float | None
    ground_truth: int
    detections: int


@dataclass(frozen=True)
class CocoScore:
    """Metrics in percent, without those that lack ground truth, and the AP of every category."""

    iou_type: IouType
    metrics: dict[str, float]
    images: int
    classes: list[ClassScore]


@without_garbage_collection()
def read_results(path: Path) -> list[dict[str, Any]]:
    """Read a results file: a JSON list of image_id, category_id, score, and bbox or segmentation.

    Placeholders are dropped: a box or mask that is null or empty, and boxes if all are zeros beside masks.
    Integers may be written as 1.0.

    Raises:
        UsageError: there is no such file.
        DataError: the file is invalid; the message names the entry, counted from 1.
    """
    results, _ = read_json(path, "results")
    if not isinstance(results, list):
        raise DataError(f"{path} is not a COCO results file: it must be a JSON list of detections")
    _normalize(results)
    try:
        TypeAdapter(list[Result]).validate_python(results)
    except ValidationError as error:
        first = error.errors()[0]
        number, *fields = first["loc"]
        where = ".".join(str(field) for field in fields)
        words = first["msg"].removeprefix("Value error, ")
        raise DataError(
            f"{path}, entry {int(number) + 1}: {where + ': ' if where else ''}{words}; correct it"
        ) from None
    return results


def _normalize(results: list[Any]) -> None:
    def integer(value: Any) -> Any:
        return int(value) if type(value) is float and value.is_integer() else value

    entries = [result for result in results if isinstance(result, dict)]
    for entry in entries:
        for name in ("bbox", "segmentation"):
            if is_absent(entry.get(name)):
                entry.pop(name, None)
        for name in entry.keys() & {"image_id", "category_id"}:
            entry[name] = integer(entry[name])
        mask = entry.get("segmentation")
        if isinstance(mask, dict) and isinstance(mask.get("size"), list):
            mask["size"] = [integer(side) for side in mask["size"]]
    if all(entry.get("bbox") == [0, 0, 0, 0] for entry in entries):
        for entry in entries:
            del entry["bbox"]


@dataclass(frozen=True)
class CocoEvaluation:
    """Results matched with ground truth, for :meth:`score` and for a bootstrap."""

    file: AnnotationFile
    entries: Sequence[Mapping[str, Any]]
    iou_type: IouType
    image_ids: list[int]
    matched: Any  # of the evaluator

    def score(self) -> CocoScore:
        """Compute COCO's AP at IoU 0.50:0.95, 101 recall points and 100 detections per image.

        Raises:
            NothingMeasuredError: no object is annotated in these images.
        """
        images = self.image_ids
        values, precisions = compute_precisions(self.matched, self.file.category_ids)
        metrics = {name: value for name, value in zip(METRICS, values, strict=True) if value is not None}
        if METRICS[0] not in metrics:
            chosen = set(images)
            found = [one["iscrowd"] for one in self.file.annotations if one["image_id"] in chosen]
            reason = nothing_to_score(len(images), len(found), sum(found))
            raise NothingMeasuredError(
                f"nothing was measured: {self.file.path} has {reason}; name other annotations"
            )
        classes = _classes(self.file, self.entries, images, precisions)
        return CocoScore(self.iou_type, metrics, len(images), classes)

    def check_has_pixels(self, results_file: Path) -> None:
        """Check that some mask has pixels; raise a DataError otherwise, because all are placeholders."""
        masks = [entry["segmentation"] for entry in self.entries if self.iou_type == "segm"]
        if masks and not any(coco_mask.area(mask) for mask in masks):
            raise DataError(
                f"{results_file}: the masks of all {len(masks):,} results are empty; complete them, or use "
                "--iou-type bbox"
            )

    def matches(self) -> Matches:
        """Return the matches; match again if another evaluator was used, which has no Matches."""
        if isinstance(self.matched, Matches):
            return self.matched
        return match_vectorized(self.file, self.entries, self.iou_type, self.image_ids)


def score(
    annotations: Path | AnnotationFile,
    results: Sequence[Mapping[str, Any]],
    iou_type: IouType,
    image_ids: Sequence[int] | None = None,
    evaluator: Evaluator = DEFAULT_EVALUATOR,
) -> CocoScore:
    """Compute COCO's AP of results; see :func:`evaluate`."""
    return evaluate(annotations, results, iou_type, image_ids, evaluator).score()


@without_garbage_collection()
def evaluate(
    annotations: Path | AnnotationFile,
    results: Sequence[Mapping[str, Any]],
    iou_type: IouType,
    image_ids: Sequence[int] | None = None,
    evaluator: Evaluator = DEFAULT_EVALUATOR,
    results_file: Path | None = None,
) -> CocoEvaluation:
    """Match results with ground truth as COCO does.

    A result with a mask has the area of the mask; pycocotools would use the area of its box, if it has one.

    Args:
        annotations: path of COCO's annotations file, or its content.
        results: results as from :func:`read_results`, with original category ids; they are not modified.
        image_ids: use only these images, and ignore results of others.
        results_file: the file of the results, for error messages.

    Raises:
        UsageError: there is no such file, or the evaluator is not installed.
        DataError: a result belongs to another dataset, or a result or annotation lacks the field that the
            IoU type needs.
    """
    file = annotations if isinstance(annotations, AnnotationFile) else read_annotations(annotations)
    chosen = _select_images(file, image_ids)
    where = "result" if results_file is None else f"{results_file}, result"
    if iou_type == "segm":
        file.check_masks(set(chosen))
    else:
        file.check_boxes()
    _check_results(file, results, where)
    _check_regions(results, iou_type, where)
    entries = _entries(file, results, iou_type, where)
    if evaluator == "vectorised":
        matched: Any = match_vectorized(file, entries, iou_type, chosen)
    else:
        matched = match_with_package(evaluator, file, entries, iou_type, chosen)
    return CocoEvaluation(file, entries, iou_type, chosen, matched)


def _select_images(file: AnnotationFile, image_ids: Sequence[int] | None) -> list[int]:
    known = {image["id"] for image in file.images}
    if image_ids is None:
        return sorted(known)
    if unknown := set(image_ids) - known:
        raise DataError(f"image_id {min(unknown)} is not in {file.path}; name its annotations")
    return sorted(set(image_ids))


def _check_results(file: AnnotationFile, results: Sequence[Mapping[str, Any]], where: str) -> None:
    images = {image["id"] for image in file.images}
    categories = set(file.category_ids)
    for number, result in enumerate(results, start=1):
        if result["image_id"] not in images:
            raise DataError(
                f"{where} {number}: image_id {result['image_id']} is not in {file.path}; name the "
                "annotations of the evaluated images"
            )
        if result["category_id"] not in categories:
            cause = _likely_cause({each["category_id"] for each in results}, categories)
            raise DataError(
                f"{where} {number}: category_id {result['category_id']} is not one of the {len(categories)} "
                f"ids in {file.path} ({min(categories)} to {max(categories)}); {cause}"
            )


def _likely_cause(found: set[int], known: set[int]) -> str:
    """Explain category ids of results that are not all known, with the next step."""
    for first in (0, 1):
        if found <= set(range(first, first + len(known))):
            return f"the results seem to have indices from {first} instead of ids, so convert them to ids"
    for shift in (1, -1):
        if {number + shift for number in found} <= known:
            step = "add 1 to" if shift > 0 else "subtract 1 from"
            return f"the ids of the results seem shifted by one, so {step} each of them"
    return "name the annotations of the dataset that the results are for"


def _check_regions(results: Sequence[Mapping[str, Any]], iou_type: IouType, where: str) -> None:
    """Check that each result has a box or a mask, which must be no placeholder."""
    needed = REQUIRED_FIELD[iou_type]
    other: IouType = "segm" if iou_type == "bbox" else "bbox"
    without = [number for number, result in enumerate(results, start=1) if is_absent(result.get(needed))]
    if without:
        first = results[without[0] - 1]
        step = f"use --iou-type {other}" if not is_absent(first.get(REQUIRED_FIELD[other])) else "complete it"
        some = "" if len(without) == len(results) else f", like {len(without):,} of {len(results):,} results"
        raise DataError(f"{where} {without[0]} has no {needed}{some}; {step}")


def _entries(
    file: AnnotationFile, results: Sequence[Mapping[str, Any]], iou_type: IouType, where: str
) -> Sequence[Mapping[str, Any]]:
    """Return the results, with masks as compressed RLE."""
    if iou_type == "bbox":
        return results
    of_image = file.sizes
    sizes = [of_image[result["image_id"]] for result in results]
    masks = [result["segmentation"] for result in results]
    for number, (fits, mask, size) in enumerate(
        zip(are_rle(masks, sizes), masks, sizes, strict=True), start=1
    ):
        problem = None if fits else mask_problem(mask, size)
        if problem:
            raise DataError(f"{where} {number} {problem}; correct it, or score boxes")
    return [
        result if is_compressed(mask) else {**result, "segmentation": compressed_rle(mask, *size)}
        for result, mask, size in zip(results, masks, sizes, strict=True)
    ]


def _classes(
    file: AnnotationFile,
    entries: Sequence[Mapping[str, Any]],
    image_ids: Sequence[int],
    precisions: Mapping[int, tuple[float, float]],
) -> list[ClassScore]:
    chosen = set(image_ids)
    objects = Counter(
        one["category_id"]
        for one in file.annotations
        if one["image_id"] in chosen and is_scored(one["iscrowd"], one["area"])
    )
    if len(chosen) < len(file.images):
        entries = [entry for entry in entries if entry["image_id"] in chosen]
    detections = Counter(map(itemgetter("category_id"), entries))
    classes = []
    for category in sorted(file.categories, key=itemgetter("id")):
        number, name = category["id"], category["name"]
        ap, ap50 = precisions.get(number, (None, None))
        classes.append(ClassScore(number, name, ap, ap50, objects[number], detections[number]))
    return classes
