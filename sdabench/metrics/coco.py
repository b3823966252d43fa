"""COCO's AP of detections, by boxes or by masks, in percent. Free of torch.

pycocotools is the authority. faster-coco-eval gives the same numbers, and may be used in its place.
"""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pycocotools import mask as coco_mask
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

from sdabench.data.annotations import AnnotationFile, Entry, read_annotations, read_json
from sdabench.data.coco import has_mask
from sdabench.data.rle import is_rle
from sdabench.errors import DataError, NothingMeasuredError, UsageError
from sdabench.metrics import Evaluator, IouType

# In the order of the first of COCO's twelve numbers: small, medium and large are below 32², up to 96²,
# and above, in pixels of area.
METRICS = ("ap_pct", "ap50_pct", "ap75_pct", "ap_s_pct", "ap_m_pct", "ap_l_pct")
NEEDED = {"bbox": "bbox", "segm": "segmentation"}
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

    ``matched`` is the evaluator's own object; only that of pycocotools tells what was matched with what.
    """

    file: AnnotationFile
    entries: list[Entry]
    iou_type: IouType
    image_ids: list[int]
    evaluator: Evaluator
    matched: Any

    def score(self) -> CocoScore:
        """COCO's AP: at IoU 0.50:0.95, 101 recall points and 100 detections an image.

        Raises:
            NothingMeasuredError: no object is annotated in these images.
        """
        with redirect_stdout(io.StringIO()):
            self.matched.accumulate()
            self.matched.summarize()
        stats, images = self.matched.stats, self.image_ids
        if stats[0] < 0:
            raise NothingMeasuredError(
                f"nothing was measured: no object of {len(images)} images in {self.file.path}"
            )
        metrics = {
            name: 100 * float(value)
            for name, value in zip(METRICS, stats[: len(METRICS)], strict=True)
            if value >= 0
        }
        classes = _classes(self.file, self.entries, images, self.matched.eval["precision"])
        return CocoScore(self.iou_type, metrics, len(images), classes)

    def by_pycocotools(self) -> "CocoEvaluation":
        """The same, matched by pycocotools if it was another evaluator."""
        if self.evaluator == "pycocotools":
            return self
        matched = _matched(self.file, self.entries, self.iou_type, self.image_ids, "pycocotools")
        return replace(self, evaluator="pycocotools", matched=matched)


def score(
    annotations: Path | AnnotationFile,
    results: Sequence[Mapping[str, Any]],
    iou_type: IouType,
    image_ids: Sequence[int] | None = None,
    evaluator: Evaluator = "pycocotools",
) -> CocoScore:
    """COCO's AP of results: :func:`evaluate` and nothing kept but its score."""
    return evaluate(annotations, results, iou_type, image_ids, evaluator).score()


def evaluate(
    annotations: Path | AnnotationFile,
    results: Sequence[Mapping[str, Any]],
    iou_type: IouType,
    image_ids: Sequence[int] | None = None,
    evaluator: Evaluator = "pycocotools",
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
    entries = _entries(file, results, iou_type)
    if iou_type == "segm":
        _check_masks(file, chosen)
    matched = _matched(file, entries, iou_type, chosen, evaluator)
    return CocoEvaluation(file, entries, iou_type, chosen, evaluator, matched)


def _chosen(file: AnnotationFile, image_ids: Sequence[int] | None) -> list[int]:
    known = {image["id"] for image in file.images}
    if image_ids is None:
        return sorted(known)
    if unknown := set(image_ids) - known:
        raise DataError(f"image_id {min(unknown)} is not in {file.path}")
    return sorted(set(image_ids))


def _entries(file: AnnotationFile, results: Sequence[Mapping[str, Any]], iou_type: IouType) -> list[Entry]:
    """Results with what the IoU type needs and nothing else; masks as compressed RLE."""
    images = {image["id"]: image for image in file.images}
    categories = {category["id"] for category in file.categories}
    needed = NEEDED[iou_type]
    entries: list[Entry] = []
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
        entry = {key: result[key] for key in ("image_id", "category_id", "score")}
        if iou_type == "bbox":
            entry["bbox"] = list(result["bbox"])
        else:
            entry["segmentation"] = _compressed(result["segmentation"], images[result["image_id"]], number)
        entries.append(entry)
    return entries


def _compressed(segmentation: Any, image: Entry, number: int) -> Entry:
    """A result's mask as compressed RLE of its image's size."""
    height, width = image["height"], image["width"]
    if segmentation == []:
        segmentation = {"size": [height, width], "counts": [height * width]}
    if isinstance(segmentation, list):
        return dict(coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width)))
    if not is_rle(segmentation, height, width):
        raise DataError(
            f"result {number}: its mask is no RLE of its image's {height} x {width} pixels (height x width)"
        )
    if isinstance(segmentation["counts"], list):
        return dict(coco_mask.frPyObjects(segmentation, height, width))
    return dict(segmentation)


def _check_masks(file: AnnotationFile, image_ids: list[int]) -> None:
    chosen = set(image_ids)
    for annotation in file.annotations:
        if annotation["image_id"] in chosen and not has_mask(annotation.get("segmentation")):
            raise DataError(
                f"{file.path}: annotation {annotation['id']} has no polygons of three points or more, and no "
                "RLE; masks cannot be scored by it"
            )


def _matched(
    file: AnnotationFile,
    entries: list[Entry],
    iou_type: IouType,
    image_ids: list[int],
    evaluator: Evaluator,
) -> Any:
    dataset_class, evaluator_class = _classes_of(evaluator)

    def dataset(annotations: list[Entry]) -> Any:
        made = dataset_class()
        made.dataset = {"images": file.images, "categories": file.categories, "annotations": annotations}
        made.createIndex()
        return made

    # Evaluators write into what they are given, and take the id 0 for 'unmatched'.
    truth = [entry | {"id": number} for number, entry in enumerate(file.annotations, start=1)]
    found = [dict(entry) for entry in entries]
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


def _classes(
    file: AnnotationFile, entries: Sequence[Entry], image_ids: Sequence[int], precision: Any
) -> list[ClassScore]:
    """By precision (T, R, K, A, M): IoU thresholds, recalls, categories, area ranges, most detections."""
    chosen = set(image_ids)
    objects = Counter(
        one["category_id"] for one in file.annotations if one["image_id"] in chosen and not one["iscrowd"]
    )
    detections = Counter(entry["category_id"] for entry in entries if entry["image_id"] in chosen)
    classes = []
    for place, category in enumerate(sorted(file.categories, key=lambda one: one["id"])):
        of_class = precision[:, :, place, 0, -1]
        measured = bool((of_class > -1).any())
        classes.append(
            ClassScore(
                category_id=category["id"],
                name=category["name"],
                ap_pct=100 * float(of_class.mean()) if measured else None,
                ap50_pct=100 * float(of_class[0].mean()) if measured else None,
                ground_truth=objects[category["id"]],
                detections=detections[category["id"]],
            )
        )
    return classes
