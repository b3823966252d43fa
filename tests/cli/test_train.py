"""Train a network or a suite from the command line: results, interruptions, resuming."""

import json
import shutil
import signal
import subprocess
import sys

import pytest
from filelock import FileLock

from sdabench.cli.work import ProtocolOptions, TrainingOptions
from sdabench.data.source import DataSource
from sdabench.registry.recipes import load_recipe
from tests.helpers.processes import stop_process, wait_for
from tests.helpers.program import sdabench
from tests.helpers.records import json_records
from tests.helpers.training import RECIPE_FILE


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "quick.yaml"
    path.write_text(RECIPE_FILE)
    return path


def train(textures, recipe, output, *options):
    return sdabench(
        "train",
        "resnet50",
        "--data",
        f"synthetic={textures}",
        "--recipe",
        recipe,
        "--output",
        output,
        *options,
    )


def run(textures, recipe, output, *options):
    return sdabench(
        "run", "--suite", "classification", "--data", f"synthetic={textures}", "--recipe", recipe,
        "--output", output, *options,
    )  # fmt: skip


def test_train_then_eval_reproduces_metrics(textures, recipe, tmp_path):
    output = tmp_path / "out"
    result = train(textures, recipe, output)
    assert result.returncode == 0, result.stderr
    assert "in 2 epochs on 10 generated images of 2 classes; the network fits them" in result.stdout
    [record] = json_records(output)
    assert record["recipe"]["name"] == "quick"
    assert record["recipe"]["label_smoothing"] == 0.0

    again = sdabench("eval", "resnet50", "--weights", output, "--output", tmp_path / "eval", "--json")
    assert again.returncode == 0, again.stderr
    evaluated = json.loads(again.stdout)
    assert evaluated["metrics"] == record["metrics"]
    assert evaluated["weights"]["sha256"] == record["weights"]["sha256"]
    assert evaluated["recipe"] == record["recipe"]
    assert evaluated["protocol"]["preprocessing"]["crop"] == 32


def test_suite_trains_resumes_and_deletes_checkpoints(textures, recipe, tmp_path):
    output = tmp_path / "out"
    options = ["--models", "resnet50"]
    first = run(textures, recipe, output, *options)
    assert first.returncode == 0, first.stderr
    assert "fits" in first.stdout
    assert "generated images are not compared with printed numbers" in " ".join(first.stdout.split())
    assert "75.20" not in first.stdout
    [folder] = (output / "training").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "metrics.jsonl", "run.json"]

    second = run(textures, recipe, output, *options, "--seeds", 2, "--keep-checkpoints", "--json")
    assert second.returncode == 0, second.stderr
    assert "1 of 2 are completed." in second.stderr
    assert "resnet50 seed 1" in second.stderr
    assert [record["seed"] for record in json.loads(second.stdout)] == [0, 1]
    assert len(list(output.rglob("model.safetensors"))) == 1

    third = run(textures, recipe, output, *options, "--seeds", 2)
    values = [record["metrics"]["top1_pct"] for record in json_records(output)]
    deviation = abs(values[0] - values[1]) / 2**0.5
    assert "± std" in third.stdout
    assert f"{sum(values) / 2:.2f}" in third.stdout
    assert f"{deviation:.2f}" in third.stdout
    assert len(json_records(output)) == 2

    other = run(textures, recipe, output, *options, "--epochs", 1)
    assert "already" not in other.stderr
    assert len(json_records(output)) == 3


def test_network_that_does_not_fit_exits_3(textures, recipe, tmp_path):
    recipe.write_text(RECIPE_FILE.replace("fit_below: 100.0", "fit_below: 0.001"))
    result = run(textures, recipe, tmp_path / "out", "--models", "resnet50")
    assert result.returncode == 3
    assert "does not fit" in result.stdout
    single = train(textures, recipe, tmp_path / "alone")
    assert single.returncode == 3
    assert "the network does not fit them" in single.stdout


def test_diverged_network_is_recorded_with_reason(textures, recipe, tmp_path):
    recipe.write_text(RECIPE_FILE.replace("0.001", "1.0e+18").replace("epochs: 2", "epochs: 20"))
    result = run(textures, recipe, tmp_path / "out", "--models", "resnet50")
    assert result.returncode == 5
    [record] = json_records(tmp_path / "out")
    assert record["failure"]["kind"] == "DivergedError"
    assert "learning rate 1e+18" in " ".join(result.stdout.split())


def test_dry_run_prints_the_plan_only(textures, recipe, tmp_path):
    output = tmp_path / "out"
    options = ["--models", "resnet50", "--models", "sda_resnet86", "--dry-run", "--jobs", 1]
    result = run(textures, recipe, output, *options)
    assert result.returncode == 0, result.stderr
    assert "optimizer.learning_rate 0.001" in " ".join(result.stdout.split())
    assert not output.exists()
    plan = json.loads(run(textures, recipe, output, *options, "--json").stdout)
    small, large = plan["jobs"]
    assert plan["seconds"] == pytest.approx(small["seconds"] + large["seconds"])
    # SGD: the weights, plus three checkpoints (two kept, one being written) of weights and momentum;
    # 27.2 M parameters of four bytes.
    assert plan["disk_bytes"] == large["disk_bytes"] == pytest.approx(7 * 4 * 27.22e6, rel=0.01)
    assert plan["parts"][0]["recipe"]["epochs"] == 2
    assert plan["at_once"] == 1


def test_dry_run_of_a_training_prints_its_steps_and_writes_nothing(textures, recipe, tmp_path):
    output = tmp_path / "out"
    command = ["train", "resnet50", "--data", f"synthetic={textures}", "--recipe", recipe, "--output", output]
    result = sdabench(*command, "--epochs", 3, "--batch-size", 4, "--accumulate", 2, "--dry-run", "--json")
    assert result.returncode == 0, result.stderr
    plan = json.loads(result.stdout)
    [part], [job] = plan["parts"], plan["jobs"]
    # Ten images: two batches of four, and one of two, which is too small for two micro-batches of two.
    assert (part["steps_per_epoch"], part["steps"], part["micro_batches"]) == (2, 6, 2)
    assert (part["recipe"]["epochs"], part["recipe"]["batch_size"]) == (3, 4)
    assert (job["model"], job["done"], job["step"], job["trained"]) == ("resnet50", False, 0, False)
    assert plan["output"] == str(output)
    assert not output.exists()


@pytest.mark.parametrize(("door", "number"), [("train", signal.SIGUSR2), ("run", signal.SIGINT)])
def test_signal_saves_checkpoint_and_rerun_resumes(textures, recipe, tmp_path, door, number):
    recipe.write_text(RECIPE_FILE.replace("epochs: 2", "epochs: 30"))
    output = tmp_path / "out"
    subcommand = (
        ["train", "resnet50"]
        if door == "train"
        else ["run", "--suite", "classification", "--models", "resnet50"]
    )
    options = ["--data", f"synthetic={textures}", "--recipe", recipe, "--output", output, "--workers", 1]
    command = [sys.executable, "-m", "sdabench", *map(str, [*subcommand, *options])]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(lambda: list(output.rglob("metrics.jsonl")))
    assert stop_process(process, number).endswith("rerun the same command to resume.\n")
    assert len(list(output.rglob("checkpoints/step-*.pt"))) == 1
    result = sdabench(*subcommand, *options)
    assert result.returncode == 0, result.stderr
    assert "resuming after epoch" in result.stderr
    assert json_records(output)[-1]["training"]["resumed"] == 1
    assert json_records(output)[-1]["training"]["steps"] == 60


def test_killed_suite_saves_checkpoint_and_resumes(textures, recipe, tmp_path):
    recipe.write_text(RECIPE_FILE.replace("epochs: 2", "epochs: 30"))
    output = tmp_path / "out"
    options = ["--suite", "classification", "--models", "resnet50", "--data", f"synthetic={textures}"]
    options += ["--recipe", recipe, "--output", output]
    process = subprocess.Popen([sys.executable, "-m", "sdabench", "run", *map(str, options)])
    wait_for(lambda: list(output.rglob("metrics.jsonl")))
    process.kill()
    process.wait()
    wait_for(lambda: list(output.rglob("checkpoints/step-*.json")))
    [lock] = (output / "training").glob("*/.lock")
    with FileLock(lock, timeout=60):
        pass  # the process of the network has exited
    result = sdabench("run", *options)
    assert result.returncode == 0, result.stderr
    assert json_records(output)[-1]["training"]["resumed"] == 1


def test_full_disk_stops_the_suite(textures, recipe, tmp_path):
    """Limit files to one megabyte, which is less than the weights."""
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)); "
        "from sdabench.cli import main; main()"
    )
    command = [
        "run", "--suite", "classification", "--data", f"synthetic={textures}", "--recipe", recipe,
        "--output", tmp_path / "out", "--models", "resnet50", "--models", "senet50", "--jobs", 1,
    ]  # fmt: skip
    result = subprocess.run(
        [sys.executable, "-c", limited, *map(str, command)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "cannot write" in result.stderr
    assert "model.safetensors: File too large; name another --output" in result.stderr
    assert "senet50" not in result.stderr
    assert not list((tmp_path / "out").rglob("*.part"))


def test_data_synth_writes_images_of_both_tasks(tmp_path):
    out = tmp_path / "made"
    result = sdabench("data", "synth", "--out", out, "--classes", 3, "--train", 2, "--val", 1, "--size", 32)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"9 images in {out}; use them with --data synthetic={out}\n"
    assert len(list(out.rglob("*.JPEG"))) == 9
    shapes = sdabench(
        "data", "synth", "--out", tmp_path / "d", "--task", "detection", "--train", 2, "--val", 1
    )
    assert shapes.returncode == 0, shapes.stderr
    assert len(list((tmp_path / "d").rglob("*.jpg"))) == 3


def test_train_options_are_applied_and_recorded(imagenet, tmp_path):
    shutil.copytree(imagenet / "val", imagenet / "train")
    recipe = tmp_path / "gentle.yaml"
    recipe.write_text(
        "extends: paper\ntitle: gently\noptimizer: {learning_rate: 0.001}\nschedule: {milestones: [60]}\n"
    )
    options = ["--recipe", recipe, "--epochs", 2, "--batch-size", 4, "--resolution", 64, "--amp", "bf16"]
    options += ["--channels-last", "--accumulate", 2, "--workers", 1, "--output", tmp_path / "o", "--json"]
    result = sdabench("train", "resnet50", "--data", f"imagenet={imagenet}", *options)
    assert result.returncode == 0, result.stderr
    record = json.loads(result.stdout)
    used = record["recipe"]
    assert (used["name"], used["reproduction"], used["epochs"]) == ("gentle", False, 2)
    assert (used["precision"], used["channels_last"], used["accumulate"]) == ("bf16", True, 2)
    assert record["protocol"]["precision"] == "fp32"
    assert record["training"]["steps"] == 2  # the last two of six images are too few for two micro-batches
    assert record["train_dataset"]["samples"] == record["dataset"]["samples"] == 6
    assert (record["dataset"]["name"], record["dataset"]["classes"]) == ("imagenet", 3)


@pytest.mark.parametrize(("data", "recipe"), [("imagenet=x", "paper"), ("synthetic", "smoke")])
def test_default_recipe_depends_on_dataset(data, recipe):
    training = TrainingOptions(None, None, None, None, None, None, False, (), False)
    protocol = ProtocolOptions(None, None, None, None, 0)
    chosen = training.recipe(DataSource.parse(data), "classification", protocol)
    assert chosen == load_recipe(recipe)


def test_missing_training_split_is_a_usage_error(imagenet):
    result = sdabench("train", "resnet50", "--data", f"imagenet={imagenet}")
    assert result.returncode == 2
    assert f"no dataset folder at {imagenet}/train" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["faster_rcnn_resnet50", "--weights", "w.pth"], "use --backbone-weights"),
        (["resnet50", "--wrapper", "ema"], "add --weights SOURCE"),
        (["resnet50", "--backbone-weights", "w.pth"], "--backbone-weights is for detectors"),
    ],
)  # fmt: skip
def test_initial_weights_of_the_wrong_kind_are_a_usage_error(arguments, words):
    result = sdabench("train", *arguments)
    assert result.returncode == 2
    assert words in result.stderr


def test_tf32_is_refused_on_a_cpu(textures):
    result = sdabench("train", "resnet50", "--data", f"synthetic={textures}", "--device", "cpu", "--tf32")
    assert result.returncode == 2
    assert "--tf32 is for CUDA devices, and this runs on the CPU; leave it out" in result.stderr
