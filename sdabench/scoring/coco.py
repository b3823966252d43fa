"""COCO's AP of detections, by boxes or by masks, in percent. Free of torch.

pycocotools is the authority, whose numbers two others give: the vectorised one, our own, which is the usual
one (:mod:`sdabench.scoring.matching`), and faster-coco-eval.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from sdabench.data.annotations import AnnotationFile, read_annotations, read_json
from sdabench.data.coco import has_mask
from sdabench.data.rle import are_rle, is_compressed
from sdabench.errors import DataError, NothingMeasuredError
from sdabench.garbage import without_garbage_collection
from sdabench.scoring import USUAL_EVALUATOR, Evaluator, IouType
from sdabench.scoring.evaluators import NEEDED, encoded, matched_by, matched_by_us, precisions_of

# In the order of the first of COCO's twelve numbers: small, medium and large are below 32², up to 96²,
# and above, in pixels of area.
METRICS = ("ap_pct", "ap50_pct", "ap75_pct", "ap_s_pct", "ap_m_pct", "ap_l_pct")
OTHER = {"bbox": "segm", "segm": "bbox"}

Finite = Annotated[float, Field(allow_inf_nan=False)]
Polygon = Annotated[list[Finite], Field(min_length=6)]
Runs = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class ResultMask(BaseModel):
    """RLE; ``size`` is (height, width)."""

    model_config = ConfigDict(strict=True)

    size: Annotated[list[int], Field(min_length=2, max_length=2)]
    counts: Annotated[
        Annotated[Runs, Tag("list")] | Annotated[str, Tag("compressed")],
        Discriminator(lambda value: "list" if isinstance(value, list) else "compressed"),
    ]


class Result(BaseModel):
    """One detection of a results file; ``bbox`` is (x, y, width, height) in pixels."""

    model_config = ConfigDict(strict=True)

    image_id: int
    category_id: int
    score: Finite
    bbox: Annotated[list[Finite], Field(min_length=4, max_length=4)] | None = None
    segmentation: (
        Annotated[
            Annotated[list[Polygon], Tag("polygons")] | Annotated[ResultMask, Tag("RLE")],
            Discriminator(lambda value: "polygons" if isinstance(value, list) else "RLE"),
        ]
        | None
    ) = None

    @model_validator(mode="after")
    def _is_somewhere(self) -> "Result":
        if self.bbox is None and self.segmentation is None:
            raise ValueError("it has neither bbox nor segmentation")
        return self


@dataclass(frozen=True)
class ClassScore:
    """AP of one category, None where it has no ground truth; crowds are not counted among that."""

    category_id: int
    name: str
    ap_pct: float | None
    ap50_pct: float | None
    ground_truth: int
    detections: int


@dataclass(frozen=True)
class CocoScore:
    """``metrics`` lacks those of ``METRICS`` that have no ground truth; ``classes`` has every category."""

    iou_type: IouType
    metrics: dict[str, float]
    images: int
    classes: list[ClassScore]


@without_garbage_collection()
def read_results(path: Path) -> list[dict[str, Any]]:
    """A results file: a JSON list of entries with image_id, category_id, score, and bbox or segmentation.

    Raises:
        UsageError: there is no such file.
        DataError: it is no such list; the message names the entry, counted from 1.
    """
    results, _ = read_json(path, "results")
    if not isinstance(results, list):
        raise DataError(f"{path} is no COCO results file: it holds no list of detections")
    try:
        TypeAdapter(list[Result]).validate_python(results)
    except ValidationError as error:
        first = error.errors()[0]
        number, *fields = first["loc"]
        where = ".".join(str(field) for field in fields)
        words = first["msg"].removeprefix("Value error, ")
        raise DataError(f"{path}, entry {int(number) + 1}: {where + ': ' if where else ''}{words}") from None
    return results


@dataclass(frozen=True)
class CocoEvaluation:
    """Results matched with what is annotated, once: for :meth:`score`, and for a bootstrap.

    ``matched`` is the evaluator's own object; that of faster-coco-eval does not tell what was matched with
    what.
    """

    file: AnnotationFile
    entries: Sequence[Mapping[str, Any]]
    iou_type: IouType
    image_ids: list[int]
    evaluator: Evaluator
    matched: Any

    def score(self) -> CocoScore:
        """COCO's AP: at IoU 0.50:0.95, 101 recall points and 100 detections an image.

        Raises:
            NothingMeasuredError: no object is annotated in these images.
        """
        images, precisions = self.image_ids, precisions_of(self.matched)
        metrics = {
            name: value for name, value in zip(METRICS, precisions.metrics, strict=True) if value is not None
        }
        if METRICS[0] not in metrics:
            raise NothingMeasuredError(
                f"nothing was measured: no object of {len(images)} images in {self.file.path}"
            )
        classes = _classes(self.file, self.entries, images, precisions.classes)
        return CocoScore(self.iou_type, metrics, len(images), classes)

    def by_pycocotools(self) -> "CocoEvaluation":
        """The same, matched by pycocotools if it was another evaluator."""
        if self.evaluator == "pycocotools":
            return self
        matched = matched_by("pycocotools", self.file, self.entries, self.iou_type, self.image_ids)
        return replace(self, evaluator="pycocotools", matched=matched)


def score(
    annotations: Path | AnnotationFile,
    results: Sequence[Mapping[str, Any]],
    iou_type: IouType,
    image_ids: Sequence[int] | None = None,
    evaluator: Evaluator = USUAL_EVALUATOR,
) -> CocoScore:
    """COCO's AP of results: :func:`evaluate` and nothing kept but its score."""
    return evaluate(annotations, results, iou_type, image_ids, evaluator).score()


@without_garbage_collection()
def evaluate(
    annotations: Path | AnnotationFile,
    results: Sequence[Mapping[str, Any]],
    iou_type: IouType,
    image_ids: Sequence[int] | None = None,
    evaluator: Evaluator = USUAL_EVALUATOR,
) -> CocoEvaluation:
    """Matches results with what is annotated, as COCO does.

    Masks go by their own area, also where a box stands beside; pycocotools would take the box's.

    Args:
        annotations: COCO's annotations file, or what was read from it.
        results: as :func:`read_results` gives them, with original category ids; they stay as they are.
        image_ids: only these images; what was found in others is not counted.

    Raises:
        UsageError: there is no such file, or the evaluator is not installed.
        DataError: a result is of another dataset, or lacks what the IoU type needs.
    """
    file = annotations if isinstance(annotations, AnnotationFile) else read_annotations(annotations)
    chosen = _chosen(file, image_ids)
    _check_results(file, results, iou_type)
    if iou_type == "segm":
        _check_masks(file, chosen)
    entries = _entries(file, results, iou_type)
    matched: Any
    if evaluator == "vectorised":
        matched = matched_by_us(file, entries, iou_type, chosen)
    else:
        matched = matched_by(evaluator, file, entries, iou_type, chosen)
    return CocoEvaluation(file, entries, iou_type, chosen, evaluator, matched)


def _chosen(file: AnnotationFile, image_ids: Sequence[int] | None) -> list[int]:
    known = {image["id"] for image in file.images}
    if image_ids is None:
        return sorted(known)
    if unknown := set(image_ids) - known:
        raise DataError(f"image_id {min(unknown)} is not in {file.path}")
    return sorted(set(image_ids))


def _check_results(file: AnnotationFile, results: Sequence[Mapping[str, Any]], iou_type: IouType) -> None:
    images = {image["id"] for image in file.images}
    categories = {category["id"] for category in file.categories}
    needed = NEEDED[iou_type]
    if (
        set(map(itemgetter("image_id"), results)) <= images
        and set(map(itemgetter("category_id"), results)) <= categories
        and all(result.get(needed) is not None for result in results)
    ):
        return
    for number, result in enumerate(results, start=1):
        if result["image_id"] not in images:
            raise DataError(f"result {number}: image_id {result['image_id']} is not in {file.path}")
        if result["category_id"] not in categories:
            raise DataError(
                f"result {number}: category_id {result['category_id']} is not in {file.path}; ids are the "
                f"original ones ({min(categories)} to {max(categories)}), not 1 to {len(categories)}"
            )
        if result.get(needed) is None:
            raise DataError(f"result {number} has no {needed}; score by --iou-type {OTHER[iou_type]}")


def _entries(
    file: AnnotationFile, results: Sequence[Mapping[str, Any]], iou_type: IouType
) -> Sequence[Mapping[str, Any]]:
    """Results as they are; by masks with all of these as compressed RLE."""
    if iou_type == "bbox":
        return results
    sizes = {image["id"]: (image["height"], image["width"]) for image in file.images}
    wanted = [sizes[result["image_id"]] for result in results]
    masks = [result["segmentation"] for result in results]
    for number, fits in enumerate(are_rle(masks, wanted), start=1):
        if not (fits or isinstance(masks[number - 1], list)):
            height, width = wanted[number - 1]
            raise DataError(
                f"result {number}: its mask is no RLE of its image's {height} x {width} pixels "
                "(height x width)"
            )
    return [
        result if is_compressed(mask) else {**result, "segmentation": encoded(mask, *size)}
        for result, mask, size in zip(results, masks, wanted, strict=True)
    ]


def _check_masks(file: AnnotationFile, image_ids: list[int]) -> None:
    chosen = set(image_ids)
    for annotation in file.annotations:
        if annotation["image_id"] in chosen and not has_mask(annotation.get("segmentation")):
            raise DataError(
                f"{file.path}: annotation {annotation['id']} has no polygons of three points or more, and no "
                "RLE; masks cannot be scored by it"
            )


def _classes(
    file: AnnotationFile,
    entries: Sequence[Mapping[str, Any]],
    image_ids: Sequence[int],
    precisions: Mapping[int, tuple[float, float]],
) -> list[ClassScore]:
    chosen = set(image_ids)
    objects = Counter(
        one["category_id"] for one in file.annotations if one["image_id"] in chosen and not one["iscrowd"]
    )
    if len(chosen) < len(file.images):
        entries = [entry for entry in entries if entry["image_id"] in chosen]
    detections = Counter(map(itemgetter("category_id"), entries))
    classes = []
    for category in sorted(file.categories, key=lambda one: one["id"]):
        number = category["id"]
        ap, ap50 = precisions.get(number, (None, None))
        name = category["name"]
        classes.append(ClassScore(number, name, ap, ap50, objects[number], detections[number]))
    return classes
