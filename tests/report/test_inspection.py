"""Frames, tables and figures of inspections."""

import pytest

import sdabench
from sdabench.errors import DataError, NothingMeasuredError, UsageError
from sdabench.report import columns
from sdabench.report.figures import depth_by_size, depth_weights, receptive_fields
from sdabench.report.figures.style import Theme, fix_layout, save
from sdabench.tools.inspect import view
from tests.helpers.inspections import inspected, two_runs

FIGURES = [depth_weights, depth_by_size, receptive_fields]
KINDS = ["depth_weights", "depth_by_size", "depth_slopes", "radius_slopes", "receptive_fields"]


@pytest.mark.parametrize("kind", KINDS)
def test_columns_and_dtypes_are_those_documented(kind, tmp_path):
    two_runs().save(tmp_path)
    data = getattr(sdabench, kind)(tmp_path)
    assert len(data)
    documented = getattr(columns, kind.upper())
    assert data.dtypes.map(str).to_dict() == {name: each.dtype for name, each in documented.items()}
    assert data.equals(getattr(sdabench, kind)(two_runs()))


def test_frames_have_percentages_of_the_image():
    data = sdabench.receptive_fields(two_runs())
    assert data.area_20_pct.unique() == pytest.approx([1.0])
    assert (
        data[data.block.isna() & data.constant_weights & (data.stage == "layer1")].radius_px.tolist()
        == [5.0] * 4
    )


def test_tables_average_over_runs():
    inspection = two_runs()
    weights = view.depth_weights_sheet(sdabench.depth_weights(inspection))
    assert len(weights.rows) == 2 * 4  # untrained and trained, two stages of two blocks
    slopes = view.depth_slopes_sheet(sdabench.depth_slopes(inspection))
    texts = [[cell.text for cell in row] for row in slopes.rows]
    assert [
        "sda_resnet_narrow",
        "trained",
        "layer1",
        "+0.0300",
        "−0.0971 to +0.1571",
        "2 runs",
        "+1.00",
    ] in texts
    assert not [row for row in texts if "images" in row[5]]
    sizes = view.depth_by_size_sheet(sdabench.depth_by_size(inspection))
    assert [heading.text for heading in sizes.headings[3:]] == ["1/8–1/4", "1/4–1/2", "1/2–1"]
    fields = view.receptive_fields_sheet(sdabench.receptive_fields(inspection))
    first = [cell.text for cell in fields.rows[0]]
    assert first == [
        "sda_resnet_narrow",
        "untrained",
        "layer1",
        "yes",
        "4.0–6.0",
        "20.0",
        "1.0",
        "2.0",
        "5.0",
        "40.0",
    ]


@pytest.mark.parametrize("module", FIGURES)
@pytest.mark.parametrize("theme", [Theme(), Theme(dark=True, columns="two")])
def test_figures_stay_on_their_page_and_are_reproducible(module, theme, tmp_path):
    networks = [inspected(0.01, "untrained", 1), *two_runs().networks, inspected(model="resnet_narrow")]
    data = module.frame(two_runs().updated(networks))
    for name in "ab":
        save(module.draw(data, theme), tmp_path / f"{name}.svg", theme)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    figure = module.draw(data, theme)
    drawn_on, (width, height) = figure.get_tightbbox(fix_layout(figure)), figure.get_size_inches()
    assert min(drawn_on.x0, drawn_on.y0, width - drawn_on.x1, height - drawn_on.y1) >= -0.01
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()][:2] == [
        "Narrow SDA-ResNet, untrained",
        "Narrow SDA-ResNet, trained",
    ]


def test_untrained_networks_differ_from_trained_ones_without_their_color():
    figure = receptive_fields.draw(receptive_fields.frame(two_runs()))
    looks = {handle.get_label(): handle.get_linestyle() for handle in figure.legends[0].legend_handles}
    assert len(set(looks.values())) == 3  # untrained, trained, and through depth weights


@pytest.mark.parametrize("module", FIGURES)
def test_nothing_to_draw_is_an_error(module):
    network = inspected().model_copy(update={"blocks": (), "sizes": (), "depths": {}, "fields": ()})
    with pytest.raises(NothingMeasuredError, match="inspect a network"):
        module.draw(module.frame(two_runs().model_copy(update={"networks": (network,)})))


def test_missing_and_damaged_inspections_are_errors(tmp_path):
    with pytest.raises(UsageError, match="sdabench inspect NAME"):
        sdabench.depth_weights(tmp_path)
    (tmp_path / "inspection.json").write_text("{}x")
    with pytest.raises(DataError, match="is damaged"):
        sdabench.depth_weights(tmp_path)
    with pytest.raises(UsageError, match="unknown model 'resnet50'"):
        depth_weights.frame(two_runs(), "resnet50")


def test_profiles_of_earlier_versions_are_ignored(tmp_path):
    path = two_runs().save(tmp_path)
    path.write_text(path.read_text().replace('"radius":', '"profile": [0.5, 1.0], "radius":'))
    assert sdabench.receptive_fields(tmp_path).equals(sdabench.receptive_fields(two_runs()))
