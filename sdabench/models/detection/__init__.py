"""Detectors: Faster and Mask R-CNN on any trunk, built on torchvision with mmdetection 2.x semantics.

Sources: Ren et al., NeurIPS 2015; He et al., ICCV 2017; the configs of the paper's authors, which are
mmdetection 2.x's ``faster_rcnn_r50_fpn_1x_coco`` and ``mask_rcnn_r50_fpn_1x_coco`` with other backbones.

These follow mmdetection where torchvision differs: aligned RoIAlign with adaptive sampling, unrounded anchors
on a grid of the strides of the levels, L1 losses, low-quality matches above a minimum, no anchors in the
padding, 4 x K box deltas and K mask logits for K classes, binary mask targets, sizes rounded to the nearest
pixel, initialization, and freezing of stem, first stage and batch-norm statistics.

The remaining differences are listed in ``differences`` of the two families in the registry.
"""
