"""Fetch weights for ``--weights`` from a real HTTP server: records, offline mode, suites, signals."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save, save_file
from torchvision.models import ResNet50_Weights

from sdabench import create_model
from sdabench.data.description import Preprocessing
from sdabench.data.source import DataSource
from sdabench.hashing import sha256_of_file
from sdabench.records.json_lines import read_lines
from sdabench.records.record import Record
from sdabench.training.job import evaluation_job
from sdabench.training.job_file import read_job_file, save_job
from sdabench.weights.fetch.weights_cache import weights_dir
from sdabench.weights.local import LocalWeights
from tests.helpers.processes import stop_process
from tests.helpers.program import assert_error, sdabench
from tests.helpers.serving import serving

FAST = ["--batch-size", 8, "--workers", 0, "--resolution", 32]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Write weights of a ResNet-50, once per module."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "resnet50.safetensors"
    save_file(create_model("resnet50").state_dict(), path)
    return path


@pytest.fixture
def server(tmp_path, monkeypatch, weights):
    monkeypatch.setenv("SDABENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SDABENCH_OFFLINE", raising=False)
    with serving() as server:
        server.files["resnet50.safetensors"] = weights.read_bytes()
        yield server


def evaluate(imagenet, output, source, *options):
    data = ["--data", f"imagenet={imagenet}", "--output", output]
    return sdabench("eval", "resnet50", *data, *FAST, "--weights", source, *options)


def run(imagenet, output, *options):
    data = ["--data", f"imagenet={imagenet}", "--output", output, "--eval-only", "--jobs", 1]
    return sdabench("run", "--suite", "classification", *data, *FAST, *options)


def cached_files():
    """List the files in the weights cache, without locks."""
    return [path for path in weights_dir().iterdir() if path.suffix != ".lock"]


def records(output):
    return list(read_lines(output / "records.jsonl", Record))


def test_url_weights_are_evaluated_online_and_offline(server, imagenet, weights, tmp_path):
    url = server.url("resnet50.safetensors", user="me:secret@")
    first = evaluate(imagenet, tmp_path / "out", url)
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""  # no progress bar without a terminal
    again = evaluate(imagenet, tmp_path / "out", server.url("resnet50.safetensors"), "--offline", "--json")
    assert again.returncode == 0, again.stderr
    for record in records(tmp_path / "out"):
        assert record.weights.source == server.url("resnet50.safetensors")
        assert record.weights.sha256 == sha256_of_file(weights)
    assert json.loads(again.stdout)["weights"]["source"] == server.url("resnet50.safetensors")
    assert server.downloads == 1


def test_fetch_failure_is_one_line_and_recorded(server, imagenet, tmp_path):
    for number, (behavior, options, status, words) in enumerate(
        [
            ("gone/x", [], 1, "HTTP 404 Not Found"),
            ("", ["--offline"], 1, "fetch it once without --offline"),
        ]
    ):
        output = tmp_path / str(number)
        result = evaluate(imagenet, output, server.url("resnet50.safetensors", behavior), *options)
        assert result.returncode == status
        [line] = result.stderr.splitlines()
        assert line.startswith("Error: ")
        assert words in line
        [record] = records(output)
        assert words in record.failure.message
    wrong = f"{server.address('resnet50.safetensors')}#sha256={'0' * 64}"
    assert evaluate(imagenet, tmp_path / "wrong", wrong).returncode == 4
    assert cached_files() == []
    missing = evaluate(imagenet, tmp_path / "no", tmp_path / "no.pth")
    assert (missing.returncode, missing.stderr) == (
        2,
        f"Error: no weights file at {tmp_path / 'no.pth'}; check the path\n",
    )
    without_digest = evaluate(imagenet, tmp_path / "bare", server.address("resnet50.safetensors"))
    assert without_digest.returncode == 2
    assert "#sha256=DIGEST" in without_digest.stderr


def test_torchvision_weights_show_published_accuracy(server, imagenet, weights, tmp_path, monkeypatch):
    """Serve a generated file at torchvision's URL."""
    digest = sha256_of_file(weights)
    name = f"resnet50-{digest[:8]}.safetensors"
    server.files[name] = weights.read_bytes()
    for member in (ResNet50_Weights.IMAGENET1K_V1, ResNet50_Weights.IMAGENET1K_V2):
        monkeypatch.setattr(member.value, "url", server.address(name))
    resolution = ["--resolution", 224]
    first = evaluate(imagenet, tmp_path / "out", "torchvision:ResNet50_Weights.IMAGENET1K_V1", *resolution)
    assert (first.returncode, first.stderr) == (0, "")
    published = "torchvision publishes 76.130 / 92.862 (top-1 / top-5) for ResNet50_Weights.IMAGENET1K_V1"
    assert f"{published}, which is not measured here.\n" in first.stdout
    [record] = records(tmp_path / "out")
    assert record.weights.source == "torchvision:ResNet50_Weights.IMAGENET1K_V1"
    assert record.weights.sha256 == digest

    second = evaluate(
        imagenet, tmp_path / "two", "torchvision:ResNet50_Weights.DEFAULT", *resolution, "--json"
    )
    [line] = second.stderr.splitlines()
    assert line.startswith(
        "ResNet50_Weights.IMAGENET1K_V2 was published at resize 232; measured here at resize 256"
    )
    assert "publishes 80.858 / 95.434 (top-1 / top-5) for ResNet50_Weights.IMAGENET1K_V2. " in line
    assert line.endswith("'sdabench eval --protocol source' uses the publisher's protocol.")
    own = evaluate(
        imagenet,
        tmp_path / "three",
        "torchvision:ResNet50_Weights.DEFAULT",
        *resolution,
        "--protocol",
        "source",
    )
    assert own.stderr == ""
    assert (
        "Protocol: bilinear resize to 232, center crop of 224, fp32; only the standard one is" in own.stdout
    )
    [record] = records(tmp_path / "three")
    assert record.protocol.preprocessing == Preprocessing(resize=232)
    assert json.loads(second.stdout)["weights"]["source"] == "torchvision:ResNet50_Weights.IMAGENET1K_V2"
    assert server.downloads == 1


def test_weights_of_another_network_are_refused(server, imagenet, weights, tmp_path):
    url = server.url("resnet50.safetensors")
    result = sdabench(
        "eval", "senet50", "--data", f"imagenet={imagenet}", "--output", tmp_path, "--weights", url
    )
    assert result.returncode == 4
    assert "does not fit 'senet50'" in result.stderr


def test_suite_fetches_named_weights_once(server, imagenet, weights, tmp_path):
    """Fetch a URL once, then use the cache offline; a folder with the same file gives the same spec."""
    output, url = tmp_path / "out", server.url("resnet50.safetensors", user="me:secret@")
    models = ["--models", "resnet50"]
    plan = run(imagenet, output, *models, "--weights", f"resnet50={url}", "--dry-run")
    assert plan.returncode == 0, plan.stderr
    assert server.requests == []
    result = run(imagenet, output, *models, "--weights", f"resnet50={url}")
    assert result.returncode == 0, result.stderr
    [record] = records(output)
    assert record.weights.source == server.url("resnet50.safetensors")
    again = run(imagenet, output, *models, "--weights", f"resnet50={url}", "--offline")
    assert "1 of 1 are completed." in again.stderr
    other_output = run(imagenet, tmp_path / "two", *models, "--weights", f"resnet50={url}", "--offline")
    assert other_output.returncode == 0, other_output.stderr
    from_folder = run(imagenet, output, *models, "--weights", weights.parent)
    assert "1 of 1 are completed." in from_folder.stderr  # same digest
    assert server.downloads == 1


def test_suite_weights_must_match_selected_networks(imagenet, weights, tmp_path):
    def usage_error(*options):
        result = run(imagenet, tmp_path / "out", *options)
        assert result.returncode == 2, result.stderr
        [line] = result.stderr.splitlines()
        return line

    both_models, one_model = ["--models", "resnet50", "--models", "senet50"], ["--models", "resnet50"]
    named = f"resnet50={weights}"
    assert "no weights for 'senet50'; add --weights senet50=SOURCE" in usage_error(
        *both_models, "--weights", named
    )
    assert "did you mean resnet50?" in usage_error(
        *one_model, "--weights", named.replace("resnet50=", "resnet05=")
    )
    assert "is not a folder; for the weights of one network use NAME=" in usage_error(
        *one_model, "--weights", weights
    )
    assert "takes at most one folder" in usage_error(
        *one_model, *["--weights", tmp_path, "--weights", weights.parent]
    )
    assert "no weights file at" in usage_error(*one_model, "--weights", f"resnet50={tmp_path}/no.pth")
    assert "#sha256=DIGEST" in usage_error(*one_model, "--weights", "resnet50=https://h.org/w.pth")


def test_named_weights_override_the_folder(imagenet, weights, tmp_path):
    torch.manual_seed(2)
    (tmp_path / "folder").mkdir()
    save_file(create_model("resnet50").state_dict(), tmp_path / "folder/resnet50.safetensors")
    save_file(create_model("senet50").state_dict(), tmp_path / "folder/senet50.safetensors")
    options = ["--models", "resnet50", "--models", "senet50", "--weights", tmp_path / "folder"]
    result = run(imagenet, tmp_path / "out", *options, "--weights", f"resnet50={weights}")
    assert result.returncode == 0, result.stderr
    sources = {record.model: record.weights.source for record in records(tmp_path / "out")}
    assert sources == {"resnet50": str(weights), "senet50": str(tmp_path / "folder/senet50.safetensors")}


def test_saved_job_keeps_weights_source_and_path(imagenet, weights, tmp_path):
    source = DataSource("imagenet", imagenet)
    for weights_source in ("torchvision:ResNet50_Weights.IMAGENET1K_V1", str(weights)):
        local = LocalWeights(weights, weights_source, "0" * 64)
        job = evaluation_job("resnet50", source, source.read("val"), local)
        loaded = read_job_file(save_job(job, tmp_path)).job()
        assert loaded.spec == job.spec
        assert loaded.weights == weights
        assert loaded.spec.weights.source == weights_source


def test_training_output_is_a_weights_source(imagenet, textures, weights, tmp_path):
    train = ["--data", f"synthetic={textures}", "--recipe", "smoke", "--resolution", 32, "--epochs", 1]
    trained = sdabench("train", "resnet50", *train, "--output", tmp_path / "trained")
    assert trained.returncode in (0, 3), trained.stderr
    [path] = (tmp_path / "trained/training").glob("resnet50-*/model.safetensors")
    for source in (tmp_path / "trained", f"resnet50={path.parent}"):
        output = tmp_path / re.sub(r"\W", "", str(source))[-30:]
        options = [
            "--data",
            f"synthetic={textures}",
            "--output",
            output,
            "--eval-only",
            "--models",
            "resnet50",
        ]
        result = sdabench(
            "run", "--suite", "classification", *options, "--weights", source, "--resolution", 32
        )
        assert result.returncode == 0, result.stderr
        [record] = records(output)
        assert record.weights.source == str(path)


def test_probe_accepts_a_url(server, imagenet):
    url = server.url("resnet50.safetensors")
    verify = ["data", "verify", f"imagenet={imagenet}", "--probe", "resnet50", "--resolution", 32]
    result = sdabench(*verify, "--weights", url)
    assert "no weights" not in result.stderr
    assert server.downloads == 1
    [path] = cached_files()
    path.unlink()
    offline = sdabench(*verify, "--weights", url, "--offline")
    assert offline.returncode == 1
    assert "fetch it once without --offline" in offline.stderr


def test_backbone_weights_are_fetched(server, tmp_path):
    server.files["two.safetensors"] = save(create_model("resnet50", num_classes=2).state_dict())
    shapes = tmp_path / "shapes"
    synth = sdabench(
        "data", "synth", "--task", "detection", "--out", shapes, "--classes", 2, "--train", 4, "--val", 2,
        "--size", 128,
    )  # fmt: skip
    assert synth.returncode == 0, synth.stderr
    options = ["--data", f"synthetic={shapes}", "--epochs", 1, "--batch-size", 2, "--resolution", 64]
    url = server.url("two.safetensors")
    result = sdabench(
        "train", "faster_rcnn_resnet50", *options, "--output", tmp_path / "out", "--backbone-weights", url
    )
    assert result.returncode in (0, 3), result.stderr
    [record] = records(tmp_path / "out")
    assert (record.backbone.source, record.backbone.sha256) == (url, url.rpartition("=")[2])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_download_is_fetched_again_on_rerun(server, imagenet, tmp_path, number):
    url = server.url("resnet50.safetensors", "slow/")
    arguments = ["eval", "resnet50", "--data", f"imagenet={imagenet}", "--output", tmp_path / "out", *FAST]
    command = [sys.executable, "-m", "sdabench", *map(str, arguments), "--weights", url]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ,
    )  # fmt: skip
    assert server.half_sent.wait(60)
    stop_process(process, number)
    assert cached_files() == []
    assert not (tmp_path / "out").exists()
    server.may_continue.set()
    result = evaluate(imagenet, tmp_path / "out", url)
    assert result.returncode == 0, result.stderr
    assert server.downloads == 2


def test_dry_run_of_an_evaluation_downloads_and_writes_nothing(server, imagenet, weights, tmp_path):
    url, output = server.url("resnet50.safetensors"), tmp_path / "out"
    plan = evaluate(imagenet, output, url, "--dry-run")
    assert (plan.returncode, plan.stderr) == (0, "")
    words = " ".join(plan.stdout.split())
    assert "resnet50 0 to do" in words
    assert f"{url} (sha256 {sha256_of_file(weights)[:12]})" in words
    assert "6 images of 3 ImageNet classes" in words
    assert "bilinear resize to 37, center crop of 32, fp32; batch size 8." in words
    assert f"Device cpu, 1 at a time; output in {output}." in words
    assert server.requests == []
    assert not output.exists()
    missing = evaluate(imagenet, output, tmp_path / "no.pth", "--dry-run")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert evaluate(imagenet, output, url).returncode == 0
    again = json.loads(evaluate(imagenet, output, url, "--dry-run", "--json").stdout)
    [job], [part] = again["jobs"], again["parts"]
    assert job["done"]
    assert job["seconds"] > 0, "eval measures again"
    assert job["weights"].items() >= {"source": url, "sha256": sha256_of_file(weights)}.items()
    assert part["protocol"]["preprocessing"]["crop"] == 32
    assert part["dataset"]["samples"] == 6
    assert len(records(output)) == 1


def test_pipe_is_not_waited_for(imagenet, tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    result = evaluate(imagenet, tmp_path / "run", tmp_path / "pipe.pth")
    assert_error(result, 2, "pipe.pth is a device or a pipe; name a weights file")
