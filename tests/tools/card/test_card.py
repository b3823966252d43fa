"""Model cards, read by Hugging Face's own parser."""

import pytest
import yaml
from click.testing import CliRunner

from sdabench.cli import cli
from sdabench.data.classes import ClassList
from sdabench.records.json_lines import append_lines
from sdabench.records.spec import Weights
from sdabench.tools.card.card import Card, make_card
from sdabench.tools.card.view import front_matter, to_card
from tests.helpers.records import DATASET, record, trained

HOSTILE = "---\n# x: [y](http://z) <script>`|"
FULL = DATASET.model_copy(update={"fingerprint_sha256": "f" * 64})


@pytest.fixture
def hub():
    return pytest.importorskip("huggingface_hub")


@pytest.fixture
def run(tmp_path):
    for seed, top1 in enumerate((78.6, 78.9, 78.75)):
        one = trained("sda_resnet86", top1, seed, dataset=FULL)
        append_lines(tmp_path / "run/records.jsonl", one.as_json())
    return str(tmp_path / "run")


def parsed(hub, path):
    """Load a card, and check that its metadata is what YAML alone reads."""
    card = hub.ModelCard.load(path)
    assert hub.metadata_load(path) == yaml.safe_load(card.content.split("\n---\n")[0])
    return card


def test_run_of_another_definition_gets_no_size(tmp_path):
    one = trained("sda_resnet86", 78.6, 0, network_sha256="0" * 64)
    append_lines(tmp_path / "run/records.jsonl", one.as_json())
    text = to_card(make_card(str(tmp_path / "run")))
    assert "definition has changed since then" in text
    assert "multiply-adds" not in text
    assert "78.60" in text


def test_results_are_read_by_hugging_face(hub, run, tmp_path):
    path = tmp_path / "README.md"
    result = CliRunner().invoke(cli, ["card", run, "-o", str(path)])
    assert result.exit_code == 0, result.output
    card = parsed(hub, path)
    [found] = card.data.eval_results
    assert found == hub.EvalResult(
        task_type="image-classification",
        task_name="Image classification",
        dataset_type="imagenet-1k",
        dataset_name="the ImageNet validation set (50,000 images)",
        dataset_split="validation",
        metric_type="accuracy",
        metric_name="top-1 accuracy, mean of 3 trainings",
        metric_value=0.7875,
        verified=False,
    )
    assert (card.data.pipeline_tag, card.data.datasets) == ("image-classification", ["imagenet-1k"])
    for text in ("78.76 |      78.75", "within", "120 epochs", "seeds 0, 1, 2", "@article{guo2024selective"):
        assert text in card.text
    assert "names no license" in result.stderr
    assert "license" not in card.text


def test_a_network_without_a_run_has_no_results(hub, tmp_path):
    path = tmp_path / "README.md"
    path.write_text(to_card(make_card("mask_rcnn_sda_resnet86")))
    card = parsed(hub, path)
    assert card.data.eval_results is None
    assert card.data.pipeline_tag == "image-segmentation"
    assert "Printed, not measured here" in card.text
    assert "No weights and no measured accuracies belong to it." in card.text


def test_detectors_have_a_result_for_each_task(hub, tmp_path):
    for task, ap in (("detection", 40.0), ("segmentation", 36.5)):
        one = record(model="mask_rcnn_resnet50", task=task, metrics={"ap_pct": ap, "ap_s_pct": 20.0})
        append_lines(tmp_path / "records.jsonl", one.as_json())
    path = tmp_path / "README.md"
    path.write_text(to_card(make_card(str(tmp_path))))
    found = parsed(hub, path).data.eval_results
    assert [(each.task_type, each.metric_type, each.metric_name, each.metric_value) for each in found] == [
        ("object-detection", "mAP", "box AP", 0.4),
        ("object-detection", "box AP small", "box AP small", 0.2),
        ("image-segmentation", "mAP", "mask AP", 0.365),
        ("image-segmentation", "mask AP small", "mask AP small", 0.2),
    ]


def test_random_weights_have_no_results(tmp_path):
    append_lines(tmp_path / "records.jsonl", record(weights=Weights(source="random")).as_json())
    card = make_card(str(tmp_path))
    assert "model-index" not in front_matter(card)
    assert "The weights are random: these numbers say nothing about the network." in to_card(card)


def test_names_stay_text(hub, tmp_path):
    """Names of networks, folders, recipes and classes in YAML and Markdown."""
    folder = tmp_path / "a `b` [c](d)"
    own = FULL.model_copy(update={"name": "imagenet", "root": HOSTILE, "complete": False, "classes": 2})
    one = trained("resnet50", 75.0, dataset=own, train_dataset=own)
    recipe = {**one.recipe, "name": HOSTILE, "augmentation": {HOSTILE: HOSTILE}}
    one = one.model_copy(update={"model": HOSTILE, "recipe": recipe, "environment": {"device": HOSTILE}})
    append_lines(folder / "records.jsonl", one.as_json())
    card = make_card(str(folder))
    text = to_card(Card(card.name, card.runs, card.page, (HOSTILE, "dog\u202e")))
    path = tmp_path / "README.md"
    path.write_text(text)
    read = parsed(hub, path)
    assert read.data.model_name == HOSTILE
    assert len(read.data.eval_results) == 1
    for markup in ("<script>", "[y](", "\u202e", "\n# x"):
        assert markup not in text.split("\n---\n", 1)[1]
    assert HOSTILE not in read.data.eval_results[0].dataset_name


def test_classes_of_the_weights_are_named(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    import numpy as np

    from sdabench.weights.classes import metadata_of

    folder = tmp_path / "training" / "resnet50-1"
    folder.mkdir(parents=True)
    classes = metadata_of(ClassList(names=("cat", "*dog*")))
    safetensors.save_file({"x": np.zeros(1, np.float32)}, folder / "model.safetensors", classes)
    append_lines(tmp_path / "records.jsonl", trained("resnet50", 75.0).as_json())
    card = to_card(make_card(str(tmp_path)))
    assert r"(2): cat, \*dog\*" in card
    assert 'create_model("resnet50", num_classes=2)' in card


@pytest.mark.parametrize(
    ("occurring", "outputs", "argument"),
    [(10, None, ", num_classes=10"), (10, 1000, ""), (3, 7, ", num_classes=7")],
)
def test_the_classifier_has_the_outputs_of_the_weights(tmp_path, occurring, outputs, argument):
    dataset = DATASET.model_copy(update={"classes": occurring, "num_classes": outputs})
    append_lines(tmp_path / "records.jsonl", record(model="resnet50", dataset=dataset).as_json())
    assert f'create_model("resnet50"{argument})' in to_card(make_card(str(tmp_path)))


@pytest.mark.parametrize("name", ["**", "a**b[!x]", "/absolute", "../up", "?"])
def test_names_are_no_patterns(tmp_path, name):
    append_lines(
        tmp_path / "records.jsonl", trained("resnet50", 75.0).model_copy(update={"model": name}).as_json()
    )
    (tmp_path / "training" / "other-1").mkdir(parents=True)
    assert make_card(str(tmp_path)).name == name


def test_metrics_of_other_programs_are_shown_with_their_names(tmp_path):
    own = record(model="resnet50", metrics={"top1_pct": 75.0, "macro|f1": 50.0}, dataset=FULL)
    append_lines(tmp_path / "records.jsonl", own.as_json())
    card = make_card(str(tmp_path))
    [result] = front_matter(card)["model-index"][0]["results"]
    assert [(each["type"], each["value"]) for each in result["metrics"]] == [
        ("accuracy", 0.75),
        ("macro|f1", 0.5),
    ]
    assert r"macro\|f1" in to_card(card)


def test_metrics_that_only_some_trainings_have_are_left_out(tmp_path):
    for seed, metrics in enumerate(({"top1_pct": 75.0}, {"top1_pct": 76.0, "top5_pct": 90.0})):
        one = trained("resnet50", 75.0, seed, dataset=FULL).model_copy(update={"metrics": metrics})
        append_lines(tmp_path / "records.jsonl", one.as_json())
    [result] = front_matter(make_card(str(tmp_path)))["model-index"][0]["results"]
    assert [(each["type"], each["value"]) for each in result["metrics"]] == [("accuracy", 0.755)]


def test_seeds_count_without_fingerprints_too(tmp_path):
    for seed, top1 in enumerate((79.4, 79.5, 79.6)):
        append_lines(
            tmp_path / "records.jsonl", trained("sda_resnet86", top1, seed, dataset=DATASET).as_json()
        )
    card = make_card(str(tmp_path))
    assert front_matter(card)["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.795
    assert "With 1,000 classes it has 27,219,880 parameters" in to_card(card)


def test_generated_images_have_no_official_name_whatever_a_record_says(tmp_path):
    own = FULL.model_copy(update={"name": "synthetic", "complete": True})
    append_lines(
        tmp_path / "records.jsonl", trained("resnet50", 75.0, dataset=own, train_dataset=own).as_json()
    )
    found = front_matter(make_card(str(tmp_path)))
    assert "datasets" not in found
    dataset = found["model-index"][0]["results"][0]["dataset"]
    assert (dataset["type"], dataset["name"]) == ("generated", "50,000 generated images of 1000 classes")


def test_a_row_that_two_tables_print_is_shown_once_and_one_seed_in_the_singular(tmp_path):
    append_lines(tmp_path / "records.jsonl", trained("sda_resnet86", 78.7, 44, dataset=FULL).as_json())
    text = to_card(make_card(str(tmp_path)))
    assert text.count("78.76") == 1
    assert "classification-multiscale: SDA-ResNet-86 (ours); classification-attention: SDA-ResNet-86" in text
    assert "1 training, seed 44;" in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sda_resnet8", "did you mean sda_resnet86"),
        ("no/such/run", "no run at no/such/run"),
        ("", "no run at an empty name"),
    ],
)
def test_unknown_names_and_runs_are_usage_errors(text, words):
    result = CliRunner().invoke(cli, ["card", text])
    assert words in str(result.exception)


@pytest.mark.parametrize(
    "command",
    ["card resnet50 -o", "report -o", "train resnet50 --output"],
)
def test_an_empty_name_of_a_file_is_refused(command):
    """It is not the working directory."""
    result = CliRunner().invoke(cli, [*command.split(), ""])
    assert result.exit_code == 2
    assert "the name is empty" in result.stderr


def test_a_readme_of_somebody_else_is_not_replaced(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("# My project\n")
    result = CliRunner().invoke(cli, ["card", "resnet50", "-o", str(path)])
    assert "is not a card of sdabench" in str(result.exception)
    assert path.read_text() == "# My project\n"
    for _ in range(2):
        assert CliRunner().invoke(cli, ["card", "resnet50", "-o", str(tmp_path / "x.md")]).exit_code == 0
