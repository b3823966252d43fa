"""The registry equals the tables of the paper: every row, number, dash, bold and group."""

import re

import pytest

from sdabench.registry import load_registry
from sdabench.registry.schema import Network
from tests.helpers.paths import FACTS

TABLES = ("classification-multiscale", "classification-attention", "detection", "segmentation")


def paper_tables():
    """Read the tables as the paper prints them: for each table a list of groups of lines."""
    tables = []
    for line in (FACTS / "readme_tables.txt").read_text().splitlines():
        if line.startswith(("Method ", "Detector ")):
            tables.append([[]])
        elif line.startswith("---"):
            tables[-1].append([])
        else:
            tables[-1][-1].append(line.removesuffix("\\"))
    return dict(zip(TABLES, tables, strict=True))


@pytest.mark.parametrize("name", TABLES)
def test_rows_numbers_bold_and_groups_equal_the_paper(name):
    table = load_registry().table(name)
    rows = iter(table.rows)
    groups = []
    for lines in paper_tables()[name]:
        names = set()
        for line in lines:
            row = next(rows)
            names.add(row.group)
            printed = line.split(" ")[-len(table.columns) :]
            assert line.startswith(row.label + " ")
            for column, text in zip(table.columns, printed, strict=True):
                number = re.sub(r"\\textbf\{(.*)\}", r"\1", text)
                shown = row.reported[column.key]
                assert number == ("-" if shown is None else f"{shown:.{column.decimals}f}"), (
                    row.label,
                    column.key,
                )
                assert (text != number) == (column.key in row.bold), (row.label, column.key)
            if table.dimension_header:
                assert f" {row.dimension or '-'} " in line
            named = re.search(r"\\multirow\{\d+\}\{\*\}\{(\w+)\}", line)
            assert named is None or named[1] == row.group
        assert len(names) == 1
        groups += names
    assert next(rows, None) is None
    assert len(set(groups)) == len(groups)


def test_tables_have_71_rows_of_32_networks_and_22_detectors():
    registry = load_registry()
    assert [len(registry.table(name).rows) for name in TABLES] == [16, 22, 22, 11]
    assert len(registry.suite("classification")) == 32
    assert len(registry.suite("detection")) == 22
    assert len(registry.suite("segmentation")) == 11
    assert set(registry.suite("segmentation")) < set(registry.suite("detection"))
    assert len(registry.suite("all")) == 54


def test_rows_of_one_model_print_the_same_size_and_cost():
    registry = load_registry()
    sizes = {}
    for table in registry.tables.values():
        for row in table.rows:
            numbers = [row.reported[column.key] for column in table.counted]
            assert sizes.setdefault(row.model, numbers) == numbers, row.label


def test_sda_networks_have_their_baseline_and_control():
    models = load_registry().models
    names = load_registry().suite("all")
    pairs = {
        name: (models[name].baseline, models[name].like_for_like) for name in names if models[name].baseline
    }
    assert pairs == {
        "sda_resnet86": ("resnet50", "resnet86_g8"),
        "sda_senet86": ("senet86", "senet86"),
        "sda_cbam86": ("cbam86", "cbam86"),
        "sda_epsanet86": ("epsanet86", "epsanet86"),
        "sda_pyconv86": ("pyconv86", "pyconv86"),
        "sda_res2net86": ("res2net86", "res2net86"),
        "faster_rcnn_sda_resnet86": ("faster_rcnn_resnet50", "faster_rcnn_resnet86_g8"),
        "faster_rcnn_sda_senet86": ("faster_rcnn_senet101", "faster_rcnn_senet86"),
        "faster_rcnn_sda_res2net86": ("faster_rcnn_res2net101", "faster_rcnn_res2net86"),
        "mask_rcnn_sda_resnet86": ("mask_rcnn_resnet50", "mask_rcnn_resnet86_g8"),
        "mask_rcnn_sda_senet86": ("mask_rcnn_senet101", "mask_rcnn_senet86"),
        "mask_rcnn_sda_res2net86": ("mask_rcnn_res2net101", "mask_rcnn_res2net86"),
    }
    for name, (_, partner) in pairs.items():
        own, other = models[name].network, models[partner].network
        assert own.depth_attention is True
        assert own.model_copy(update={"depth_attention": False}) == other
    assert {name for name, model in models.items() if model.depth_attention} >= set(pairs)


@pytest.mark.parametrize(
    "same", [True, {"kind": "learned"}, [True] * 4, [True, {}, {"min_hidden": 64}, True]]
)
def test_depth_attention_that_means_the_same_has_one_digest(same):
    model = load_registry().models["sda_resnet50"]
    network = Network.model_validate({**model.network.model_dump(), "depth_attention": same})
    assert network == model.network
    assert model.model_copy(update={"network": network}).network_sha256 == model.network_sha256


def test_digests_of_networks_are_those_before_kinds_of_depth_attention():
    digests = {
        name: load_registry().models[name].network_sha256[:12] for name in ("resnet50", "sda_resnet86")
    }
    assert digests == {"resnet50": "3596c5b70be2", "sda_resnet86": "d3d3fb008b8e"}
