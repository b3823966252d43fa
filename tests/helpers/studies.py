"""A small study, and measurements made by hand."""

from pathlib import Path
from typing import Any

from sdabench.records.studies import Measurement, StudyFolder
from sdabench.registry.studies import FrozenStudy, Study

DECLARATION: dict[str, Any] = {
    "title": "Two networks",
    "hypothesis": "Depth attention helps.",
    "source": "a test",
    "arms": {
        "learned": {"model": "sda_small", "title": "learned"},
        "uniform": {"model": "sda_small_uniform", "title": "1/n"},
    },
    "data": {
        "classes": ["disc_stripes", "square_checks"],
        "octaves": [-1, -2],
        "train_per_class": 8,
        "val_per_class": 4,
        "image_size": 40,
    },
    "recipe": "quick",
    "seeds": [0, 1, 2, 3],
    "permutations": 2,
    "tests": {
        "accuracy": {
            "measure": "octave_top1_pct",
            "arm": "learned",
            "against": "uniform",
            "reading": "Learned attention is more accurate.",
            "smallest_effect": 1.0,
            "direction": "positive",
        },
        "swap": {
            "measure": "swap_drop_pct",
            "arm": "learned",
            "reading": "Weights of another octave cost accuracy.",
            "smallest_effect": 0.5,
            "direction": "positive",
        },
        "slope": {
            "measure": "depth_slope",
            "arm": "learned",
            "reading": "Larger objects get more weight on deeper blocks.",
            "smallest_effect": 0.01,
            "direction": "positive",
        },
    },
    "decision": {"supported": "all", "contradicted": "any", "words": "All three, or it is not supported."},
    "pilot": {"text": "Three seeds.", "seeds": [100, 101, 102], "sd": {"accuracy": 0.5}},
}
DETECTION: dict[str, Any] = {
    "title": "Two detectors",
    "hypothesis": "Depth attention helps detectors.",
    "source": "a test",
    "arms": {
        "learned": {"model": "faster_rcnn_sda_small", "title": "learned"},
        "uniform": {"model": "faster_rcnn_sda_small_uniform", "title": "1/n"},
    },
    "data": {"categories": 2, "train": 4, "val": 4, "image_size": 128},
    "recipe": "quick",
    "seeds": [0, 1, 2, 3],
    "tests": {
        "small": {
            "measure": "ap_s_pct",
            "arm": "learned",
            "against": "uniform",
            "reading": "Learned attention has a higher AP on small objects.",
            "smallest_effect": 1.0,
            "direction": "positive",
        },
    },
    "decision": {"supported": "all", "contradicted": "any", "words": "The test decides."},
}
MODELS = """
family: small
network: {block: resnet, stem_width: 8, widths: [8, 8, 16, 16], expansion: 2, depths: [2, 2, 1, 1], head_norm: true}
models:
  small: {title: Small}
  sda_small: {title: SDA-Small, like_for_like: small, network: {depth_attention: {kind: learned, min_hidden: 4}}}
  sda_small_uniform: {title: Uniform, like_for_like: small, network: {depth_attention: {kind: uniform}}}
"""
DETECTORS = """
family: small_faster_rcnn
task: detection
models:
  faster_rcnn_sda_small: {title: Small detector, backbone: sda_small}
  faster_rcnn_sda_small_uniform: {title: Uniform detector, backbone: sda_small_uniform}
"""
RECIPE = """
title: Two epochs of two steps
epochs: 2
batch_size: 8
optimizer: {learning_rate: 0.05}
augmentation: {crop: 32}
validation: {crop: 32, every_epochs: 0}
"""
DETECTION_RECIPE = """
title: Two steps
epochs: 1
batch_size: 2
optimizer: {learning_rate: 0.002}
short_side: 64
box_samples: 16
proposals: 20
validation: {every_epochs: 0}
"""


def declared(**changes: Any) -> Study:
    """Return the study with some fields changed."""
    return Study.model_validate({"name": "tiny", **DECLARATION, **changes})


def write_study_plugin(folder: Path, **changes: Any) -> Path:
    """Write a plugin with the studies ``tiny``, with ``changes``, and ``shapes``, their networks and recipes."""
    import yaml

    files = {
        "models/small.yaml": MODELS,
        "models/small_faster_rcnn.yaml": DETECTORS,
        "recipes/classification/quick.yaml": RECIPE,
        "recipes/detection/quick.yaml": DETECTION_RECIPE,
        "studies/tiny.yaml": yaml.safe_dump(DECLARATION | changes, sort_keys=False),
        "studies/shapes.yaml": yaml.safe_dump(DETECTION, sort_keys=False),
    }
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def measured(arm: str, seed: int, study_sha256: str = "0" * 64, **values: float) -> Measurement:
    """Make a measurement of an arm."""
    return Measurement(
        study_sha256=study_sha256,
        arm=arm,
        model=f"model of {arm}",
        seed=seed,
        spec_digest=f"{arm} {seed}",
        images=8,
        values=values,
    )


def write_measured(folder: Path, study: FrozenStudy) -> StudyFolder:
    """Write measurements of all trainings of ``tiny``: all three tests support it."""
    found = StudyFolder(folder)
    found.freeze(study, pilot=False)
    for seed, noise in enumerate([0.0, 0.3, -0.2, 0.1]):
        values = {"top1_pct/-1": 90 + noise, "top1_pct/-2": 70.0, "octave_top1_pct": 80 + noise / 2}
        of_weights = {"swap_drop_pct": 1 + noise, "depth_slope": 0.1 + noise / 100}
        more = {"depth_slope_trained/layer1": 0.2}
        found.append([measured("learned", seed, study.sha256, **values, **of_weights, **more)])
        found.append([measured("uniform", seed, study.sha256, octave_top1_pct=75.0)])
    return found
