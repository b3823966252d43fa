"""Train with the program on the device: resume a killed training, learn, and run a study."""

import json
import signal
import time
from pathlib import Path
from typing import Any

from gpu_steps.core import CannotRunError, Measure, Outcome, Setting
from gpu_steps.processes import Program, json_of_program, records_of_program, until
from sdabench.data.synthetic import default_dataset, ensure_dataset
from sdabench.data.synthetic.classification import ClassificationPlan, write_classification
from sdabench.data.synthetic.detection import DetectionPlan, write_detection
from sdabench.errors import ExitCode
from sdabench.records.json_lines import CHECKSUM

RESUMED = """\
title: A few steps, which are killed and resumed
epochs: {epochs}
batch_size: {batch}
train_images: {images}
optimizer: {{name: adamw, learning_rate: 5.0e-4, weight_decay: 0.05}}
schedule: {{kind: cosine}}
augmentation: {{crop: {side}, flip: 0.5}}
validation: {{crop: {side}, every_epochs: 1}}
"""
DETECTION = """\
title: A detector from random weights on small generated images
epochs: {epochs}
batch_size: {batch}
optimizer: {{name: adamw, learning_rate: 3.0e-4, weight_decay: 0.01}}
schedule: {{kind: cosine, warmup_steps: 50, warmup_factor: 0.1}}
short_side: {side}
freeze: false
anchor_samples: 128
box_samples: 64
proposals: 300
validation: {{every_epochs: 0}}
"""
# Times, and a checksum that includes them.
NOT_COMPARED = ("images_per_second", CHECKSUM)
STUDY = "depth-scale"
EXPORT_SECONDS = 60.0  # that a study needs at the end to stop, save and be exported


def images_for_training(setting: Setting) -> Path:
    """Return the default generated dataset, or a tiny one."""
    if not setting.tiny:
        return default_dataset()
    folder = setting.folder / "images"
    if not folder.is_dir():
        write_classification(folder, ClassificationPlan(2, 8, 2, 32))
    return folder


def resume_killed(setting: Setting) -> Outcome:
    """Kill and resume a deterministic training in mixed precision; compare it with an uninterrupted one."""
    recipe = setting.folder / "resumed.yaml"
    sizes = setting.pick(
        {"epochs": 6, "batch": 64, "images": 640, "side": 128},
        tiny={"epochs": 6, "batch": 8, "images": 16, "side": 32},
    )
    recipe.write_text(RESUMED.format(**sizes))
    measures, details = [], {}
    for precision in setting.pick(("fp16", "bf16"), tiny=("bf16",)):
        found = details[precision] = _kill_and_resume(precision, recipe, setting)
        measures += [
            Measure(f"{precision}: resumed after SIGKILL", found["resumed"] > 0, target=True),
            Measure(f"{precision}: weights are bit-identical", found["same_weights"], target=True),
            Measure(f"{precision}: logs and metrics are identical", found["same_log"], target=True),
        ]
        if "repeatable" in found:
            measures.append(Measure(f"{precision}: an uninterrupted training repeats", found["repeatable"]))
    return Outcome(measures, details=details)


def _kill_and_resume(precision: str, recipe: Path, setting: Setting) -> dict[str, Any]:
    """Return whether the results of a killed and of an uninterrupted training are the same."""
    data = images_for_training(setting)

    def command(output: Path, *more: object) -> list[object]:
        model = setting.pick("sda_resnet86", tiny="sda_resnet_narrow")
        source = ("--data", f"synthetic={data}", "--recipe", recipe)
        arithmetic = ("--device", setting.device, "--amp", precision, "--deterministic")
        workers = ("--workers", setting.pick(2, tiny=0))
        return ["train", model, *source, *arithmetic, *workers, "-o", output, *more]

    whole, killed, again = (setting.folder / f"{name}-{precision}" for name in ("whole", "killed", "again"))
    Program(*command(whole)).check()
    often = ("--checkpoint-every", setting.pick(0.02, tiny=0.002))  # minutes
    process = Program(*command(killed, *often))
    pattern = "training/*/checkpoints/step-*.pt"  # when there are two, the first is complete
    if not until(lambda: len([*killed.glob(pattern)]) >= 2, process, 300):
        raise RuntimeError("the training ended before it wrote two checkpoints")
    process.send(signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        raise RuntimeError("the training ended before it could be killed")
    Program(*command(killed)).check()
    expected, found = _result(whole), _result(killed)
    same = {key: found[key] == expected[key] for key in ("weights", "log")}
    result = {"resumed": found["resumed"], "same_weights": same["weights"], "same_log": same["log"]}
    if not all(same.values()):  # is it the resume, or the arithmetic?
        Program(*command(again)).check()
        result["repeatable"] = _result(again)["weights"] == expected["weights"]
    return result | {"steps": expected["steps"]}


def _result(output: Path) -> dict[str, Any]:
    """Read the digest of the weights, the log and the number of resumes of the only training in a folder."""
    [path] = output.glob("training/*/run.json")
    run = json.loads(path.read_text())
    lines = map(json.loads, (path.parent / "metrics.jsonl").read_text().splitlines())
    log = [{key: value for key, value in line.items() if key not in NOT_COMPARED} for line in lines]
    training = run["training"]
    return {"weights": run["sha256"], "log": log} | {key: training[key] for key in ("resumed", "steps")}


def learn_to_classify(setting: Setting) -> Outcome:
    """Train with the recipe demo to an accuracy far above chance."""
    data = images_for_training(setting)
    arguments: list[object] = ["train", setting.pick("sda_resnet86", tiny="sda_resnet_narrow")]
    arguments += ["--recipe", "demo", "--data", f"synthetic={data}", "--device", setting.device]
    arguments += setting.pick([], tiny=["--epochs", 4, "--batch-size", 8, "--resolution", 32])
    [record] = records_of_program(*arguments, "-o", setting.folder / "demo", folder=setting.folder)
    training, classes = record["training"], setting.pick(10, tiny=2)
    chance = 100 / classes
    target = min(5 * chance, 90.0)
    measures = [
        Measure(f"top-1, where chance is {chance:g} %", record["metrics"]["top1_pct"], "%", target),
        Measure("loss of the last epoch", training["last_loss"]),
    ]
    return Outcome(measures, details={"record": _without_data(record)})


def learn_to_detect(setting: Setting) -> Outcome:
    """Train a Mask R-CNN from random weights on generated images, and evaluate it on other ones."""
    if setting.tiny:
        data = setting.folder / "shapes"
        if not data.is_dir():
            write_detection(data, DetectionPlan(categories=2, train=4, val=2, image_size=128))
    else:
        data = ensure_dataset(DetectionPlan(categories=5, train=800, val=100, image_size=256))
    recipe = setting.folder / "detector.yaml"
    sizes = setting.pick(
        {"epochs": 16, "batch": 8, "side": 256},
        tiny={"epochs": 1, "batch": 4, "side": 64},
    )
    recipe.write_text(DETECTION.format(**sizes))
    arguments = ["train", "mask_rcnn_resnet50", "--data", f"synthetic={data}", "--recipe", recipe]
    arguments += ["--device", setting.device, "--workers", setting.pick(8, tiny=0)]
    records = records_of_program(*arguments, "-o", setting.folder / "detector", folder=setting.folder)
    measures = []
    for record in records:
        of = "boxes" if record["task"] == "detection" else "masks"
        measures.append(Measure(f"AP50 of {of}", record["metrics"]["ap50_pct"], "%", 20))
        measures.append(Measure(f"AP of {of}", record["metrics"]["ap_pct"], "%"))
    return Outcome(measures, details={"records": [*map(_without_data, records)]})


def _without_data(record: dict[str, Any]) -> dict[str, Any]:
    """Keep the parts of a record that name no folders."""
    return {key: record[key] for key in ("model", "task", "metrics", "samples", "training") if key in record}


def run_study(setting: Setting, name: str = STUDY) -> Outcome:
    """Run a study as far as the time allows; the next run resumes it in the same folder."""
    if setting.tiny:
        raise CannotRunError("its trainings take hours on a CPU")
    output = setting.folder / name
    command = ("study", "run", name, "--device", setting.device, "-o", output, "--jobs", 4)
    started = time.monotonic()
    process = Program(*command)
    status = process.wait(max(1.0, setting.seconds - EXPORT_SECONDS))
    if status is None:
        process.send(signal.SIGTERM)
        status = process.wait(EXPORT_SECONDS / 2)
    if status not in (ExitCode.OK, ExitCode.STOPPED):
        raise RuntimeError(f"the study ended with exit code {status}; see its log")
    nothing_measured = (ExitCode.OK, ExitCode.NOTHING_MEASURED)
    shown = json_of_program("study", "show", output, folder=setting.folder, allowed=nothing_measured)
    runs = [json.loads(path.read_text()) for path in output.glob("training/*/run.json")]
    wanted = f"of {shown['measured'] + len(shown['missing'])}"
    measures = [
        Measure("trainings finished", sum(run["training"] is not None for run in runs), wanted),
        Measure("trainings measured", shown["measured"], wanted),
        Measure("minutes in this run", (time.monotonic() - started) / 60),
    ]
    details = {"study": shown | {"folder": None}}
    return Outcome(measures, details=details, complete=status == ExitCode.OK)
