"""Region proposals: anchors, their assignment to objects, and the proposal network."""

from collections.abc import Sequence
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, concat_box_prediction_layers
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image

Target = dict[str, Tensor]
BACKGROUND, IGNORED = -1, -2
OBJECTS_PER_BLOCK = 32  # bounds the memory for overlaps with all anchors


class Anchors(AnchorGenerator):
    """Three unrounded anchors per position, with sides of 8 times the stride."""

    def __init__(self, strides: Sequence[int]) -> None:
        super().__init__(tuple((8 * stride,) for stride in strides), ((0.5, 1.0, 2.0),) * len(strides))
        self.strides = tuple(strides)

    def generate_anchors(
        self,
        scales: Sequence[int],
        aspect_ratios: Sequence[float],
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> Tensor:
        """Return (ratios, 4): corners around the origin; a ratio is height over width."""
        roots = torch.tensor(aspect_ratios, dtype=dtype, device="cpu").sqrt()
        half = torch.stack([scales[0] / roots, scales[0] * roots], dim=1) / 2
        return torch.cat([-half, half], dim=1)

    def forward(self, images: ImageList, maps: list[Tensor]) -> list[Tensor]:
        """Return the same anchors (A, 4) for each image, level by level; float32 also under autocast."""
        self.set_cell_anchors(torch.float32, maps[0].device)
        anchors = torch.cat(
            self.grid_anchors(
                [list(each.shape[-2:]) for each in maps], [[stride, stride] for stride in self.strides]
            )
        )
        return [anchors] * len(images.image_sizes)


def match(
    boxes: Tensor, candidates: Tensor, high: float, low: float, low_quality: float | None = None
) -> Tensor:
    """Match candidates (A, 4) to boxes (M, 4): indices (A,).

    A candidate matches the box with the highest IoU if that is at least ``high``; below ``low`` it becomes
    BACKGROUND, in between IGNORED. With ``low_quality``, the candidates with the highest IoU of a box also
    match it, if that IoU is at least ``low_quality``. Boxes are processed in blocks to bound memory.
    """
    best = candidates.new_zeros(len(candidates))
    matches = torch.full((len(candidates),), BACKGROUND, device=candidates.device)
    forced = matches.clone()
    for start in range(0, len(boxes), OBJECTS_PER_BLOCK):
        overlaps = box_iou(boxes[start : start + OBJECTS_PER_BLOCK], candidates)
        value, index = overlaps.max(dim=0)
        matches = torch.where(value > best, index + start, matches)
        best = torch.maximum(value, best)
        if low_quality is not None and len(candidates):
            most = overlaps.max(dim=1, keepdim=True).values
            rows = torch.arange(start, start + len(overlaps), device=overlaps.device)[:, None]
            own = torch.where((overlaps == most) & (most >= low_quality), rows, BACKGROUND)
            forced = torch.maximum(forced, own.max(dim=0).values)  # the last box with the highest IoU
    matches.masked_fill_(best < high, IGNORED).masked_fill_(best < low, BACKGROUND)
    return torch.where(forced >= 0, forced, matches)


class ProposalHead(nn.Module):
    """A 3x3 convolution, then objectness and box deltas of each anchor, shared by all levels."""

    def __init__(self, channels: int, anchors: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.cls_logits = nn.Conv2d(channels, anchors, 1)
        self.bbox_pred = nn.Conv2d(channels, 4 * anchors, 1)
        for layer in (self.conv, self.cls_logits, self.bbox_pred):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return float32 also under autocast, because boxes need it."""
        hidden = [F.relu(self.conv(each)) for each in maps]
        return (
            [self.cls_logits(each).float() for each in hidden],
            [self.bbox_pred(each).float() for each in hidden],
        )


class ProposalNetwork(RegionProposalNetwork):
    """Torchvision's RegionProposalNetwork with mmdetection's assignment of anchors and L1 loss."""

    def forward(
        self, images: ImageList, features: dict[str, Tensor], targets: list[Target] | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Compute the proposals of each image, and the losses in training.

        In evaluation, boxes that are not finite raise a FloatingPointError; they would be dropped silently.
        """
        maps = list(features.values())
        logits, deltas = self.head(maps)
        anchors = self.anchor_generator(images, maps)
        per_level = [each[0].numel() for each in logits]
        objectness, regression = concat_box_prediction_layers(logits, deltas)
        decoded = self.box_coder.decode(regression.detach(), anchors).view(len(anchors), -1, 4)
        proposals, _ = self.filter_proposals(decoded, objectness, images.image_sizes, per_level)
        if not self.training:
            if not (objectness.isfinite().all() & regression.isfinite().all()):
                raise FloatingPointError("the outputs for anchors are not finite")
            return proposals, {}
        assert targets is not None
        labels, boxes = self.assign_targets_to_anchors(anchors, targets, images.image_sizes)
        objectness_loss, box_loss = self.compute_loss(
            objectness, regression, labels, self.box_coder.encode(boxes, anchors)
        )
        return proposals, {"loss_objectness": objectness_loss, "loss_rpn_box_reg": box_loss}

    def filter_proposals(
        self,
        proposals: Tensor,
        objectness: Tensor,
        image_shapes: list[tuple[int, int]],
        num_anchors_per_level: list[int],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Select the best boxes and scores of each image, after NMS per level.

        It returns the same as torchvision's, but the host waits twice per image instead of three times.
        """
        objectness = objectness.detach().reshape(len(proposals), -1)
        numbers = torch.tensor(num_anchors_per_level)
        levels = torch.arange(len(numbers)).repeat_interleave(numbers).to(objectness.device)
        best = self._get_top_n_idx(objectness, num_anchors_per_level)
        probabilities = objectness.gather(1, best).sigmoid()
        boxes, scores = [], []
        for every, score, rows, size in zip(proposals, probabilities, best, image_shapes, strict=True):
            clipped = clip_boxes_to_image(every[rows], size)
            sides = clipped[:, 2:] - clipped[:, :2]
            [kept] = torch.where((sides >= self.min_size).all(dim=1) & (score >= self.score_thresh))
            own, score = clipped[kept], score[kept]
            chosen = batched_nms(own, score, levels[rows][kept], self.nms_thresh)[: self.post_nms_top_n()]
            boxes.append(own[chosen])
            scores.append(score[chosen])
        return boxes, scores

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[Target], sizes: list[tuple[int, int]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Assign anchors to objects: return labels (A,) and boxes (A, 4) for each image.

        Labels are 1 for objects, 0 for background, -1 for ignored anchors. Anchors in the padding are
        ignored; their area is set to zero, so that they are never the best match of an object.
        """
        labels, boxes = [], []
        for own, target, size in zip(anchors, targets, sizes, strict=True):
            within = inside(own, size)
            matches = match(target["boxes"], own * within[:, None], high=0.7, low=0.3, low_quality=0.3)
            matches.masked_fill_(~within, IGNORED)
            labels.append((matches >= 0).float() - (matches == IGNORED).float())
            objects = target["boxes"] if len(target["boxes"]) else own[:1]
            boxes.append(objects[matches.clamp(min=0)])
        return labels, boxes

    def compute_loss(
        self,
        objectness: Tensor,
        pred_bbox_deltas: Tensor,
        labels: list[Tensor],
        regression_targets: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Return the losses of objectness and of foreground boxes, as means over the sampled anchors."""
        positive, negative = (torch.cat(chosen).bool() for chosen in self.fg_bg_sampler(labels))
        [sampled] = torch.where(positive | negative)
        [positive] = torch.where(positive)
        distance = F.l1_loss(
            pred_bbox_deltas[positive], torch.cat(regression_targets)[positive], reduction="sum"
        )
        entropy = F.binary_cross_entropy_with_logits(
            objectness.flatten()[sampled], torch.cat(labels)[sampled], reduction="sum"
        )
        samples = max(1, len(sampled))
        return entropy / samples, distance / samples


def inside(anchors: Tensor, size: tuple[int, int]) -> Tensor:
    """Return which anchors (A, 4) have their center in an image of ``size``, padded to a multiple of 32."""
    height, width = (32 * ceil(side / 32) for side in size)
    centers = (anchors[:, :2] + anchors[:, 2:]) / 2
    return (centers[:, 0] < width) & (centers[:, 1] < height)
