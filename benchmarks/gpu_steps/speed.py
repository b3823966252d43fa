"""Time the program on the device, beside its peers."""

import gc
import math
from argparse import Namespace
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, TypeVar

from pictures import make_pictures, measure_cost

from gpu_steps.core import CannotRunError, Measure, Outcome, Setting, Table
from gpu_steps.processes import json_of_program, run_script
from sdabench.registry import load_registry
from sdabench.resources import cores

T = TypeVar("T")
SUITE = "classification"
WORKERS = (1, 2, 4, 8, 16)
LEAST_BATCH = 4
TRAINED = ("resnet50", "sda_resnet86")  # networks that the training input has to feed
COMPILED = "bf16-channels-last-compile"


def with_smaller_batches(batch: int, work: Callable[[int], T]) -> T:
    """Call ``work`` with a batch size; halve it while the memory of the device is exhausted."""
    while True:
        try:
            return work(batch)
        except Exception as error:
            if "out of memory" not in str(error) or batch // 2 < LEAST_BATCH:
                raise
            batch //= 2
            gc.collect()
            print(f"out of memory: trying {batch} images", flush=True)


def bench(setting: Setting) -> Outcome:
    """Time inference and training steps of all networks of the classification suite."""
    names = setting.pick(load_registry().suite(SUITE), tiny=["resnet_narrow", "sda_resnet_narrow"])
    side, repeats = setting.pick((224, 10), tiny=(32, 2))

    def run(batch: int) -> Any:
        sizes = ("--batch-size", batch, "--resolution", side, "--repeats", repeats)
        return json_of_program("bench", *names, *sizes, "--device", setting.device, folder=setting.folder)

    by_name: dict[str, dict[str, Any]] = {name: {} for name in names}
    for speed in with_smaller_batches(setting.pick(64, tiny=2), run):
        by_name[speed["model"]][speed["mode"]] = speed
    timed = {name: modes for name, modes in by_name.items() if len(modes) == 2}
    measures = [Measure("networks timed", len(timed), target=len(names))]
    conditions = next(iter(timed.values()))["training"]
    rows = []
    for name, modes in timed.items():
        inference, training = modes["inference"], modes["training"]
        numbers = [inference["images_per_second"], training["images_per_second"]]
        spread = max(inference["spread_pct"], training["spread_pct"])
        memory = (training["peak_memory_bytes"] or math.nan) / 1e9
        rows.append([name, *(f"{each:,.0f}" for each in numbers), f"{memory:.2f}", f"{spread:.1f}"])
    for mode in ("inference", "training"):
        rates = {name: modes[mode]["images_per_second"] for name, modes in timed.items()}
        for word, choose in (("fastest", max), ("slowest", min)):
            name = choose(rates, key=lambda each: rates[each])  # type: ignore[call-overload]
            measures.append(Measure(f"{mode}, {word}", rates[name], f"images/s ({name})"))
    title = f"{conditions['batch_size']} images of {side} pixels, {conditions['precision']}"
    headings = ["network", "inference (images/s)", "training (images/s)", "training (GB)", "spread (%)"]
    details = {name: {mode: _rate(speed) for mode, speed in modes.items()} for name, modes in timed.items()}
    return Outcome(measures, [Table(title, headings, rows)], details)


def _rate(speed: dict[str, Any]) -> dict[str, Any]:
    kept = ("batch_size", "images_per_second", "latency_ms", "spread_pct", "peak_memory_bytes")
    return {key: speed[key] for key in kept}


def graphs(setting: Setting) -> Outcome:
    """Time small steps with and without CUDA graphs."""
    if not setting.on_cuda:
        raise CannotRunError("CUDA graphs need a CUDA device")
    measures, timed = [], {}
    for mode, batch in (("inference", 1), ("training", 8)):
        options = [
            *TRAINED,
            "--mode",
            mode,
            "--batch-size",
            batch,
            "--repeats",
            50,
            "--device",
            setting.device,
        ]
        plain = json_of_program("bench", *options, folder=setting.folder)
        graphed = json_of_program("bench", *options, "--cuda-graphs", folder=setting.folder)
        timed[mode] = plain + graphed
        for own, peer in zip(graphed, plain, strict=True):
            ratio = peer["latency_ms"]["median"] / own["latency_ms"]["median"]
            words = f"{own['model']}, {mode} of {batch}: speed with graphs beside without"
            measures.append(Measure(words, ratio, "times"))
    return Outcome(measures, details={"timed": timed})


def attention(model: str, compiled: bool, setting: Setting) -> Outcome:
    """Time training steps of whole networks beside the plain formulation of depth attention."""
    if compiled and not setting.on_cuda:
        raise CannotRunError("compiled steps are timed on CUDA only")
    variants = [COMPILED] if compiled else setting.pick(["fp32", "bf16"], tiny=["fp32"])
    more = ("--no-bound",) if compiled else ()  # to compile it takes as long again
    record = _depth_attention(model, "networks", variants, setting, more)
    measures = []
    for row in record["networks"]:
        beside = f"{row['variant']} beside plain {row['peer']}"
        memory_goal = row["memory_goal"]
        measures += [
            Measure(f"speed, {beside}", row["speed_ratio"], "times", row["speed_goal"]),
            Measure(f"memory, {beside}", row["memory_ratio"], "times", memory_goal, at_most=True),
        ]
        if not compiled:
            without = f"without depth attention, {row['variant']}"
            measures += [
                Measure(f"speed of the same {without}", row["bound_speed_ratio"], "times"),
                Measure(f"memory of the same {without}", row["bound_memory_ratio"], "times"),
            ]
    return Outcome(measures, details=record)


def stages(model: str, setting: Setting) -> Outcome:
    """Time depth attention alone in training, beside copying its maps and beside torch.compile."""
    variants = setting.pick(["fp32", "bf16"], tiny=["fp32"])
    record = _depth_attention(model, "stages", variants, setting)
    measures = []
    for row in record["stages"]:
        share, goal = 100 * row["of_moving_once"], row["goal"] and 100 * row["goal"]
        rate = row["bytes"] / row["seconds"] / 1e9
        measures.append(Measure(f"share of the copy bandwidth, {row['variant']}", share, "%", goal))
        measures.append(Measure(f"bytes that have to be moved, {row['variant']}", rate, "GB/s"))
        if (ratio := row["speed_ratio_to_compiled"]) is not None:
            title = f"speed beside torch.compile, {row['variant']}"
            measures.append(Measure(title, ratio, "times", 1.0))
    return Outcome(measures, details=record)


def _depth_attention(
    model: str, part: str, variants: list[str], setting: Setting, more: Sequence[str] = ()
) -> dict[str, Any]:
    """Run benchmarks/depth_attention.py; return the values for the record."""
    side, repeats = setting.pick((224, 12), tiny=(32, 2))
    arguments = ["--models", setting.pick(model, tiny="sda_resnet_narrow"), "--modes", "training"]
    arguments += ["--variants", *variants, "--device", setting.device, "--parts", part, *more]
    arguments += ["--resolution", str(side), "--repeats", str(repeats)]

    def run(batch: int) -> dict[str, Any]:
        path = setting.folder / "attention.json"
        return run_script("depth_attention.py", path, *arguments, "--batch-size", batch)

    record = with_smaller_batches(
        setting.pick(256, tiny=2), run
    )  # with 64 images in bf16, the device waits for the host
    kept = ("batch_size", "resolution", "repeats", part, "measured")
    return {key: record[key] for key in kept}


def evaluation(precision: str, setting: Setting) -> Outcome:
    """Time the whole ``eval`` beside a loop like timm's validate, on generated images of ImageNet's size."""
    if find_spec("timm") is None:
        raise CannotRunError("timm is not installed")
    images, side, rounds = setting.pick((16384, 224, 3), tiny=(8, 32, 1))
    batch, workers = setting.pick((256, min(16, cores())), tiny=(4, 0))
    arguments = ["--model", "resnet50", "--images", images, "--distinct", setting.pick(1024, tiny=8)]
    arguments += ["--resolution", side, "--batch-size", batch, "--workers", workers, "--rounds", rounds]
    arguments += ["--device", setting.device]
    arguments += ["--exact"] if precision == "fp32" else ["--amp", precision, "--channels-last"]
    arguments += setting.pick([], tiny=["--parts", "loaders", "networks"])
    record = run_script("evaluation.py", setting.folder / "evaluation.json", *arguments)
    measures = []
    for part, rows in record["rows"].items():
        own, peer = rows["sdabench"], rows["timm"]
        goal = record["goal"] if part == "whole commands" else None
        measures += [
            Measure(f"{part}: speed beside timm", own["clock"]["median"], "times", goal),
            Measure(f"{part}: sdabench", 1000 / own["clock_ms"], "images/s"),
            Measure(f"{part}: timm", 1000 / peer["clock_ms"], "images/s"),
        ]
    if record["agreement"] is not None:
        hits = record["agreement"]["hits"].values()
        same = all(own == peer for own, peer in hits)
        # In a short data type, rounding may decide between two classes.
        measures.append(
            Measure("the same images are correct", same, target=True if precision == "fp32" else None)
        )
    settings = {"images": images, "resolution": side, "batch_size": batch, "workers": workers}
    return Outcome(measures, details=settings | {"rows": record["rows"], "agreement": record["agreement"]})


def training_input(setting: Setting) -> Outcome:
    """Time the training input per core and by number of workers, beside the rate that the GPU takes."""
    import training_input as script

    from sdabench.data.imagenet import read_imagenet
    from sdabench.registry.recipe_parts import Augmentation

    images, side = setting.pick((400, 224), tiny=(8, 32))
    record = run_script(
        "training_input.py", setting.folder / "input.json", "--images", images, "--crop", side,
        "--rounds", setting.pick(2, tiny=1), "--batch-size", setting.pick(64, tiny=4),
    )  # fmt: skip
    own = record["rows"]["sdabench"]
    measures = [
        Measure("one core beside torchvision", own["cores"]["median"], "times", record["goal"]),
        Measure("one core", 1000 / own["cores_ms"], "images/s"),
    ]
    pictures = setting.folder / "pictures"
    total, batch = setting.pick((2048, 64), tiny=(8, 4))
    make_pictures(pictures, total, distinct=setting.pick(512, tiny=8))
    split, augmentation = read_imagenet(pictures), Augmentation(crop=side)
    taken = _rates_of_training(setting, side)  # starts CUDA: pictures are made by forked processes
    measures += [Measure(f"the GPU takes, {name}", rate, "images/s") for name, rate in taken.items()]
    available = [each for each in WORKERS if each <= cores()]
    delivered = {}
    for workers in setting.pick(available, tiny=[1]):
        options = Namespace(batch_size=batch, workers=workers, device=setting.device)
        cost = measure_cost(lambda o=options: script.run_sdabench(split, augmentation, o), total)
        delivered[workers] = 1000 / cost.clock
        measures.append(Measure(f"{workers} workers deliver to the device", delivered[workers], "images/s"))
    for name, rate in taken.items():
        enough = next((workers for workers, each in delivered.items() if each >= rate), None)
        words = f"workers that feed {name}" + ("" if enough else f": more than {max(delivered)}")
        measures.append(Measure(words, enough))
    return Outcome(measures, details={"script": record["rows"], "delivered": delivered, "taken": taken})


def _rates_of_training(setting: Setting, side: int) -> dict[str, float]:
    """Return the images per second of training steps on images in the memory of the device."""
    from sdabench.tools.bench.timing import Conditions, measure_speed

    names = setting.pick(TRAINED, tiny=("resnet_narrow",))

    def run(batch: int) -> dict[str, float]:
        conditions = Conditions(
            setting.device, batch, side, "bf16", channels_last=True, repeats=setting.pick(20, tiny=2)
        )
        return {each.model: each.images_per_second for each in measure_speed(names, ["training"], conditions)}

    return with_smaller_batches(setting.pick(128, tiny=2), run)
