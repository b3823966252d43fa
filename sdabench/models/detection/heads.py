"""Heads of detectors: RoIAlign on the pyramid, box head, mask head, and their losses."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import batched_nms, clip_boxes_to_image

from sdabench.models.detection.masks import mask_targets, roi_align
from sdabench.models.detection.proposals import BACKGROUND, match

Detection = dict[str, Tensor]
MASK_SIDE = 28
FINEST_SIDE = 56  # boxes up to this side are pooled from the finest level


class PyramidAlign(nn.Module):
    """Aligned RoIAlign with adaptive sampling; the size of a box selects its level."""

    def __init__(self, strides: Sequence[int], side: int) -> None:
        super().__init__()
        self.strides, self.side = tuple(strides), side

    def forward(
        self, features: dict[str, Tensor], boxes: list[Tensor], image_sizes: list[tuple[int, int]]
    ) -> Tensor:
        """Pool boxes (P, 4) of each image from the first maps of the pyramid: (sum of P, C, side, side)."""
        maps = list(features.values())[: len(self.strides)]
        every = torch.cat(boxes)
        image = torch.cat([each.new_full((len(each), 1), index) for index, each in enumerate(boxes)])
        sides = ((every[:, 2] - every[:, 0]) * (every[:, 3] - every[:, 1])).clamp(min=0).sqrt()
        levels = torch.log2(sides / FINEST_SIDE + 1e-6).floor().clamp(0, len(maps) - 1)
        pooled = maps[0].new_zeros(len(every), maps[0].shape[1], self.side, self.side)
        indexed = torch.cat([image, every], dim=1).float()
        for rows, each, stride in zip(rows_of(levels, len(maps)), maps, self.strides, strict=True):
            aligned = roi_align(each.float(), indexed[rows], self.side, 1 / stride)
            pooled[rows] = aligned.to(pooled.dtype)
        return pooled


def rows_of(values: Tensor, count: int) -> tuple[Tensor, ...]:
    """Return the indices at which values (P,) are 0, 1, … count - 1; the host waits for the device once."""
    numbers = (values == torch.arange(count, device=values.device)[:, None]).sum(dim=1)
    rows: tuple[Tensor, ...] = values.argsort(stable=True).split(numbers.tolist())
    return rows


class BoxPredictor(nn.Module):
    """Map features (P, C) to logits (P, 1 + K) of background and K classes, and to box deltas (P, 4 K)."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(channels, num_classes + 1)
        self.bbox_pred = nn.Linear(channels, num_classes * 4)
        for layer, std in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_score(x).float(), self.bbox_pred(x).float()


class Heads(RoIHeads):
    """Torchvision's RoIHeads with K outputs for K classes, mmdetection's assignment and L1 loss.

    Labels are 1 to K; 0 is the background.
    """

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Any]] | None = None,
    ) -> tuple[list[Detection], dict[str, Tensor]]:
        if self.training:
            return [], self._losses(features, proposals, image_shapes, targets)
        logits, deltas = self.box_outputs(features, proposals, image_shapes)
        boxes, scores, labels = self.postprocess_detections(logits, deltas, proposals, image_shapes)
        detections = [
            {"boxes": own, "scores": score, "labels": label}
            for own, score, label in zip(boxes, scores, labels, strict=True)
        ]
        if self.has_mask():
            masks = self.mask_logits(features, boxes, image_shapes, torch.cat(labels)).sigmoid()
            for each, mask in zip(detections, masks.split([len(own) for own in boxes]), strict=True):
                each["masks"] = mask
        return detections, {}

    def _losses(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Any]] | None,
    ) -> dict[str, Tensor]:
        assert targets is not None
        proposals, matched, labels, boxes = self.select_training_samples(proposals, targets)
        logits, deltas = self.box_outputs(features, proposals, image_shapes)
        classes = torch.cat(labels)
        image = torch.cat([torch.full_like(label, index) for index, label in enumerate(labels)])
        # The positive samples by image, and then the others.
        *foreground, _ = rows_of(torch.where(classes > 0, image, len(labels)), len(labels) + 1)
        positive = torch.cat(foreground)
        own = deltas.unflatten(1, (-1, 4))[positive, classes[positive] - 1]
        distance = F.l1_loss(own, torch.cat(boxes)[positive], reduction="sum") / max(len(classes), 1)
        entropy = F.cross_entropy(logits, classes) if len(classes) else logits.sum()  # of no boxes: 0
        losses = {"loss_classifier": entropy, "loss_box_reg": distance}
        if self.has_mask():
            every, objects = torch.cat(proposals), torch.cat(matched)
            boxes = [every[rows] for rows in foreground]
            predicted = self.mask_logits(features, boxes, image_shapes, classes[positive])
            masks = torch.cat(
                [
                    mask_targets(target["masks"], objects[rows], own, size, MASK_SIDE)
                    for target, rows, own, size in zip(targets, foreground, boxes, image_shapes, strict=True)
                ]
            )
            entropy = F.binary_cross_entropy_with_logits(predicted, masks, reduction="sum")
            losses["loss_mask"] = entropy / max(masks.numel(), 1)
        return losses

    def box_outputs(
        self, features: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        logits, deltas = self.box_predictor(self.box_head(self.box_roi_pool(features, boxes, image_shapes)))
        return logits, deltas

    def mask_logits(
        self,
        features: dict[str, Tensor],
        boxes: list[Tensor],
        image_shapes: list[tuple[int, int]],
        labels: Tensor,
    ) -> Tensor:
        """Compute mask logits (P, 28, 28) of the given class of each box."""
        pooled = self.mask_roi_pool(features, boxes, image_shapes)
        logits = self.mask_predictor(self.mask_head(pooled)).float()
        own: Tensor = logits[torch.arange(len(labels), device=labels.device), labels - 1]
        return own

    def assign_targets_to_proposals(
        self, proposals: list[Tensor], gt_boxes: list[Tensor], gt_labels: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Assign proposals to objects: return index (P,) and label (P,) for each image; 0 is background.

        The last proposals are the ground-truth boxes; they match themselves and do not compete with others.
        """
        low_quality = 0.5 if self.has_mask() else None
        matched, labels = [], []
        for own, boxes, classes in zip(proposals, gt_boxes, gt_labels, strict=True):
            found = own[: len(own) - len(boxes)]
            matches = match(boxes, found, high=0.5, low=0.5, low_quality=low_quality)
            matches = torch.cat([matches, torch.arange(len(boxes), device=own.device)])
            objects = matches.clamp(min=0)
            known = classes if len(classes) else classes.new_zeros(1)
            matched.append(objects)
            labels.append(torch.where(matches == BACKGROUND, 0, known[objects]))
        return matched, labels

    def postprocess_detections(
        self,
        class_logits: Tensor,
        box_regression: Tensor,
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Select the best boxes, scores and labels of each image above the threshold, after NMS per class.

        Outputs that are not finite raise a FloatingPointError; the threshold would drop them silently.
        """
        if not (class_logits.isfinite().all() & box_regression.isfinite().all()):
            raise FloatingPointError("the outputs for boxes are not finite")
        per_image = [len(each) for each in proposals]
        decoded = self.box_coder.decode(box_regression, proposals).flatten(1).unflatten(1, (-1, 4))
        probabilities = class_logits.softmax(dim=1)[:, 1:].split(per_image)
        selected = []
        for boxes, scores, size in zip(decoded.split(per_image), probabilities, image_shapes, strict=True):
            row, label = torch.where(scores > self.score_thresh)
            boxes, scores = clip_boxes_to_image(boxes[row, label], size), scores[row, label]
            best = batched_nms(boxes, scores, label, self.nms_thresh)[: self.detections_per_img]
            selected.append((boxes[best], scores[best], label[best] + 1))
        boxes, scores, labels = (list(each) for each in zip(*selected, strict=True))
        return boxes, scores, labels
