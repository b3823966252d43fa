"""Detectors: Faster and Mask R-CNN on any trunk, torchvision's package with mmdetection 2.x's semantics.

Sources: Ren et al., NeurIPS 2015; He et al., ICCV 2017; the configs of the paper's authors, which are
mmdetection 2.x's ``faster_rcnn_r50_fpn_1x_coco`` and ``mask_rcnn_r50_fpn_1x_coco`` with other backbones.

Where torchvision's own differ, these follow mmdetection: aligned RoIAlign with adaptive sampling, anchors
that are not rounded and lie on a grid of the levels' own strides, L1 losses, low-quality matches that
respect a minimum, anchors in the padding left out, 4 x K box deltas and K mask logits for K classes,
binary mask targets, sizes rounded to the nearest pixel, initialisation, and the freezing of stem, first
stage and batch norms' statistics.

What remains different (the registry says it too, ``differences`` of the two families):

1. The background is class 0 and not class K.
2. Images are resized by torch's bilinear interpolation, not OpenCV's, and decoded by Pillow, in RGB.
3. Box deltas are clipped where a box would grow 62.5-fold, and not where it would shrink so much.
4. Non-maximum suppression works on the boxes of the resized image, before they are scaled back.
5. Losses are means over a whole batch, or a part of it, not over each GPU's two images; batches mix
   orientations.
6. An EXIF rotation is ignored. Boxes of a results file are rounded to 3 decimals, scores to 6.
7. Polygons are drawn at the resized image's size; mmdetection draws at the image's own, and scales that.
"""
