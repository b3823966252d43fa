"""Figures: their data, marks and labels, the files that are written, and errors."""

import json
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Annotation
from PIL import Image
from scipy.stats import t

import sdabench
from sdabench.errors import DataError, NothingMeasuredError, UsageError
from sdabench.records.rescoring import StoredRecord
from sdabench.records.spec import Weights
from sdabench.records.store import RecordStore
from sdabench.report.figures import (
    claims,
    classes,
    confusion,
    curves,
    errors,
    octaves,
    pareto,
    pr,
    reliability,
)
from sdabench.report.figures.labels import spread
from sdabench.report.figures.names import folder_names
from sdabench.report.figures.predicted import _labels
from sdabench.report.figures.style import Theme, fix_layout, save
from tests.helpers.program import assert_error
from tests.helpers.program import sdabench as program
from tests.helpers.records import record, trained, write_classified, write_detected, write_training

TABLES = ["classification-multiscale", "classification-attention", "detection", "segmentation"]
THEMES = [Theme(), Theme(dark=True, columns="two")]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three seeds of two networks, with records and logged losses."""
    folder = tmp_path_factory.mktemp("runs")
    values = {"resnet50": 76.0, "resnet86_g8": 77.0, "sda_resnet86": 78.7}
    RecordStore(folder).append(
        [trained(model, top1 + seed / 10, seed) for model, top1 in values.items() for seed in range(3)]
    )
    for seed in range(3):
        write_training(folder / "training" / f"resnet50-{seed}", [30.0 + seed, 3.0, 1.5 + seed], seed)
    return folder


@pytest.fixture(scope="module")
def classified(tmp_path_factory):
    """Two classifiers on 120 generated images of four classes: see write_classified."""
    return write_classified(tmp_path_factory.mktemp("c") / "run", {"resnet50": 0.7, "sda_resnet86": 0.95})


@pytest.fixture(scope="module")
def detected(tmp_path_factory):
    """A run of two detectors, and the annotations: see write_detected."""
    models = ["faster_rcnn_resnet50", "faster_rcnn_sda_resnet86"]
    return write_detected(tmp_path_factory.mktemp("d") / "run", models)


@pytest.fixture(scope="module")
def drawn(run, classified, detected):
    """The data of each kind of figure, and its module."""
    found, file = detected
    return {
        "pareto": (pareto, pareto.frame(TABLES[0], run)),
        "claims": (claims, claims.frame(run)),
        "curves": (curves, curves.frame(run)),
        "octaves": (octaves, octaves.frame(classified)),
        "sizes": (octaves, octaves.frame(found)),
        "confusion": (confusion, confusion.frame(classified, ["resnet50"])),
        "reliability": (reliability, reliability.frame(classified)),
        "classes": (classes, classes.frame(classified)),
        "pr": (pr, pr.frame(found, annotations=file)),
        "errors": (errors, errors.frame(found, annotations=file)),
    }


KINDS = [
    "pareto",
    "claims",
    "curves",
    "octaves",
    "sizes",
    "confusion",
    "reliability",
    "classes",
    "pr",
    "errors",
]


@pytest.mark.parametrize("kind", KINDS)
def test_columns_and_dtypes_of_the_data_are_those_documented(drawn, kind):
    module, data = drawn[kind]
    assert len(data)
    assert data.dtypes.map(str).to_dict() == {name: each.dtype for name, each in module.COLUMNS.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", [".svg", ".pdf", ".png"])
def test_equal_data_give_equal_files(drawn, kind, suffix, tmp_path):
    module, data = drawn[kind]
    for name in "ab":
        save(module.draw(data, THEMES[0]), tmp_path / f"{name}{suffix}", THEMES[0])
    first, second = (tmp_path / f"{name}{suffix}" for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    assert len(first.read_bytes()) > 2000


@pytest.mark.parametrize("kind", ["octaves", "sizes", "reliability", "classes", "pr", "errors"])
def test_two_series_differ_without_their_colors(drawn, kind):
    module, data = drawn[kind]
    axes = module.draw(data, THEMES[0]).axes[0]
    shapes = {color: set() for color in THEMES[0].cycle[:2]}
    for line in axes.lines:
        if line.get_marker() != "None" and line.get_color() in shapes:
            shapes[line.get_color()].add(line.get_marker())
    for bar in axes.patches:
        shapes[to_hex(bar.get_facecolor()).upper()].add(bar.get_hatch())
    first, second = shapes.values()
    assert first
    assert second
    assert not first & second


def test_curves_of_groups_differ_without_their_colors(run):
    data = curves.frame(run, quantities=["loss"])
    both = pd.concat([data, data.assign(group="other", run=data.run + "x")], ignore_index=True)
    first, second = THEMES[0].cycle[:2]
    lines = curves.draw(both).axes[0].lines
    styles = [
        {line.get_linestyle() for line in lines if line.get_color() == color} for color in (first, second)
    ]
    assert styles == [{"-"}, {"--"}]


def test_colors_repeat_with_other_marks_lines_and_hatches():
    series = [THEMES[0].series(place) for place in range(14)]
    assert series[0].color == series[7].color
    for kind in ("marker", "line", "hatch"):
        assert len({(each.color, getattr(each, kind)) for each in series}) == 14


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_leaves_the_page(drawn, kind):
    module, data = drawn[kind]
    for theme in THEMES:
        figure = module.draw(data, theme)
        renderer = fix_layout(figure)
        drawn_on = figure.get_tightbbox(renderer)  # in inches
        width, height = figure.get_size_inches()
        assert drawn_on.x0 >= -0.01
        assert drawn_on.y0 >= -0.01
        assert drawn_on.x1 <= width + 0.01
        assert drawn_on.y1 <= height + 0.01


@pytest.mark.parametrize("kind", ["curves", "octaves", "confusion", "reliability", "classes", "pr", "errors"])
@pytest.mark.parametrize("name", ["n", "W" * 80])
def test_many_series_have_their_names_and_marks_on_the_page_and_leave_room_for_axes(drawn, kind, name):
    module, data = drawn[kind]
    column = "group" if kind == "curves" else "label"
    data = data[data[column] == data[column].iloc[0]]
    names = [f"{place}{name}" for place in range(9 if kind != "confusion" else 1)]
    runs = [data.assign(**{column: one, "run": data["run"] + one}) for one in names]
    figure = module.draw(pd.concat(runs, ignore_index=True), THEMES[0])
    drawn_on, (width, height) = figure.get_tightbbox(fix_layout(figure)), figure.get_size_inches()
    assert min(drawn_on.x0, drawn_on.y0, width - drawn_on.x1, height - drawn_on.y1) >= -0.01
    assert figure.axes[0].get_window_extent().width / figure.dpi > 1.5
    if kind == "confusion":
        return
    [legend] = figure.legends
    texts = [text.get_text().replace("\n", "") for text in legend.get_texts()]
    assert [one for one in names if not any(text.startswith(one) for text in texts)] == []
    looks = {
        (str(h.get_color()), h.get_marker(), str(h.get_linestyle()))
        for h in legend.legend_handles
        if hasattr(h, "get_marker")
    } or {(h.get_facecolor(), h.get_hatch()) for h in legend.get_patches()}
    assert len(looks) == len(texts)


@pytest.mark.parametrize("theme", THEMES)
def test_rows_of_few_differences_do_not_overlap(run, theme):
    data = claims.frame(run, models="sda_resnet86", metrics=["top1_pct", "top5_pct"])
    assert len(data) == 3
    figure = claims.draw(data, theme)
    renderer = fix_layout(figure)
    boxes = [label.get_window_extent(renderer).padded(-0.5) for label in figure.axes[0].get_yticklabels()]
    assert not [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])]


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("x", ["params", "flops"])
@pytest.mark.parametrize("table", TABLES)
def test_labels_overlap_neither_each_other_nor_points(table, x, theme):
    data = pareto.frame(table, x=x)
    figure = pareto.draw(data, theme)
    renderer = fix_layout(figure)
    texts = [text for text in figure.axes[0].texts if isinstance(text, Annotation) and text.get_text()]
    assert len(texts) == data["model"].nunique()  # without runs
    boxes = [text.get_window_extent(renderer) for text in texts]
    # A box includes room for descenders, which may touch the next one.
    boxes = [box.padded(-0.75) for box in boxes]
    overlapping = [
        (a.get_text(), b.get_text())
        for (a, first), (b, second) in combinations(zip(texts, boxes, strict=True), 2)
        if first.overlaps(second)
    ]
    assert not overlapping
    points = figure.axes[0].transData.transform(data[["x", "y"]].to_numpy())
    assert not [text.get_text() for text, box in zip(texts, boxes, strict=True) if box.count_contains(points)]


def test_points_are_the_numbers_of_the_paper_and_arrows_start_at_the_control(run):
    data = pareto.frame(TABLES[0], run).set_index(["source", "model"])
    paper = data.loc["paper"]
    assert (paper.x["sda_resnet86"], paper.y["sda_resnet86"]) == (3.88, 78.76)
    assert (paper.partner["sda_resnet86"], paper.partner_role["sda_resnet86"]) == ("resnet50", "baseline")
    assert (paper.partner["sda_pyconv86"], paper.partner_role["sda_pyconv86"]) == ("pyconv86", "control")
    # In the paper's table: the cheapest, and those better than all cheaper ones.
    assert list(paper.index[paper.front]) == [
        "bl_resnet50", "scalenet50", "epsanet50", "sda_resnet86",
        "sda_epsanet86", "sda_pyconv86", "sda_res2net86",
    ]  # fmt: skip
    measured = data.loc["measured"]
    assert measured.y["sda_resnet86"] == pytest.approx(78.8)
    assert measured.partner["sda_resnet86"] == "resnet86_g8"
    assert measured.low["sda_resnet86"] < 78.8 < measured.high["sda_resnet86"]
    figure = pareto.draw(data.reset_index())
    points = {
        line.get_markerfacecolor() == Theme().background
        for line in figure.axes[0].lines
        if line.get_marker() == "o"
    }
    assert points == {True, False}


def test_printed_points_far_from_measured_ones_have_a_label_and_a_line(tmp_path):
    RecordStore(tmp_path).append([trained("resnet50", 78.0), trained("res2net50", 78.0)])  # paper: 75.2, 78.0
    data = pareto.frame(records=tmp_path)
    axes = pareto.draw(data).axes[0]
    labels = [text.get_text() for text in axes.texts]
    assert (labels.count("ResNet-50"), labels.count("Res2Net-50")) == (2, 1)
    dotted = [line.get_xydata().tolist() for line in axes.lines if line.get_linestyle() == ":"]
    ends = data.set_index(["model", "source"])[["x", "y"]]
    assert [ends.loc[("resnet50", source)].tolist() for source in ("paper", "measured")] in dotted
    assert "Dotted lines: from printed to measured values" in pareto.describe(data)


def test_captions_of_costs_and_fronts_are_true(tmp_path):
    assert pareto.describe(pareto.frame()).startswith("Printed values. Thin lines")
    single = pareto.frame(models=["resnet50"])
    assert pareto.describe(single) == "Printed values."
    steps = [line for line in pareto.draw(single).axes[0].lines if line.get_drawstyle() == "steps-post"]
    assert [len(line.get_xdata()) for line in steps] == [0]
    path = tmp_path / "speed.json"
    names, step = (
        ("resnet50", "senet50"),
        {"mode": "inference", "batch_size": 4, "environment": {"device": "cpu"}},
    )
    path.write_text(json.dumps([{"model": name, "latency_ms": {"median": 9.0}, **step} for name in names]))
    timed = pareto.frame("classification-attention", x="latency", bench=path)
    assert pareto.describe(timed).startswith("Printed accuracies, latencies measured by bench.")
    assert set(timed.x_source) == {"bench"}
    RecordStore(tmp_path).append(
        [trained(model, 78.0) for model in ("resnet50", "sda_resnet86", "res2net50")]
    )
    both = pareto.frame(records=tmp_path)
    assert set(both.x_source[both.source == "measured"]) == {"counted"}
    assert "Printed" not in pareto.describe(both)


def test_labels_avoid_arrows_and_one_beside_another_point_has_a_leader():
    data = pareto.frame("segmentation")
    axes = pareto.draw(data).axes[0]
    renderer = axes.figure.canvas.get_renderer()
    boxes = {t.get_text(): t.get_window_extent(renderer) for t in axes.texts if t.get_text()}
    [(start, end)] = [
        (arrow.xyann, arrow.xy) for arrow in axes.texts if not arrow.get_text() and arrow.xy[0] < 300
    ]
    along = axes.transData.transform(np.linspace(start, end, 200))
    assert not [name for name, box in boxes.items() if box.padded(-1).count_contains(along)]
    point = data.set_index("model").loc["mask_rcnn_ecanet50", ["x", "y"]].tolist()
    leaders = [line.get_xydata()[0].tolist() for line in axes.lines if line.get_linewidth() == 0.4]
    assert pytest.approx(point) in leaders


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("table", TABLES)
def test_leaders_pass_no_other_mark(table, theme):
    data = pareto.frame(table)
    axes = pareto.draw(data, theme).axes[0]
    points = axes.transData.transform(data[["x", "y"]].to_numpy()) * 72 / axes.figure.dpi
    for line in axes.lines:
        if line.get_linewidth() == 0.4:
            start, end = axes.transData.transform(line.get_xydata()) * 72 / axes.figure.dpi
            far = points[np.hypot(*(points - start).T) > 5]  # marks of 4 points that do not touch its own
            along = np.linspace(start, end, 100)[:, None]
            assert np.hypot(*(along - far).T).min(initial=9) > 1.5


def test_marks_of_a_legend_are_hollow_as_the_points_are():
    figure = pareto.draw(pareto.frame("detection"))
    faces = [handle.get_markerfacecolor() for handle in figure.legends[0].legend_handles]
    assert faces == [Theme().background] * 2


def test_latency_comes_from_a_file_of_bench(tmp_path):
    step = {"batch_size": 4, "environment": {"device": "cpu"}}
    timings = [
        {"model": "resnet50", "mode": "inference", "latency_ms": {"median": 12.5}, **step},
        {"model": "resnet50", "mode": "training", "latency_ms": {"median": 99.0}, **step},
    ]
    path = tmp_path / "speed.json"
    path.write_text(json.dumps(timings))
    data = pareto.frame(x="latency", bench=path)
    assert data[["model", "x", "y"]].to_numpy().tolist() == [["resnet50", 12.5, 75.2]]
    assert data.x_name.item() == "latency (ms), batch of 4 on cpu"
    path.write_text(json.dumps([*timings, timings[0] | {"batch_size": 8}]))
    with pytest.raises(UsageError, match="mixes batch sizes"):
        pareto.frame(x="latency", bench=path)
    for text in ('{"a": 1}', "[1]", "[]", "no json"):
        path.write_text(text)
        with pytest.raises(sdabench.SdabenchError, match=str(path)):
            pareto.frame(x="latency", bench=path)


def test_the_interval_of_a_printed_difference_is_that_of_two_single_trainings():
    data = claims.frame().set_index(["model", "metric"])
    row = data.loc[("sda_pyconv86", "top1_pct")]
    half = t.ppf(0.975, 8) * np.sqrt(2) * 0.15  # the published standard deviation, with 8 degrees of freedom
    assert row.paper == pytest.approx(79.27 - 78.63)
    assert [row.paper_low, row.paper_high] == pytest.approx([row.paper - half, row.paper + half])
    assert data.measured.isna().all()


def test_measured_differences_have_an_interval_and_the_color_of_their_outcome(run):
    data = claims.frame(run)
    row = data[(data.model == "sda_resnet86") & (data.partner == "resnet50")].iloc[0]
    assert (row.paper, row.outcome) == (3.56, "fails")  # 2.7 points measured
    assert row.measured == pytest.approx(2.7)
    control = data[data.partner == "resnet86_g8"].iloc[0]
    assert pd.isna(control.paper)
    assert control.measured == pytest.approx(1.7)
    colors = {line.get_color() for line in claims.draw(data).axes[0].lines}
    assert {Theme().outcomes["fails"], Theme().outcomes["unknown"]} <= colors


def test_intervals_of_expected_differences_are_thick_and_those_of_single_trainings_thin(run):
    data = claims.frame(run, models=["sda_resnet86"])
    row = data[data.partner == "resnet50"].iloc[0]
    # Three paired differences of 2.7, whose spread is the published one over 8 + 2 degrees of freedom.
    sd = np.sqrt(8 / 10 * 2) * 0.15
    half, single = (t.ppf(0.975, 10) * sd * np.sqrt(share) for share in (1 / 3, 1 / 3 + 1))
    assert [row.own_low, row.own_high] == pytest.approx([2.7 - half, 2.7 + half])
    assert [row.low, row.high] == pytest.approx([2.7 - single - 0.01, 2.7 + single + 0.01])  # rounding
    lines = claims.draw(data).axes[0].lines
    widths = {tuple(line.get_xdata()): line.get_linewidth() for line in lines if len(line.get_xdata()) == 2}
    assert widths[row.own_low, row.own_high] == widths[row.paper_low, row.paper_high]
    assert widths[row.low, row.high] < widths[row.own_low, row.own_high] / 2
    words = claims.describe(data)
    assert "Thick lines: 95 % confidence interval of the expected difference." in words
    assert "Thin lines: 95 % interval of a difference of two single trainings" in words
    assert "Dotted" not in words


def test_intervals_of_given_weights_are_dotted_and_cover_test_images(tmp_path):
    weights = [record(model="sda_resnet86", metrics={"top1_pct": 78.0}), record(metrics={"top1_pct": 75.3})]
    RecordStore(tmp_path).append(weights)
    data = claims.frame(tmp_path, models=["sda_resnet86"])
    row = data[data.measured.notna()].iloc[0]
    error = np.sqrt(sum(value * (1 - value) / 50_000 for value in (0.78, 0.753)))
    assert (row.low, row.high) == (row.own_low, row.own_high)
    assert row.high - row.low == pytest.approx(2 * 1.96 * 100 * error, rel=1e-3)
    drawn = [
        line for line in claims.draw(data).axes[0].lines if list(line.get_xdata()) == [row.low, row.high]
    ]
    assert len(drawn) == 1
    assert drawn[0].is_dashed()
    words = claims.describe(data)
    assert "Dotted lines: 95 % interval of given weights over test images." in words
    assert "single trainings" not in words


def test_seeds_are_one_group_and_their_mean_is_drawn(run):
    data = curves.frame(run)
    assert set(data.group) == {"ResNet-50"}
    assert set(data.seed) == {0, 1, 2}
    axes = curves.draw(data).axes[0]
    assert axes.get_yscale() == "log"
    mean = max(axes.lines, key=lambda line: line.get_linewidth())
    assert list(mean.get_ydata()) == [31.0, 3.0, 2.5]


@pytest.mark.parametrize(
    ("quantity", "values", "expected"),
    [("loss", [1.0, 11.0], True), ("loss", [1.0, 9.0], False), ("loss", [0.0, 11.0], False),
     ("loss", [np.nan, np.inf], False), ("top1_pct", [1.0, 70.0], False)],
)  # fmt: skip
def test_axes_of_losses_that_vary_a_lot_are_logarithmic(quantity, values, expected):
    assert curves.needs_logarithm(pd.DataFrame({"quantity": quantity, "value": values})) is expected


def test_equal_seeds_of_two_folders_are_two_groups(tmp_path):
    for name in "ab":
        write_training(tmp_path / name / "training" / "resnet50-0", [2.0, 1.0])
    data = curves.frame([tmp_path / "a", tmp_path / "b"], quantities=["learning_rate"])
    assert set(data.group) == {"ResNet-50 (a)", "ResNet-50 (b)"}
    assert set(data.quantity) == {"learning_rate"}


@pytest.mark.parametrize(
    ("centers", "expected"),
    [([0, 10], [0, 10]), ([5, 5], [4, 6]), ([3, 1, 2], [4, 0, 2]), ([0, 1, 10], [-0.5, 1.5, 10])],
)
def test_labels_at_the_ends_of_lines_move_apart_as_little_as_needed(centers, expected):
    assert list(spread(np.array(centers, dtype=float), 2.0)) == pytest.approx(expected)


def test_accuracy_by_octave(classified):
    data = octaves.frame(classified, ["resnet50"]).set_index("size")
    # Images 0, 3, 6, … have the largest objects, of which those of the first class are wrong.
    assert data.value.to_dict() == {"1/8–1/4": 100.0, "1/4–1/2": 100.0, "1/2–1": 75.0}
    assert set(data.images) == {40}
    low = (0.75 + 1.96**2 / 80 - 1.96 * np.sqrt(0.75 * 0.25 / 40 + (1.96 / 80) ** 2)) / (1 + 1.96**2 / 40)
    assert data.low["1/2–1"] == pytest.approx(100 * low, abs=0.01)  # Wilson's interval


def test_ap_by_size_is_that_of_the_record(detected):
    folder, _ = detected
    data = octaves.frame(folder, ["faster_rcnn_resnet50"])
    metrics = sdabench.records(folder).set_index(["model", "metric"]).value_pct["faster_rcnn_resnet50"]
    assert list(data["size"]) == ["small", "medium", "large"]
    assert data.value[0] == metrics["ap_s_pct"]
    assert data.value[1:2].isna().all()
    assert data.high[0] - data.low[0] == pytest.approx(2 * 1.96 * 2.0)
    [line] = octaves.draw(data).axes[0].lines
    assert list(np.isnan(line.get_ydata())) == [False, True, False]  # no line passes what is unknown


def test_object_sizes_need_the_objects_of_the_same_dataset(classified, tmp_path):
    (tmp_path / "objects.csv").write_text(
        "path,octave,size_px,width,height\nval/other/1.JPEG,-1,64,160,128\n"
    )
    with pytest.raises(DataError, match=r"has no val/cross_checks.*--objects"):
        octaves.frame(classified, objects=tmp_path / "objects.csv")
    (tmp_path / "objects.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"is not the objects\.csv"):
        octaves.frame(classified, objects=tmp_path / "objects.csv")
    with pytest.raises(UsageError, match="--objects"):
        octaves.frame(classified, objects=tmp_path / "none.csv")


def test_confusions_are_counted_with_the_names_of_classes(classified):
    data = confusion.frame(classified, ["resnet50"]).set_index(["true_name", "predicted_name"])
    assert data.images.to_dict() == {
        ("cross_checks", "cross_checks"): 20,
        ("cross_checks", "disc_dots"): 10,
        ("disc_dots", "disc_dots"): 30,
        ("disc_rings", "disc_rings"): 30,
        ("star_rings", "star_rings"): 30,
    }
    assert data.share_pct["cross_checks", "disc_dots"] == pytest.approx(100 / 3)
    with pytest.raises(UsageError, match=r"one of 2 records \(resnet50, sda_resnet86\)"):
        confusion.frame(classified)


def test_reliability_and_its_error(classified):
    data = reliability.frame(classified).set_index("model")
    assert data.accuracy_pct.to_dict() == pytest.approx({"resnet50": 1100 / 12, "sda_resnet86": 1100 / 12})
    assert data.ece_pct.to_dict() == pytest.approx(
        {"resnet50": 1100 / 12 - 70, "sda_resnet86": 95 - 1100 / 12}
    )


def test_reliability_needs_probabilities_which_earlier_versions_did_not_store(tmp_path):
    run = write_classified(tmp_path / "run", {"resnet50": np.nan})
    with pytest.raises(UsageError, match="earlier version wrote it; evaluate resnet50 again"):
        reliability.frame(run)
    assert len(classes.frame(run)) == 4


def test_accuracy_of_each_class(classified):
    data = classes.frame(classified, ["resnet50"]).set_index("class_name")
    assert data.top1_pct.to_dict() == pytest.approx(
        {"cross_checks": 200 / 3, "disc_dots": 100, "disc_rings": 100, "star_rings": 100}
    )


def test_mean_precision_is_the_ap_of_the_record(detected):
    folder, file = detected
    data = pr.frame(folder, ["faster_rcnn_resnet50"], annotations=file)
    metrics = sdabench.records(folder).set_index(["model", "metric"]).value_pct["faster_rcnn_resnet50"]
    means = data.groupby("iou").precision_pct.mean()
    assert means.to_dict() == pytest.approx(
        {"0.50": metrics["ap50_pct"], "0.75": metrics["ap75_pct"], "0.50:0.95": metrics["ap_pct"]}
    )
    assert len(data) == 3 * 101


def test_errors_of_detectors_are_counted(detected):
    folder, file = detected
    data = errors.frame(folder, ["faster_rcnn_resnet50"], annotations=file).set_index("type")
    counts = data.errors.dropna().to_dict()
    # Images 3, 6 and 9 have a wrong category; the large objects of 4 and 8 are missed.
    assert counts == {
        "classification": 3, "localization": 0, "both": 0, "duplicate": 0, "background": 0, "missed": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("octaves", "no predictions of resnet50"),
        ("confusion", "no predictions of resnet50"),
        ("reliability", "no predictions of resnet50"),
        ("classes", "no predictions of resnet50"),
        ("pr", "no record of boxes"),
        ("errors", "no record of boxes"),
    ],
)
def test_runs_without_predictions_are_one_error(kind, words, tmp_path):
    RecordStore(tmp_path).append([trained("resnet50", 76.0)])
    assert_error(program("plot", kind, tmp_path, "-o", tmp_path / "x.svg"), 2, words)
    assert not (tmp_path / "x.svg").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["parto", "-o", "x.svg"], "did you mean pareto"),
        (["pareto", "-o", "x.jpg"], "use .svg, .pdf, .png, .csv"),
        (["pareto", "--table", "detections", "-o", "x.svg"], "did you mean detection"),
        (
            ["pareto", "--y", "ap_pct", "-o", "x.svg"],
            "classification-multiscale has no ap_pct; use top1_pct, top5_pct",
        ),
        (["pareto", "--x", "latency", "-o", "x.svg"], "needs --bench FILE"),
        (["pareto", "--x", "latency", "--table", "detection", "-o", "x.svg"], "bench times classifiers only"),
        (["pareto", "--models", "resnet5", "-o", "x.svg"], "did you mean resnet50"),
        (["claims", "--metric", "top1", "-o", "x.svg"], "did you mean top1_pct"),
        (["claims", "", "-o", "x.svg"], "the name is empty"),
        (["curves", "-o", "x.svg"], "RUN"),
        (["curves", ".", "-o", "x.svg"], "no run at"),
    ],
)
def test_wrong_usage_is_one_line_and_writes_nothing(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_error(program("plot", *arguments), 2, words)
    assert not list(tmp_path.iterdir())


def test_one_name_is_a_text_and_no_names_are_no_rows(run, classified, detected):
    folder, file = detected
    named = pr.frame(folder, "faster_rcnn_resnet50", annotations=str(file))
    pd.testing.assert_frame_equal(named, pr.frame(folder, ["faster_rcnn_resnet50"], annotations=file))
    assert set(classes.frame(str(classified), "sda_*").model) == {"sda_resnet86"}
    assert set(curves.frame(run, quantities="learning_rate").quantity) == {"learning_rate"}
    assert set(claims.frame(models="sda_resnet86", metrics="top5_pct").metric) == {"top5_pct"}
    empty = (classes.frame(classified, []), curves.frame(run, []), curves.frame(run, quantities=[]))
    assert [len(frame) for frame in empty] == [0, 0, 0]
    for module in (claims, pareto):
        with pytest.raises(NothingMeasuredError):
            module.frame(models=[])


def test_wrong_arguments_of_frames_are_usage_errors(classified, detected):
    with pytest.raises(UsageError, match="0 bins cannot hold the images"):
        reliability.frame(classified, bins=0)
    with pytest.raises(UsageError, match="unknown IoU type 'box'; did you mean bbox"):
        pr.frame(detected[0], iou_type="box")
    with pytest.raises(UsageError, match="7 is not a name"):
        classes.frame(classified, 7)
    with pytest.raises(UsageError, match="unknown x 'cost'; use params, flops, latency"):
        pareto.frame(x="cost")


def test_nothing_to_draw_is_an_error():
    with pytest.raises(NothingMeasuredError, match="resnet86_g8|both FLOPs"):
        pareto.frame(models=["resnet86_g8"])


def test_the_data_are_written_as_csv(tmp_path):
    done = program("plot", "claims", "-o", tmp_path / "claims.csv")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    read = pd.read_csv(tmp_path / "claims.csv", dtype={n: c.dtype for n, c in claims.COLUMNS.items()})
    pd.testing.assert_frame_equal(read, claims.frame())


@pytest.mark.parametrize("name", ["中文", "\\udcff\n\x1b[1m", "$x^{$", "a" * 300])
@pytest.mark.parametrize("suffix", [".svg", ".pdf", ".png"])
def test_any_name_of_a_class_is_drawn(classified, name, suffix, tmp_path):
    data = classes.frame(classified, ["resnet50"]).replace({"class_name": {"star_rings": name}})
    theme = THEMES[0]
    figure = classes.draw(data, theme)
    save(figure, tmp_path / f"x{suffix}", theme)
    assert max(len(label.get_text()) for label in figure.axes[0].get_yticklabels()) <= 24


def test_records_that_cannot_be_compared_are_left_out_with_a_note(classified, tmp_path):
    done = program("plot", "pareto", classified, f"{classified}/", "-o", tmp_path / "pareto.csv")  # once
    assert done.returncode == 0
    assert "2 of 2 records are left out (resnet50, sda_resnet86)" in done.stderr
    assert set(pd.read_csv(tmp_path / "pareto.csv").source) == {"paper"}


def test_a_file_that_cannot_be_written_is_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    assert_error(program("plot", "claims", "-o", tmp_path / "file" / "x.svg"), 1, "name another -o")


def test_records_have_labels_of_their_own():
    def stored(model, folder, seed=0, **changes):
        return StoredRecord(record(model=model, seed=seed, **changes), Path(folder))

    alike = [
        stored("resnet50", "/a/run"),
        stored("resnet50", "/b/run"),
        stored("resnet50", "/b/run", weights=Weights(source="x.pth", sha256="c" * 64)),
        stored("senet50", "/a/run", seed=1),
        stored("mask_rcnn_resnet50", "/c", task="detection"),
        stored("faster_rcnn_resnet50", "/c", task="detection"),
    ]
    labels = _labels(alike)
    assert len(set(labels)) == len(labels)
    assert labels[3] == "SENet-50"
    assert labels[5] == "ResNet-50, faster_rcnn_resnet50"
    assert _labels(alike[:2]) == ["ResNet-50 (a/run)", "ResNet-50 (b/run)"]


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["runs/a/run", "runs/b/run"], ["a/run", "b/run"]),
        (["/x/a", "b", "b"], ["a", "b", "b"]),
        (["/run", "/a/run"], ["run", "a/run"]),
        (["a/x/y", "./b/../b/x/y", "c"], ["a/x/y", "b/x/y", "c"]),
        (["first" + "-" * 40 + "one", "b"], ["first-------…--------one", "b"]),
        (["-" * 20 + "a" + "-" * 20, "-" * 20 + "b" + "-" * 20],
         ["-" * 20 + "a" + "-" * 20, "-" * 20 + "b" + "-" * 20]),
    ],
)  # fmt: skip
def test_folders_are_named_by_the_shortest_ends_that_differ(folders, names):
    assert folder_names([*map(Path, folders)]) == names


def test_measured_costs_are_those_of_their_verdicts(tmp_path):
    """The paper's 4.12 of ResNet-50 counts more than convolutions and linear layers, as ptflops does."""
    RecordStore(tmp_path).append([trained("resnet50", 76.1), trained("sda_resnet86", 78.7)])
    data = pareto.frame(records=tmp_path)
    points = data.set_index(["source", "model"]).x
    assert points["paper", "resnet50"] == 4.12
    table = sdabench.table("classification-multiscale", tmp_path).reset_index().set_index("model")
    for model in ("resnet50", "sda_resnet86"):
        assert points["measured", model] == table.loc[model, ("flops_g", "measured")]
    assert points["measured", "sda_resnet86"] == pytest.approx(3.879993344)  # convolutions and linear layers
    assert set(data.model[data.convention == "total"]) == {"resnet50"}
    assert pareto.describe(data).endswith("Measured ResNet-50: counted under total.")
    assert "counted under" not in pareto.describe(pareto.frame(records=tmp_path, x="params"))


def test_the_front_is_that_of_the_paper_however_many_points_are_measured(tmp_path):
    before = pareto.frame()
    RecordStore(tmp_path).append(
        [trained(model, 79.0 + place) for place, model in enumerate(("resnet50", "senet50", "sda_resnet86"))]
    )
    after = pareto.frame(records=tmp_path)
    fronts = []
    for data in (before, after):
        lines = pareto.draw(data).axes[0].lines
        fronts += [line.get_xydata().tolist() for line in lines if line.get_drawstyle() == "steps-post"]
    assert fronts[0] == fronts[1]
    assert len(fronts[0]) == 7
    assert "Gray line: Pareto front of the printed values." in pareto.describe(after)


@pytest.mark.parametrize("table", ["classification-multiscale", "classification-attention"])
def test_a_difference_of_two_tables_is_drawn_for_each(table):
    """Both tables print ResNet-50 and SDA-ResNet-86, and EPSANet-86 and SDA-EPSANet-86."""
    data = claims.frame(table_name=table, metrics="top1_pct").set_index("model")
    assert set(data.table) == {table}
    assert data.paper["sda_resnet86"] == pytest.approx(3.56)
    assert data.partner["sda_epsanet86"] == "epsanet86"
    assert not claims.frame(metrics="top1_pct")[["model", "partner"]].duplicated().any()


def test_the_documentation_shows_the_pictures_that_its_script_draws():
    images = Path(__file__).parents[2] / "docs/images"
    shown = re.findall(r"images/(\w+)\.png", (images.parent / "figures.md").read_text())
    script = (images.parent / "make_figures.py").read_text()
    assert shown == re.findall(r'"(\w+)": \w+', script)
    for name in shown:
        with Image.open(images / f"{name}.png") as image:
            assert image.width == 3.4 * 300
