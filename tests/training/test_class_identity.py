"""Outputs of weights belong to classes by name, not by number."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdabench import create_model
from sdabench.data.classes import ClassList, coco_categories
from sdabench.data.source import DataSource
from sdabench.errors import WeightsError
from sdabench.records.spec import protocol_at
from sdabench.training.evaluation import prepare_network
from sdabench.training.job import evaluation_job
from sdabench.training.loop import train
from sdabench.training.prediction import predict
from sdabench.training.run_folder import WEIGHTS
from sdabench.training.trainer import Trainer
from sdabench.weights.classes import class_order, describe_order, metadata_of, read_classes
from sdabench.weights.local import LocalWeights
from tests.helpers.datasets import write_annotations
from tests.helpers.program import sdabench
from tests.helpers.training import FASTER, classifier_job

CPU = torch.device("cpu")
PAIR = ClassList(names=("cat", "dog"), ids=(1, 2))


def job_of(kind, root, model, weights):
    source, task = DataSource(kind, root), "detection" if model == FASTER else "classification"
    local, protocol = LocalWeights.of_file(weights), protocol_at(32, task)
    return evaluation_job(model, source, source.read("val", task), local, protocol=protocol)


def predictions_of(job):
    network, _ = prepare_network(job)
    return predict(network, job, CPU)


def coco(root, categories):
    """Write a validation split of one image with an object of the first of the categories by id."""
    one = {"image_id": 1, "category_id": min(categories), "bbox": [10, 10, 20, 10], "area": 200}
    write_annotations(root, "val", [one])
    path = root / "annotations/instances_val2017.json"
    listed = [{"id": number, "name": name} for number, name in categories.items()]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"categories": listed}))
    return root


def read_coco(root, categories):
    return DataSource("coco", coco(root, categories)).read("val", "detection")


@pytest.fixture
def unnamed(tmp_path):
    """Write a file of weights that does not name its classes."""
    save_file({"weight": torch.zeros(1)}, tmp_path / "unnamed.safetensors")
    return tmp_path / "unnamed.safetensors"


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """Write random weights of a detector for cats and dogs."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "detector.safetensors"
    save_file(create_model(FASTER, num_classes=2).state_dict(), path, metadata=metadata_of(PAIR))
    return path


def test_detections_of_the_same_categories_under_other_ids_are_mapped_by_name(detector, tmp_path):
    def found(categories):
        root = coco(tmp_path / "-".join(categories.values()), categories)
        results = predictions_of(job_of("coco", root, FASTER, detector)).results
        return [(categories[one["category_id"]], one["bbox"], one["score"]) for one in results]

    expected = found({1: "cat", 2: "dog"})
    assert {name for name, *_ in expected} == {"cat", "dog"}
    assert found({5: "dog", 90: "cat"}) == expected


@pytest.mark.parametrize("categories", [{1: "cat", 2: "horse"}, {1: "cat", 2: "horse", 3: "dog"}])
def test_other_categories_are_refused_before_other_shapes(detector, tmp_path, categories):
    job = job_of("coco", coco(tmp_path, categories), FASTER, detector)
    with pytest.raises(WeightsError, match="trained on other classes .* only the dataset has horse"):
        prepare_network(job)


def test_logits_of_classes_in_another_order_are_mapped_by_name(textures, tmp_path):
    """Weights whose classifier and class names are reversed predict the same classes."""
    names = DataSource("synthetic", textures).read("val").class_names
    torch.manual_seed(0)
    state = create_model("resnet50", num_classes=2).state_dict()
    mirrored = state | {key: state[key].flip(0).contiguous() for key in ("fc.weight", "fc.bias")}
    predictions = []
    for stored, order in ((state, names), (mirrored, names[::-1])):
        path = tmp_path / f"{order[0]}.safetensors"
        save_file(stored, path, metadata=metadata_of(ClassList(names=order)))
        predictions.append(predictions_of(job_of("synthetic", textures, "resnet50", path)).classes)
    one, other = predictions
    assert one.top5.tolist() == other.top5.tolist()
    assert one.label_probability == pytest.approx(other.label_probability)


def test_weights_checkpoints_and_exports_of_a_training_name_its_classes(textures, tmp_path):
    job = classifier_job(textures)
    folder = train(job, tmp_path)
    expected = ClassList.of(job.train)
    assert len(expected.names) == 2
    assert read_classes(folder / WEIGHTS) == expected
    torch.save(Trainer(job).state(), tmp_path / "step.pt")
    assert read_classes(tmp_path / "step.pt") == expected
    moved = tmp_path / "moved.safetensors"
    shutil.copy(folder / WEIGHTS, moved)
    for form, suffix, load in (
        ("safetensors", ".safetensors", load_file),
        ("state-dict", ".pth", torch.load),
    ):
        exported = tmp_path / f"exported{suffix}"
        done = sdabench("weights", "export", moved, "--model", job.model, "--to", form, "-o", exported)
        assert done.returncode == 0, done.stderr
        assert read_classes(exported) == expected
        assert load(exported).keys() == load_file(moved).keys()


@pytest.mark.parametrize(
    "entries",
    [
        {"meta": {"CLASSES": ("cat", "dog"), "epoch": 3}},
        {"meta": {"dataset_meta": {"classes": ["cat", "dog"], "palette": None}}},
        {"class_to_idx": {"dog": 1, "cat": 0}},
        {"hyper_parameters": {"class_names": ["cat", "dog"]}},
        {"classes": ["cat", "dog"]},
    ],
)
def test_classes_that_other_programs_store_are_read(tmp_path, entries):
    torch.save({"state_dict": {"weight": torch.zeros(1)}} | entries, tmp_path / "a.pth")
    assert read_classes(tmp_path / "a.pth") == ClassList(names=("cat", "dog"))
    swapped = read_coco(tmp_path / "data", {1: "Dog", 2: "cat"})
    assert class_order(tmp_path / "a.pth", swapped) == (1, 0)
    others = read_coco(tmp_path / "others", {1: "cat", 2: "horse"})
    with pytest.raises(WeightsError, match="trained on other classes"):
        class_order(tmp_path / "a.pth", others)


def test_words_for_imagenets_classes_are_not_compared_with_wnids(imagenet, tmp_path):
    path, split = tmp_path / "a.pth", DataSource("imagenet", imagenet).read("val")
    torch.save({"weight": torch.zeros(1), "meta": {"CLASSES": ["tench", "crane", "crane"]}}, path)
    assert class_order(path, split) is None
    assert "in words (tench, crane, crane): they are taken to be" in describe_order(path, split)
    wnids = split.class_names[::-1]
    torch.save({"class_to_idx": {name: index for index, name in enumerate(wnids)}}, path)
    assert class_order(path, split) == tuple(range(999, -1, -1))


@pytest.mark.parametrize("classes", [3, {"names": 3}, [["cat"]], {"cat": 1, "dog": 1}, None])
def test_other_values_name_no_classes(tmp_path, classes):
    torch.save({"state_dict": {"weight": torch.zeros(1)}, "classes": classes}, tmp_path / "a.pth")
    assert read_classes(tmp_path / "a.pth") is None


def test_unnamed_weights_are_taken_in_the_order_of_the_dataset(textures, imagenet, unnamed):
    split = DataSource("synthetic", textures).read("val")
    assert class_order(unnamed, split) is None
    assert "does not name its classes" in describe_order(unnamed, split)
    assert describe_order(unnamed, DataSource("imagenet", imagenet).read("val")) is None


def test_names_that_occur_twice_need_the_same_ids():
    twins = ClassList(names=("cat", "cat"), ids=(1, 2))
    assert twins.order_in(twins) == (0, 1)
    assert twins.order_in(ClassList(names=("cat", "cat"), ids=(1, 3))) is None
    assert PAIR.order_in(twins) is None
    assert PAIR.order_in(ClassList(names=("dog", "cat"), ids=(7, 8))) == (1, 0)


def test_unnamed_weights_of_80_classes_are_for_coco(tmp_path, unnamed):
    own = read_coco(tmp_path / "own", coco_categories())
    assert class_order(unnamed, own) == tuple(range(80))
    assert describe_order(unnamed, own) is None
    other_ids = read_coco(tmp_path / "ids", dict(enumerate(reversed(coco_categories().values()))))
    assert class_order(unnamed, other_ids) == tuple(reversed(range(80)))
    assert "mapped by name" in describe_order(unnamed, other_ids)
    others = read_coco(tmp_path / "others", {number: f"class {number}" for number in range(80)})
    with pytest.raises(WeightsError, match="80 of them, as weights for COCO do, .* dataset has class 0"):
        class_order(unnamed, others)


@pytest.mark.parametrize("count", [90, 91])
def test_unnamed_weights_with_gaps_are_for_coco_by_id(tmp_path, unnamed, count):
    gaps = {number: coco_categories().get(number, f"unused {number}") for number in range(1, count + 1)}
    assert class_order(unnamed, read_coco(tmp_path / "own", gaps)) == tuple(range(count))
    others = {number: f"class {number}" for number in range(1, count + 1)}
    with pytest.raises(WeightsError, match=f"has {count} of them"):
        class_order(unnamed, read_coco(tmp_path / "other", others))


def test_a_subset_of_wnids_keeps_the_indices_of_all(imagenet, tmp_path):
    split = DataSource("imagenet", imagenet).read("val")
    assert split.classes < len(split.class_names) == 1000
    path = tmp_path / "a.safetensors"
    save_file({"weight": torch.zeros(1)}, path, metadata=metadata_of(ClassList.of(split.subset(1))))
    assert class_order(path, split) == tuple(range(1000))
