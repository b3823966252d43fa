"""Show inspections as tables."""

import pandas as pd

from sdabench.data.official import plural
from sdabench.report.cells import number, signed
from sdabench.report.figures.names import row_dicts
from sdabench.report.inspection import AREAS
from sdabench.report.sheet import Cell, Heading, Sheet, headings, row

NETWORK = ["model", "state"]
OF_STAGE = ["stage"]


def depth_weights_sheet(data: pd.DataFrame) -> Sheet:
    """Make a table of the frame of :func:`sdabench.depth_weights`; of several runs, means over them."""
    columns = ["mean", "sd", "q05", "median", "q95", "largest_pct"]
    means = _means(data, [*NETWORK, "stage", "block"], columns)
    rows: dict[tuple[str, str], list[list[Cell]]] = {}
    for line in row_dicts(means):
        cells = row(line["model"], line["state"], line["stage"], line["block"])
        cells += row(*(number(line[name], 3) for name in columns[:-1]), number(line["largest_pct"], 1))
        rows.setdefault((line["model"], line["state"]), []).append(cells)
    names = ("block", "mean", "SD of images", "5 %", "median", "95 %", "largest (%)")
    heads = [*headings("network", "weights", "stage"), *headings(*names, numeric=True)]
    notes = [
        f"Over {data['images'].max():,} images and all channels; SD of images: of the mean over channels. "
        "Largest: no block of the stage has a larger weight. Uniform weights are 1/n for n blocks.",
        *_of_runs(data),
    ]
    return Sheet("Depth weights", heads, list(rows.values()), notes)


def depth_by_size_sheet(data: pd.DataFrame) -> Sheet:
    """Make a table of the frame of :func:`sdabench.depth_by_size` with a column for each octave."""
    octaves = sorted(data["octave"].unique())
    sizes = dict(zip(data["octave"], data["size"], strict=True))
    rows: dict[tuple[str, str], list[list[Cell]]] = {}
    means = _means(data, [*NETWORK, *OF_STAGE, "octave"], ["depth"])
    for (model, state, stage), group in means.groupby([*NETWORK, *OF_STAGE], sort=False):
        of_octave = dict(zip(group["octave"], group["depth"], strict=True))
        cells = row(model, state, stage, *(number(of_octave.get(octave), 3) for octave in octaves))
        rows.setdefault((str(model), str(state)), []).append(cells)
    heads = headings("network", "weights", "stage")
    heads += [Heading(sizes[octave], "object size / short side of the image", True) for octave in octaves]
    notes = ["Attention depth is 0 if all weight is on the first block of a stage, and 1 if on the last."]
    return Sheet("Attention depth by object size", heads, list(rows.values()), notes + _of_runs(data))


def depth_slopes_sheet(data: pd.DataFrame) -> Sheet:
    """Make a table of the frame of :func:`sdabench.depth_slopes`; of several runs, their means alone."""
    note = (
        "Slope of attention depth on log2 of the object size. An untrained network can have one, too: "
        "'trained - untrained' is the effect of training. Only an interval over runs includes the spread of "
        "trainings."
    )
    return _slopes_sheet("Attention depth against object size", data, "depth / octave", note)


def radius_slopes_sheet(data: pd.DataFrame) -> Sheet:
    """Make a table of the frame of :func:`sdabench.radius_slopes`; of several runs, their means alone."""
    note = (
        "Slope of log2 of the radius of a stage's receptive field, with constant depth weights, on its "
        "attention depth: what all weight on the last block instead of the first would add. Only an interval "
        "over runs includes the spread of trainings."
    )
    return _slopes_sheet("Receptive field against attention depth", data, "octaves / depth", note)


def _slopes_sheet(title: str, data: pd.DataFrame, unit: str, note: str) -> Sheet:
    rows: dict[str, list[list[Cell]]] = {}
    of_runs = data[data["over"] == "runs"]
    several = set(zip(of_runs["model"], of_runs["state"], strict=True))
    for line in row_dicts(data):
        if line["over"] == "images" and (line["model"], line["state"]) in several:
            continue
        cells = row(
            line["model"],
            line["state"],
            line["stage"],
            signed(line["slope"], 4),
            f"{signed(line['low'], 4)} to {signed(line['high'], 4)}",
            f"{line['images']:,} images" if line["over"] == "images" else f"{line['runs']} runs",
            "-" if line["correlation"] is None else signed(line["correlation"], 2),
        )
        rows.setdefault(line["model"], []).append(cells)
    heads = headings("network", "weights", "stage")
    heads += [
        Heading(unit, numeric=True),
        *headings("95 % interval", "over"),
        Heading("correlation", numeric=True),
    ]
    return Sheet(title, heads, list(rows.values()), [note])


def receptive_fields_sheet(data: pd.DataFrame) -> Sheet:
    """Make a table of the frame of :func:`sdabench.receptive_fields`, with a row for each stage."""
    keys = [*NETWORK, *OF_STAGE, "constant_weights"]
    stages = _means(data[data["block"].isna()], keys, ["radius_px", *AREAS])
    blocks = _means(data[data["block"].notna()], [*keys, "block"], ["radius_px"])
    ranges = {key: group["radius_px"] for key, group in blocks.groupby(keys, sort=False)}
    fused = {(line["model"], line["state"]) for line in row_dicts(stages) if line["constant_weights"]}
    rows: dict[tuple[str, str], list[list[Cell]]] = {}
    for line in row_dicts(stages):
        network = line["model"], line["state"]
        radii = ranges.get(tuple(line[key] for key in keys))
        through = "-" if network not in fused else "no" if line["constant_weights"] else "yes"
        cells = row(*network, line["stage"], through)
        if not blocks.empty:
            cells += row("-" if radii is None else f"{radii.min():.1f}–{radii.max():.1f}")
        cells += row(number(line["radius_px"], 1), *(number(line[name], 1) for name in AREAS))
        rows.setdefault(network, []).append(cells)
    heads = headings("network", "weights", "stage", "through depth weights")
    heads += headings(*["blocks"] * (not blocks.empty), "stage", over="radius (px)", numeric=True)
    heads += headings("20 %", "30 %", "50 %", "99 %", over="area (% of the image)", numeric=True)
    kinds = data[["images", "side", "data"]].drop_duplicates().itertuples(index=False)
    images = " and ".join(
        f"{plural(number, 'image')} of {side}x{side} pixels ({name})" for number, side, name in kinds
    )
    notes = [
        f"Mean absolute gradient of the center of a map, over {images}. Radius: root mean square distance. "
        "Area: that of the square that holds so much of the field.",
        *_of_runs(data),
    ]
    return Sheet("Effective receptive fields", heads, list(rows.values()), notes)


def _means(data: pd.DataFrame, keys: list[str], values: list[str]) -> pd.DataFrame:
    """Average over runs."""
    return data.groupby(keys, sort=False)[values].mean().reset_index()


def _of_runs(data: pd.DataFrame) -> list[str]:
    runs = data.groupby(NETWORK)["run"].nunique()
    return ["Means over runs where a network has several."] if (runs > 1).any() else []
