"""Files of statements and of published baselines."""

import pytest

from sdabench.errors import RegistryError
from sdabench.registry import load_registry
from sdabench.registry.baselines import load_baselines
from sdabench.registry.statements import load_statements
from tests.helpers.paths import CHECKOUT

STATEMENT = "statements: {{one: {{statement: a, source: b, reading: c, {}}}}}"
BASELINE = "sources: {{one: {{title: a, place: b, results: [{{training: c, {}}}]}}}}"


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A registry with the files of a test, and the models and tables of the real one."""
    from copy import copy

    registry = copy(load_registry())
    registry.folder = tmp_path
    return registry


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("check: better, tables: [detection], metrics: [ap_pct]", "check 'better' needs against"),
        ("check: none", "a statement that no table decides needs an experiment"),
        ("check: bold is best, tables: [detections]", "unknown table 'detections'; did you mean detection"),
        ("check: better, tables: [detection], metrics: [ap], against: group", "unknown metric 'ap'"),
        ("check: better, tables: [detection], metrics: [flops_g], against: group", "'flops_g' is not for check"),
        ("check: small objects, tables: [detection], metrics: [ap_s_pct], against: group", "of small objects"),
        ("check: best", "check"),
        ("check: study", "check 'study' needs study"),
        ("check: study, study: depth-scal/scale", "unknown study 'depth-scal'"),
        ("check: receptive fields, tables: [detection], fields: radius", "fields"),
        ("check: bold is best, tables: []", "tables must not be empty"),
        ("check: better, tables: [detection], metrics: [], against: group", "metrics must not be empty"),
        ("check: better, tables: [detection], metrics: [ap_pct], against: group, models: ['*_sda_bam86']",
         "unknown model '*_sda_bam86'; its tables have no such network"),
        ("check: better, tables: [detection], metrics: [ap_pct], against: group, models: [sda_resnet86]",
         "unknown model 'sda_resnet86'; did you mean mask_rcnn_sda_resnet86"),
    ],
)  # fmt: skip
def test_mistake_in_statements_is_one_line(registry, fields, words):
    (registry.folder / "statements.yaml").write_text(STATEMENT.format(fields))
    with pytest.raises(RegistryError, match=r"statements\.yaml: .*one") as error:
        load_statements(registry)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("model: resnet5, metrics: {top1_pct: 76}", "unknown model 'resnet5'; did you mean resnet50"),
        ("model: resnet86, metrics: {top1_pct: 76}", "unknown model 'resnet86'"),  # has no row
        ("model: resnet50, metrics: {ap_pct: 76}", "unknown metric 'ap_pct'"),
        ("model: resnet50, metrics: {top1_pct: 0.76e3}", "less than 100"),
        ("model: resnet50, metrics: {top1_pct: 0.7613}", "greater than 1"),
        ("model: resnet50, task: detection, metrics: {ap_pct: 76}", "unknown model 'resnet50'"),
    ],
)
def test_mistake_in_baselines_is_one_line(registry, fields, words):
    (registry.folder / "baselines.yaml").write_text(BASELINE.format(fields))
    with pytest.raises(RegistryError, match=r"baselines\.yaml: ") as error:
        load_baselines(registry)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "second", "words"),
    [
        ("one", "{model: resnet50, training: c, metrics: {top5_pct: 93, top1_pct: 77}}", "top1_pct of 'c' is given twice"),
        ("best", "{model: resnet50, training: d, metrics: {top1_pct: 77}}", "'best' stands for all sources"),
    ],
)  # fmt: skip
def test_ambiguous_baseline_is_refused(registry, name, second, words):
    first = "{model: resnet50, training: c, metrics: {top1_pct: 76}}"
    (registry.folder / "baselines.yaml").write_text(
        f"sources: {{{name}: {{title: a, place: b, results: [{first}, {second}]}}}}"
    )
    with pytest.raises(RegistryError, match=words):
        load_baselines(registry)


def test_missing_file_is_named(registry):
    for load, name in ((load_statements, "statements.yaml"), (load_baselines, "baselines.yaml")):
        with pytest.raises(RegistryError, match=name):
            load(registry)


def test_numbers_of_torchvision_equal_its_metadata():
    from torchvision.models import get_weight

    names = {
        ("resnet50", "IMAGENET1K_V1"): "ResNet50_Weights.IMAGENET1K_V1",
        ("resnet50", "IMAGENET1K_V2"): "ResNet50_Weights.IMAGENET1K_V2",
        ("faster_rcnn_resnet50", "COCO_V1"): "FasterRCNN_ResNet50_FPN_Weights.COCO_V1",
        ("mask_rcnn_resnet50", "COCO_V1"): "MaskRCNN_ResNet50_FPN_Weights.COCO_V1",
    }
    results = load_baselines(load_registry())["torchvision"].results
    assert {(each.model, each.training.split(",")[0]) for each in results} == set(names)
    for each in results:
        weights = get_weight(names[each.model, each.training.split(",")[0]])
        [published] = weights.meta["_metrics"].values()
        ap = "mask_map" if each.task == "segmentation" else "box_map"
        keys = {"top1_pct": "acc@1", "top5_pct": "acc@5", "ap_pct": ap}
        assert each.metrics == {key: published[keys[key]] for key in each.metrics}


def test_statements_and_baselines_state_their_source():
    for each in load_statements(load_registry()).values():
        assert each.source.startswith(("README", "abstract", "arXiv"))
    assert (CHECKOUT / "registry" / "baselines.yaml").read_text().count("place: ") == len(
        load_baselines(load_registry())
    )
