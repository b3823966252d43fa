"""The columns of frames: dtype, and meaning with its unit. Free of pandas; docs/frames.md shows them."""

from typing import Literal, NamedTuple

Dtype = Literal["str", "float64", "Int64", "int64", "bool", "boolean"]


class Column(NamedTuple):
    dtype: Dtype
    meaning: str


Columns = dict[str, Column]

_OUTCOME = Column("str", "holds, open, fails or unknown")
_TASK = Column("str", "classification, detection or segmentation")
_METRIC = Column("str", "top1_pct, ap_pct and so on")

CLAIMS: Columns = {
    "table": Column("str", "name of the table"),
    "group": Column("str", "heading of the rows in the table"),
    "row": Column("str", "label of the row, as printed"),
    "model": Column("str", "name of the network"),
    "metric": Column("str", "column of the table, with its unit: params_m, flops_g, top1_pct, ap_pct"),
    "unit": Column("str", "M (10^6), G (10^9) or %"),
    "paper": Column("float64", "the printed number, in the row's unit"),
    "bold": Column("bool", "whether the paper prints it bold"),
    "convention": Column("str", "how size or cost is counted; missing for accuracies"),
    "measured": Column(
        "float64", "unrounded value under this convention, in the row's unit; mean over trainings"
    ),
    "delta": Column("float64", "measured minus paper, in the row's unit"),
    "low": Column("float64", "lower bound of the 95 % interval by which the number is judged, in percent"),
    "high": Column("float64", "upper bound of it"),
    "trainings": Column(
        "Int64", "trainings that the verdict rests on; 0: given weights; missing: not measured"
    ),
    "p": Column("float64", "p-value of the printed number, before Holm's correction"),
    "verdict": Column("str", "the verdict in words"),
    "outcome": _OUTCOME,
    "explanation": Column("str", "why the number differs, if the registry knows"),
    "source": Column("str", "where the explanation comes from"),
}
RECORDS: Columns = {
    "run": Column("str", "path that was read"),
    "model": Column("str", "name of the network"),
    "task": _TASK,
    "metric": Column("str", "top1_pct, ap_pct and so on; missing for a failed job"),
    "value_pct": Column("float64", "the metric in percent, unrounded"),
    "standard_error_pct": Column("float64", "its standard error over test images, in percentage points"),
    "seed": Column("Int64", "seed of the training"),
    "dataset": Column("str", "kind of dataset, such as imagenet, folder, coco or synthetic"),
    "split": Column("str", "val or train"),
    "samples": Column("int64", "number of evaluated images"),
    "recipe": Column("str", "recipe of the training; missing for given weights"),
    "comparable": Column("bool", "whether the record is comparable with the paper"),
    "obstacles": Column("str", "why it is not"),
    "failure": Column("str", "why the job failed"),
    "spec_digest": Column("str", "sha256 of what was requested"),
    "weights_digest": Column("str", "sha256 of the weights file"),
    "dataset_digest": Column("str", "sha256 over names and bytes of the images"),
    "created": Column("str", "time of writing, ISO 8601, UTC"),
}
NETWORKS: Columns = {
    "model": Column("str", "name of the network"),
    "title": Column("str", "name in words"),
    "family": Column("str", "networks that share a block"),
    "task": _TASK,
    "baseline": Column("str", "network that the paper compares it with"),
    "control": Column("str", "the same network without depth attention, if it has any"),
    "depth_attention": Column("bool", "whether it has depth attention"),
    "backbone": Column("str", "network that a detector is built on"),
    "tables": Column("str", "tables of the paper that list it, separated by spaces"),
}
COUNTS: Columns = {
    "model": Column("str", "name of the network"),
    "channels": Column("Int64", "channels of the input; missing for other inputs than images"),
    "height": Column("Int64", "height of the input in pixels"),
    "width": Column("Int64", "width of the input in pixels"),
    "batch": Column("int64", "number of images in the batch"),
    "convention": Column(
        "str",
        "params, trainable, per_call; macs, fvcore, total, mmcv; "
        "weight_product, product: matrix products outside layers, with weights and between activations",
    ),
    "value": Column("int64", "the exact count: parameters, or operations for the whole batch"),
}
COMPARISONS: Columns = {
    "table": Column("str", "table that implies the difference"),
    "task": _TASK,
    "model": Column("str", "network with depth attention"),
    "partner": Column("str", "network that it is compared with"),
    "role": Column("str", "what the partner is: baseline, control, or both"),
    "metric": _METRIC,
    "paper": Column("float64", "the printed difference in percentage points; missing if not printed"),
    "measured": Column("float64", "the measured difference in percentage points; mean over trainings"),
    "low": Column(
        "float64",
        "lower bound of the 95 % interval of two single trainings; of given weights: of test images",
    ),
    "high": Column("float64", "upper bound of it"),
    "own_low": Column(
        "float64",
        "lower bound of the 95 % confidence interval of the expected difference; of given weights: low",
    ),
    "own_high": Column("float64", "upper bound of it"),
    "trainings": Column(
        "Int64", "trainings of the network with fewer; 0: given weights; missing: not measured"
    ),
    "recipe": Column("str", "recipe of both trainings"),
    "paired": Column("bool", "whether seeds, or test images of given weights, are paired"),
    "better": Column("boolean", "whether the confidence interval is above zero; missing if it includes zero"),
    "p": Column("float64", "p-value of the printed difference, before Holm's correction"),
    "verdict": Column("str", "the verdict in words; missing if the paper does not print the difference"),
    "outcome": Column("str", f"{_OUTCOME.meaning}; missing without a verdict"),
}
RUN_DIFFERENCES: Columns = {
    "task": _TASK,
    "metric": _METRIC,
    "a": Column("str", "first run, as it was named"),
    "b": Column("str", "second run, as it was named"),
    "a_pct": Column("float64", "metric of the first run in percent, unrounded; mean over its trainings"),
    "b_pct": Column("float64", "metric of the second run"),
    "a_sd": Column("float64", "standard deviation between trainings, in percentage points; missing for one"),
    "b_sd": Column("float64", "the same of the second run"),
    "a_trainings": Column("Int64", "number of trainings of the first run; 0 for given weights"),
    "b_trainings": Column("Int64", "number of trainings of the second run"),
    "difference": Column("float64", "second minus first, in percentage points; missing for other images"),
    "low": Column("float64", "lower bound of its 95 % confidence interval, not corrected for several pairs"),
    "high": Column("float64", "upper bound of it"),
    "basis": Column("str", "what the interval covers: trainings (their spread), or images (their choice)"),
    "paired": Column("bool", "whether seeds, or test images of given weights, are paired"),
    "p": Column("float64", "p-value of no difference"),
    "p_holm": Column("float64", "the same after Holm's correction over all comparable pairs of runs"),
    "comparable": Column("bool", "whether both runs have the same images and preprocessing"),
    "better": Column("boolean", "whether the second run is better; missing if that is not significant"),
    "reason": Column("str", "why the interval is unknown"),
}
STATEMENTS: Columns = {
    "name": Column("str", "name of the statement"),
    "statement": Column("str", "what the text of the paper states"),
    "source": Column("str", "where it states that"),
    "verdict": Column("str", "verdict: supported, contradicted, open, not testable or not measured"),
    "table": Column("str", "table of a comparison that decides it; missing if nothing is printed"),
    "label": Column("str", "row that the statement is about, as printed, or what was measured"),
    "compared_with": Column("str", "row that it is compared with, as printed"),
    "metric": Column("str", "column of the table, with its unit, or the measure"),
    "minus": Column("str", "column whose difference is subtracted"),
    "difference": Column("float64", "difference of the printed numbers in points; of sizes and costs in %"),
    "unit": Column("str", "unit of a measured difference: points, depth per octave or octaves"),
    "low": Column("float64", "lower bound of the 95 % interval over seeds of a measured difference"),
    "high": Column("float64", "upper bound of it"),
    "trainings": Column("Int64", "number of seeds of a measured difference"),
    "p": Column("float64", "p-value of no difference, before Holm's correction; of a study, after it"),
    "outcome": Column("str", "supported, contradicted or open by this comparison alone"),
}
POWER: Columns = {
    "table": Column("str", "table that implies the difference"),
    "model": Column("str", "network with depth attention"),
    "partner": Column("str", "network that it is compared with"),
    "metric": _METRIC,
    "reported": Column("float64", "the printed difference in percentage points"),
    "sd": Column("float64", "standard deviation of a difference of two trainings, in percentage points"),
    "sd_measured": Column("bool", "whether it is that of records; otherwise of published trainings"),
    "trainings": Column("Int64", "trainings of each network whose mean difference shows it; missing: never"),
    "trainings_with_single": Column("Int64", "the same beside the paper's single trainings; missing: never"),
    "images": Column("Int64", "test images that show it for given weights; missing for AP, or: never"),
}
BASELINES: Columns = {
    "table": Column("str", "table of both rows"),
    "model": Column("str", "network with depth attention"),
    "partner": Column("str", "network of the published training"),
    "metric": _METRIC,
    "paper": Column("float64", "the paper's number of the partner, in percent"),
    "reported": Column("float64", "the printed difference in percentage points; missing if not printed"),
    "published": Column("float64", "number of the published training, in percent"),
    "difference": Column("float64", "the paper's number of the model minus the published one, in points"),
    "source": Column("str", "name of the source"),
    "training": Column("str", "name of the published training"),
    "p": Column("float64", "p-value of no difference, if trainings spread as published"),
    "verdict": Column("str", "survives, does not survive or open"),
}
TABLE_PARTS: Columns = {
    "paper": Column("float64", "the printed number; missing for a dash"),
    "bold": Column("bool", "whether the paper prints it bold"),
    "measured": Column("float64", "measured value, unrounded; mean over trainings"),
    "Δ": Column("float64", "measured minus paper"),
    "±": Column("float64", "half the width of the 95 % interval by which the number is judged"),
    "verdict": Column("str", "the verdict in words; missing for a dash"),
    "outcome": Column("str", f"{_OUTCOME.meaning}; missing for a dash"),
    "other_convention": Column("str", "convention of the measured value, if it is not the column's"),
}
STUDY_TESTS: Columns = {
    "study": Column("str", "name of the study"),
    "test": Column("str", "name of the test"),
    "primary": Column("bool", "whether the decision rests on it"),
    "measure": Column("str", "measure of the study, such as octave_top1_pct, depth_slope or ap_s_pct"),
    "octave": Column("Int64", "octave of the object size, of top1_pct"),
    "arm": Column("str", "arm that is tested"),
    "against": Column("str", "arm that is subtracted, with the same seed; missing for none"),
    "unit": Column("str", "points, or depth per octave"),
    "seeds": Column("int64", "number of seeds with a value"),
    "estimate": Column("float64", "mean over seeds"),
    "sd": Column("float64", "standard deviation between seeds"),
    "low": Column("float64", "lower bound of the interval over seeds, at 1 - alpha"),
    "high": Column("float64", "upper bound of it"),
    "p": Column(
        "float64", "two-sided p-value of zero; missing for equal values, and before all are measured"
    ),
    "p_adjusted": Column("float64", "the same after Holm's correction, of primary tests"),
    "verdict": Column("str", "supported, contradicted or open, of primary tests"),
    "decision": Column("str", "decision of the study; missing before all trainings are measured"),
    "pilot": Column("bool", "whether the seeds are pilot seeds, which are not decided"),
}
STUDY_VALUES: Columns = {
    "study": Column("str", "name of the study"),
    "arm": Column("str", "arm of the study"),
    "model": Column("str", "name of the network"),
    "seed": Column("int64", "seed of the training"),
    "pilot": Column("bool", "whether it is a pilot seed"),
    "measure": Column("str", "such as top1_pct, depth_slope, attention_depth_trained or ap_pct"),
    "octave": Column("Int64", "octave of the object size; missing for all"),
    "stage": Column("str", "layer1 to layer4; missing for all"),
    "value": Column("float64", "percent, points, attention depth, or depth per octave"),
    "spec_digest": Column("str", "digest of the spec of the training"),
}
CURVES: Columns = {
    "run": Column("str", "folder of the training"),
    "model": Column("str", "name of the network"),
    "seed": Column("Int64", "seed of the training"),
    "step": Column("int64", "optimizer steps so far"),
    "epoch": Column("float64", "epochs so far, with a fraction"),
    "quantity": Column("str", "loss, loss_classifier, learning_rate, images_per_second, top1_pct and so on"),
    "value": Column("float64", "value of the quantity: mean over an epoch, or percent"),
}
_INSPECTED: Columns = {
    "model": Column("str", "name of the network"),
    "state": Column("str", "untrained or trained"),
    "run": Column("Int64", "number of the weights of the network, from 1; untrained weights have one, too"),
    "seed": Column("Int64", "seed of the training, or of the initial weights"),
    "weights": Column("str", "source of the weights; random if untrained"),
}
DEPTH_WEIGHTS: Columns = {
    **_INSPECTED,
    "stage": Column("str", "layer1 to layer4"),
    "block": Column("int64", "number of the block in its stage, from 0"),
    "blocks": Column("int64", "number of blocks that the stage fuses; their weights sum to 1"),
    "images": Column("int64", "number of images"),
    "mean": Column("float64", "mean weight over images and channels"),
    "sd": Column("float64", "standard deviation over images of the mean over channels"),
    "q05": Column("float64", "quantile of 5 % over images and channels"),
    "q25": Column("float64", "quantile of 25 %"),
    "median": Column("float64", "median"),
    "q75": Column("float64", "quantile of 75 %"),
    "q95": Column("float64", "quantile of 95 %"),
    "largest_pct": Column(
        "float64", "percentage of images and channels for which no block has a larger weight"
    ),
}
DEPTH_BY_SIZE: Columns = {
    **_INSPECTED,
    "stage": Column("str", "layer1 to layer4, or all: their mean"),
    "octave": Column("int64", "log2 of the object size, rounded down; a size is a share of the short side"),
    "size": Column("str", "range of the object size in words"),
    "images": Column("int64", "number of images with objects of that size"),
    "depth": Column("float64", "mean attention depth: 0 for the first block of a stage, 1 for the last"),
    "low": Column("float64", "lower bound of its 95 % interval over images"),
    "high": Column("float64", "upper bound of it"),
}
DEPTH_SLOPES: Columns = {
    **_INSPECTED,
    "state": Column("str", "untrained, trained, or trained - untrained: the difference on the same images"),
    "run": Column("Int64", "number of the weights of the network; missing for a mean over runs"),
    "runs": Column("int64", "number of runs"),
    "stage": Column("str", "layer1 to layer4, or all: their mean"),
    "images": Column("int64", "number of images with objects of known size"),
    "slope": Column("float64", "attention depth per octave of the object size, by least squares"),
    "low": Column("float64", "lower bound of its 95 % interval"),
    "high": Column("float64", "upper bound of it"),
    "over": Column("str", "what the interval is over: images, or runs"),
    "correlation": Column("float64", "Pearson's correlation of depth and log2 of the size; mean over runs"),
}
RADIUS_SLOPES: Columns = {
    **DEPTH_SLOPES,
    "state": Column("str", "untrained or trained"),
    "stage": Column("str", "layer1 to layer4"),
    "images": Column("int64", "number of images with a receptive field"),
    "slope": Column("float64", "log2 of the radius per attention depth, by least squares, in octaves"),
    "correlation": Column("float64", "Pearson's correlation of log2 of the radius and depth; mean over runs"),
}
RECEPTIVE_FIELDS: Columns = {
    **_INSPECTED,
    "stage": Column("str", "layer1 to layer4"),
    "block": Column("str", "path of the block in its stage; missing for the output of the stage"),
    "constant_weights": Column("bool", "whether the gradient through depth weights is left out"),
    "data": Column("str", "dataset of the images, or noise"),
    "images": Column("int64", "number of images"),
    "side": Column("int64", "side of the images in pixels"),
    "radius_px": Column("float64", "root mean square distance from the centroid of the field, in pixels"),
    "area_20_pct": Column("float64", "percentage of the image in the square that holds 20 % of the field"),
    "area_30_pct": Column("float64", "the same for 30 %"),
    "area_50_pct": Column("float64", "the same for 50 %"),
    "area_99_pct": Column("float64", "the same for 99 %"),
}
