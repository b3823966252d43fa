"""Run ``sdabench data verify`` as a user does: output and exit codes."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file

from sdabench import create_model
from sdabench.data.description import Preprocessing
from sdabench.data.imagenet import class_indices, read_imagenet
from sdabench.data.images import Batch, EvaluationImages
from sdabench.data.synthetic import write_dataset
from sdabench.data.synthetic.classification import ClassificationPlan
from sdabench.data.synthetic.detection import DetectionPlan
from sdabench.hashing import sha256_of_file
from tests.helpers.datasets import make_imagenet
from tests.helpers.processes import stop_process, wait_for
from tests.helpers.program import sdabench


def verify(source, *options):
    return sdabench("data", "verify", source, *options)


def normalize_spaces(text):
    return " ".join(text.split())


def assert_error(result, code, *expected):
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    [line] = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    for text in expected:
        assert text in line


def test_help_has_examples_and_exit_codes():
    result = verify("-h")
    assert result.returncode == 0
    assert "Examples:" in result.stdout
    assert "Exit codes:\n  0   sound" in result.stdout


def test_sound_subset_passes_with_notes(imagenet):
    result = verify(f"imagenet={imagenet}")
    assert (result.returncode, result.stderr) == (0, "")
    page = normalize_spaces(result.stdout)
    for expected in (
        f"imagenet val {imagenet}/val",
        "images 6, all decoded",
        "classes 3 of 1,000, 2 images each",
        "missing classes n01443537, n01484850, n01491361 and 994 more",
        "modes RGB 6",
        "official no: an accuracy cannot be compared with the paper's",
        "Note: 50,000 of 50,000 official images are missing",
        "n01440764/photo_0.JPEG is not an official name",
        "and 3 more; --json lists all",
    ):
        assert expected in page


def test_incomplete_dataset_with_complete_option_exits_4(imagenet):
    result = verify(f"imagenet={imagenet}", "--complete")
    assert_error(result, 4, "val: 50,000 of 50,000 official images are missing", "first of 3 errors")
    assert "classes 3 of 1,000" in normalize_spaces(result.stdout)


def test_fingerprint_matches_the_record(imagenet):
    source = f"imagenet={imagenet}"
    wrong = verify(source, "--fingerprint", "0" * 64, "--json")
    split = read_imagenet(imagenet)
    dataset = split.describe([sha256_of_file(split.root / item.path) for item in split.items])
    assert_error(wrong, 4, "the fingerprint is not the expected one", dataset.fingerprint_sha256)
    assert json.loads(wrong.stdout)["splits"][0]["dataset"] == dataset.model_dump(mode="json")
    assert verify(source, "--fingerprint", dataset.fingerprint_sha256.upper()).returncode == 0


def add_broken_files(imagenet, broken):
    folder = imagenet / "val/n01440764"
    for number in range(broken):
        (folder / f"broken_{number:02d}.JPEG").write_text(f"no image {number}")


def test_first_twenty_broken_files_are_listed_and_all_in_json(imagenet):
    add_broken_files(imagenet, 23)
    result = verify(f"imagenet={imagenet}", "--workers", 3)
    assert_error(result, 4, "val: 23 broken files: restore")
    assert result.stderr.count("\n") == 1
    assert "images 29, 23 of them broken" in normalize_spaces(result.stdout)
    assert result.stdout.count("is not an image\n") == 20
    assert "n01440764/broken_19.JPEG is not an image\n" in result.stdout
    assert "  and 3 more; --json lists all\n" in result.stdout
    result = verify(f"imagenet={imagenet}", "--json")
    assert_error(result, 4, "23 broken files")
    data = json.loads(result.stdout)
    assert data["sound"] is False
    assert data["probe"] is None
    [broken] = [issue for issue in data["splits"][0]["remarks"] if issue["kind"] == "broken"]
    assert broken["about"][22] == {"path": "n01440764/broken_22.JPEG", "what": "is not an image"}


def test_leakage_between_splits_is_a_warning(imagenet):
    (imagenet / "train").mkdir()
    (imagenet / "train/n01440764").symlink_to(imagenet / "val/n01440764")
    result = verify(f"imagenet={imagenet}")
    assert (result.returncode, result.stderr) == (0, "")
    assert "imagenet train" in result.stdout
    assert "Warning: 2 validation images are also training images (leakage)" in result.stdout
    data = json.loads(verify(f"imagenet={imagenet}", "--json").stdout)
    assert [split["dataset"]["split"] for split in data["splits"]] == ["train", "val"]
    assert (data["sound"], data["remarks"][0]["kind"]) == (True, "leakage")


def test_coco_is_verified_against_its_annotations(coco):
    result = verify(f"coco={coco}")
    assert (result.returncode, result.stderr) == (0, "")
    page = normalize_spaces(result.stdout)
    assert "annotations 5, 2 of them crowds; 1 image without annotations" in page
    assert "categories 2 of 3 have annotations" in page
    assert "an AP cannot be compared" in page
    Image.new("RGB", (61, 50)).save(coco / "val2017/000000000040.jpg")
    result = verify(f"coco={coco}")
    assert_error(result, 4, "1 broken file")
    assert "000000000040.jpg has 61x50 pixels, but its annotations say 60x50" in result.stdout


@pytest.mark.parametrize(
    ("plan", "part"),
    [(ClassificationPlan(2, 3, 2, 32), "val"), (DetectionPlan(2, 3, 2, 128), "val2017")],
)
def test_changed_generated_dataset_exits_4(tmp_path, plan, part):
    folder = tmp_path / "made"
    write_dataset(folder, plan)
    image = sorted((folder / part).rglob("*.*"))[-1]
    data = bytearray(image.read_bytes())
    data[-20] ^= 0x0F  # still decodes
    image.write_bytes(data)
    result = verify(f"synthetic={folder}")
    assert_error(result, 4, "val: the images are not those that were generated")
    assert "data are generated, not official" in result.stdout
    assert "Error" not in result.stdout.partition("synthetic val")[0]  # the training split is unchanged


def test_usage_errors(imagenet, coco, textures):
    source = f"imagenet={imagenet}"
    assert_error(verify("imagenet"), 2, "is not imagenet=PATH, folder=PATH")
    assert_error(verify(f"imagenet={imagenet}/nowhere"), 2, "no dataset folder at")
    assert_error(verify(source, "--split", "train"), 2, "no dataset folder at")
    assert_error(verify(source, "--fingerprint", "abc"), 2, "--fingerprint abc is not a sha256")
    assert_error(verify(f"synthetic={textures}", "--fingerprint", "0" * 64), 2, "applies to one split")
    assert_error(verify(source, "--probe", "resnet50"), 2, "--probe MODEL and --weights FILE need each other")
    assert_error(verify(source, "--weights", "x.pth"), 2, "--probe MODEL and --weights FILE need each other")
    probe = ("--weights", "x.pth", "--probe")
    assert_error(verify(source, *probe, "resnet51"), 2, "resnet50")
    assert_error(verify(source, *probe, "faster_rcnn_resnet50"), 2, "for classification")
    assert_error(verify(f"coco={coco}", *probe, "resnet50"), 2, "for classification")
    assert_error(verify(f"imagenet={imagenet.parent}/coco"), 4, "is not one of ImageNet's 1000 wnids")


def test_empty_folder_is_one_line(tmp_path):
    (tmp_path / "val").mkdir()
    result = verify(f"imagenet={tmp_path}")
    assert_error(result, 4, f"{tmp_path}/val has no images")
    assert result.stdout == ""


def process_ids(group):
    """Return the process ids of a process group."""
    listing = subprocess.run(["ps", "-A", "-o", "pgid=,pid="], capture_output=True, text=True, check=True)
    pairs = [line.split() for line in listing.stdout.splitlines()]
    return [int(pid) for pgid, pid in pairs if int(pgid) == group]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_all_processes(tmp_path, number):
    folder = tmp_path / "val/n01440764"
    folder.mkdir(parents=True)
    large = folder / "0.JPEG"
    Image.effect_noise((1000, 1000), 60).convert("RGB").save(large)
    for copy in range(1, 2000):  # minutes of work
        os.link(large, folder / f"{copy}.JPEG")
    process = subprocess.Popen(
        [sys.executable, "-m", "sdabench", "data", "verify", f"imagenet={tmp_path}", "--workers", "2"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    wait_for(lambda: len(process_ids(process.pid)) >= 3)
    time.sleep(1)
    started = time.monotonic()
    stop_process(process, number)
    assert time.monotonic() - started < 30
    assert process_ids(process.pid) == []


COLORS = ("red", "lime", "blue", "yellow", "magenta", "cyan", "white", "grey", "orange", "brown")


@pytest.fixture(scope="module")
def colors(tmp_path_factory):
    """Make ten ImageNet classes of one color each, and weights of a ResNet-50 that classifies them.

    The backbone is random. The classifier is fitted to its features by least squares, without iterations.
    """
    root = tmp_path_factory.mktemp("colours")
    indices = dict(list(class_indices().items())[100:110])
    for wnid, color in zip(indices, COLORS, strict=True):
        folder = root / "val" / wnid
        folder.mkdir(parents=True)
        for number in range(5):
            image = Image.new("RGB", (64, 64), color)
            ImageDraw.Draw(image).ellipse((8 * number, 10, 8 * number + 20, 30), fill="black")
            image.save(folder / f"{number}.JPEG")
    torch.manual_seed(0)
    network = create_model("resnet50").eval()
    split = read_imagenet(root)
    images = EvaluationImages(split, Preprocessing.at(32))
    batch = Batch.of([images[index] for index in range(len(split.items))], [])
    inputs = batch.to(torch.device("cpu"), torch.contiguous_format).images
    with torch.inference_mode():
        features = network.forward_head(network.forward_features(inputs), pre_logits=True)
    labels = torch.tensor([item.label for item in split.items])
    targets = torch.nn.functional.one_hot(labels, 1000).double()
    weight = torch.linalg.lstsq(features.double(), targets, driver="gelsd").solution.T
    state = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    state["fc.weight"], state["fc.bias"] = weight.float().contiguous(), torch.zeros(1000)
    return root, state


def run_probe(colors, tmp_path, change=None, *options):
    root, state = colors
    state = dict(state)
    if change:
        state["fc.weight"] = change(state["fc.weight"]).contiguous()
    save_file(state, tmp_path / "weights.safetensors")
    return verify(
        f"imagenet={root}", "--probe", "resnet50", "--weights", tmp_path / "weights.safetensors",
        "--resolution", 32, "--device", "cpu", *options,
    )  # fmt: skip


def test_probe_confirms_correct_label_order(colors, tmp_path):
    result = run_probe(colors, tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert "Label order: the labels are in the order of the weights: 100.0% of 50 images" in result.stdout
    assert "In 10 of 10 classes the most frequent prediction is the label." in result.stdout


def test_probe_finds_labels_shifted_by_one(colors, tmp_path):
    result = run_probe(colors, tmp_path, lambda weight: weight.roll(1, 0))
    assert_error(
        result,
        4,
        "the labels seem shifted by -1: class folder",
        "(index 100) is predicted as 101 (5 of 5 images)",
    )
    assert "images 50, all decoded" in normalize_spaces(result.stdout)


def test_probe_reports_permuted_labels_in_json(colors, tmp_path):
    def permute_classes(weight):
        weight = weight.clone()
        weight[100:110] = weight[[103, 100, 107, 101, 109, 102, 108, 104, 105, 106]]
        return weight

    result = run_probe(colors, tmp_path, permute_classes, "--json")
    assert_error(result, 4, "the labels are in another order: class folder")
    data = json.loads(result.stdout)
    assert data["sound"] is False
    assert (data["probe"]["order"], data["probe"]["shift"]) == ("other", None)
    predicted = [one["predicted"] for one in data["probe"]["taken_for"]]
    assert predicted == [101, 103, 105, 100, 107, 108, 109, 102, 106, 104]


def test_probe_with_random_weights_exits_5(colors, tmp_path):
    result = run_probe(
        colors, tmp_path, lambda weight: torch.randn(weight.shape, generator=torch.Generator())
    )
    assert_error(result, 5, "the predictions do not depend on the classes")
    assert "images 50, all decoded" in normalize_spaces(result.stdout)


def test_infinite_outputs_do_not_hide_the_report(colors, tmp_path):
    result = run_probe(colors, tmp_path, lambda weight: weight.sign() * 3e38)
    assert_error(result, 1, "is not finite")
    assert "images 50, all decoded" in normalize_spaces(result.stdout)


def test_probe_skips_broken_files(tmp_path):
    write_dataset(tmp_path / "made", ClassificationPlan(2, 1, 4, 32))
    root = make_imagenet(tmp_path / "imagenet", images=3)
    add_broken_files(root, 1)
    save_file(create_model("resnet50").state_dict(), tmp_path / "weights.safetensors")
    options = (
        "--probe",
        "resnet50",
        "--weights",
        tmp_path / "weights.safetensors",
        "--resolution",
        32,
        "--json",
    )
    result = verify(f"imagenet={root}", *options)
    assert_error(result, 4, "1 broken file")
    assert json.loads(result.stdout)["probe"]["images"] == 9
    # The generated dataset has 2 classes.
    assert_error(verify(f"synthetic={tmp_path}/made", *options), 4, "does not fit 'resnet50'")
