"""The HTML of the report page, without a browser."""

import re
from base64 import b64encode
from collections import Counter
from hashlib import sha256
from html.parser import HTMLParser

import altair
import pandas as pd
import pytest

import sdabench
from sdabench.records.store import RecordStore
from sdabench.registry import load_registry
from sdabench.registry.studies import frozen, load_study
from sdabench.report.cells import signed
from sdabench.report.figures import pareto
from sdabench.report.figures.style import Theme
from sdabench.tools.report import charts, run_figures, runs
from sdabench.tools.report.answer import Answer, outcome_counts
from sdabench.tools.report.differences import differences_grid
from sdabench.tools.report.page import make_page
from sdabench.tools.report.view import to_html
from tests.helpers.hostile import HOSTILE
from tests.helpers.inspections import two_runs
from tests.helpers.program import assert_error
from tests.helpers.program import sdabench as run_program
from tests.helpers.records import (
    DATASET,
    record,
    trained,
    training,
    write_classified,
    write_detected,
    write_training,
)
from tests.helpers.studies import write_measured, write_study_plugin


class Tables(HTMLParser):
    """Collect ids, tags with their attributes, and the rows of each table as lists of texts."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.tables, self.texts = [], {}, []
        self.table, self.cell = None, None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag == "div" and attributes.get("class") == "grid":
            self.table = self.tables.setdefault(attributes["id"], [])
        elif tag == "tr":
            self.table.append([])
        elif tag in ("td", "th"):
            self.table[-1].append("")
            self.cell = tag

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = None

    def handle_data(self, data):
        self.texts.append(data)
        if self.cell:
            self.table[-1][-1] += data


@pytest.fixture(scope="module")
def parsed(shipped_html):
    return Tables(shipped_html)


def test_every_table_has_a_caption_and_scopes(parsed):
    names = [tag for tag, _ in parsed.tags]
    assert names.count("table") == names.count("caption") > 6
    scopes = Counter(attributes.get("scope") for tag, attributes in parsed.tags if tag == "th")
    assert set(scopes) == {"col", "colgroup", "row", "rowgroup"}


def test_ids_are_unique_and_references_lead_to_them(parsed):
    assert_links_lead_somewhere(parsed)


def assert_links_lead_somewhere(parsed):
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert [name for name, number in Counter(ids).items() if number > 1] == []
    for _, attributes in parsed.tags:
        for key in ("popovertarget", "aria-labelledby"):
            assert attributes.get(key, ids[0]) in ids
        if attributes.get("href", "").startswith("#"):
            assert attributes["href"][1:] in ids


@pytest.mark.parametrize("column", ["paper", "measured", "verdict"])
def test_tables_of_the_page_have_no_other_parts(parsed, column):
    for name in load_registry().tables:
        heads = parsed.tables[f"table-{name}"][1]
        assert column in heads
        assert set(heads) == {"paper", "measured", "verdict"}


def test_verdicts_of_trainings_are_explained_by_their_own_meaning(tmp_path):
    values = {"resnet50": 77.0, "sda_resnet86": 83.0}
    trainings = [trained(name, top1 + seed / 10, seed) for name, top1 in values.items() for seed in range(3)]
    page = make_page([write_run(tmp_path / "run", *trainings)])
    notes = [
        note
        for table in page.tables
        for note in table.notes
        if "95 % interval of another training" in dict(note.items)
    ]
    verdicts = {dict(note.items)["Verdict"] for note in notes}
    assert len(verdicts) == 1
    assert verdicts.pop().startswith("better: the printed number is below the 95 % interval")
    [remark] = [each for each in page.comparisons.sheet.notes if each.startswith("contradicted (larger): ")]
    assert remark.endswith("neither confirms a claim nor fails it, and needs an explanation.")


def test_comparisons_name_their_interval_and_how_many_are_printed(tmp_path):
    values = {"resnet50": 75.2, "sda_resnet86": 79.4, "resnet86_g8": 78.9}
    trainings = [trained(name, top1 + seed / 10, seed) for name, top1 in values.items() for seed in range(3)]
    sheet = make_page([write_run(tmp_path / "run", *trainings)]).comparisons.sheet
    assert "95 % PI" in [heading.text for heading in sheet.headings]
    assert any("Measured: 2, 1 of them printed." in note for note in sheet.notes)


def test_answer_states_how_many_accuracies_are_distinct(tmp_path):
    claims = sdabench.claims()
    distinct = claims[claims["convention"].isna()].drop_duplicates(["model", "metric", "paper"])
    run = write_run(tmp_path / "run", *(trained("resnet50", 75 + seed / 10, seed) for seed in range(3)))
    answer = make_page([run]).answers[1]
    assert answer.verdicts.startswith(f"{answer.total - 2} not measured, 2 ")  # in two tables
    assert f"these are {len(distinct)} distinct numbers, 1 of them measured" in answer.rests_on


def test_every_number_of_the_tables_is_in_its_row(parsed):
    for table in load_registry().tables.values():
        rows = [cells for cells in parsed.tables[f"table-{table.name}"] if len(cells) > 5][2:]
        assert len(rows) == len(table.rows)
        for row, cells in zip(table.rows, rows, strict=True):
            for column in table.columns:
                number = row.reported[column.key]
                assert number is None or f"{number:.{column.decimals}f}" in cells, (row.label, column.key)


def test_provenance_lists_every_claim_with_its_verdict(parsed):
    claims = sdabench.claims()
    rows = [cells for cells in parsed.tables["all-numbers"][1:] if len(cells) > 1]
    assert len(rows) == len(claims)
    for cells, claim in zip(rows, claims.itertuples(), strict=True):
        assert cells[6].endswith(claim.verdict)
        assert cells[5] == (claim.convention if isinstance(claim.convention, str) else "–")


def test_answer_counts_the_claims(shipped_html):
    claims = sdabench.claims()
    counted = claims[claims["convention"].notna()]["outcome"]
    holds, opened = (int((counted == outcome).sum()) for outcome in ("holds", "open"))
    assert (
        f"Of {len(counted)} printed sizes and costs, {holds} hold, {opened} are open and none fails."
        in shipped_html
    )


@pytest.mark.parametrize(
    ("outcomes", "sentence"),
    [
        (["holds"] * 2 + ["fails"], "Of 3 claims, 2 hold and 1 fails."),
        (["holds", "open", "unknown"], "Of 3 claims, 1 holds, 1 is open, none fails and 1 is unknown."),
        (["unknown"] * 4, "All 4 claims are unknown: not measured."),
        ([], "The tables print no claims."),
    ],
)
def test_answer_is_a_sentence(outcomes, sentence):
    answer = Answer("x", "claims", outcome_counts(outcomes), "", "")
    assert answer.sentence == sentence
    assert sum(width for *_, width in answer.segments) == pytest.approx(100 if outcomes else 0, abs=0.01)


def write_run(folder, *records):
    RecordStore(folder).append(records)
    return folder


def test_hostile_names_stay_text(tmp_path):
    hostile = record(
        model=HOSTILE,
        recipe={"name": HOSTILE},
        environment={"device": HOSTILE},
        git_revision=HOSTILE,
        created=HOSTILE,
    )
    parsed = Tables(to_html(make_page([write_run(tmp_path / "<b>run", hostile)])))
    images = [attributes["src"] for tag, attributes in parsed.tags if tag == "img"]
    assert all(source.startswith("data:image/svg+xml;base64,") for source in images)
    assert not any(name.startswith("on") for _, attributes in parsed.tags for name in attributes)
    text = "".join(parsed.texts)
    assert "</script><img src=x onerror=alert(1)>\\x1b[31m & \\u202e" in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_content_security_policy_allows_only_the_scripts_of_the_page(shipped_html, parsed):
    [policy] = [
        each["content"] for tag, each in parsed.tags if each.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    scripts = re.findall(r"<script>(.*?)</script>", shipped_html, re.DOTALL)
    for script in scripts:
        assert b64encode(sha256(script.encode()).digest()).decode() in policy
    assert len(scripts) == policy.partition("script-src")[2].partition(";")[0].count("sha256-")
    assert not any(tag in ("link", "iframe", "object", "base") for tag, _ in parsed.tags)


def test_page_is_deterministic_but_for_the_date(shipped_html, monkeypatch):
    newest = max(sdabench.records(["results/smoke.jsonl", "results/smoke-detection.jsonl"])["created"])[:10]
    assert f"{newest}." in shipped_html
    assert to_html(make_page([])) == shipped_html
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    assert to_html(make_page([])) == shipped_html.replace(f"{newest}.</p>", "1970-01-01.</p>")


def test_two_runs_are_compared(tmp_path):
    same = {"dataset": DATASET.model_copy(update={"fingerprint_sha256": "f" * 64})}
    before = write_run(tmp_path / "before", record(**same), record(model="senet50"))
    values = {"top1_pct": 76.0, "top5_pct": 93.0}
    after = write_run(tmp_path / "after", record(metrics=values, seed=1, **same))
    odd = write_run(tmp_path / "odd", record())
    parsed = Tables(to_html(make_page([before, after, odd])))
    rows = parsed.tables["run-differences"][1:3]
    assert [row[1:7] for row in rows] == [
        ["top-1", "run 2 − run 1", "75.30", "76.00", "", "+0.70"],
        ["top-5", "run 2 − run 1", "92.50", "93.00", "", "+0.50"],
    ]
    assert [row[3:6] for row in parsed.tables["run-differences"][3::2]] == [
        ["75.30", "", "75.30"],
        ["", "76.00", "75.30"],
    ]
    assert [row[6] for row in parsed.tables["run-differences"][3:]] == ["–"] * 4
    words = "".join(parsed.texts)
    assert (
        "Without interval, run 2 − run 1 of resnet50: no predictions of resnet50; evaluate it again" in words
    )
    pairs = "run 3 − run 1 of resnet50, run 3 − run 2 of resnet50"
    assert re.search(f"Without interval, {pairs}: not .*the same images", words)


def test_p_values_are_corrected_over_all_networks(tmp_path):
    dataset = DATASET.model_copy(update={"fingerprint_sha256": "f" * 64})
    gains = {"resnet50": 0.5, "senet50": 0.4, "cbam50": 0.0}
    folders = [
        write_run(
            tmp_path / name,
            *(
                trained(model, 75 + other * gain + seed / 10, seed + 10 * other, dataset=dataset)
                for model, gain in gains.items()
                for seed in range(3)
            ),
        )
        for other, name in enumerate(("before", "after"))
    ]
    grid = differences_grid(runs.read_runs(folders), {})
    p_holm = [float(cells[7].text) for cells in grid.sheet.rows]
    alone = [
        sdabench.run_differences([f"{folder}:{model}" for folder in folders])["p"].item() for model in gains
    ]
    assert p_holm == pytest.approx([3 * alone[0], 2 * alone[1], alone[2]], rel=0.05)
    assert any("over 3 pairs of all networks" in note for note in grid.sheet.notes)


def test_trainings_of_two_runs_are_compared_with_their_seeds(tmp_path):
    folders = []
    for name, gain in (("before", 0.0), ("after", 0.5)):
        dataset = DATASET.model_copy(update={"fingerprint_sha256": "f" * 64})
        trainings = [trained("resnet50", 75 + gain + seed / 10, seed, dataset=dataset) for seed in range(3)]
        folders.append(write_run(tmp_path / name, *trainings))
    [row] = Tables(to_html(make_page(folders))).tables["run-differences"][1:]
    assert row[3:6] == ["75.10", "75.60", "+0.50"]
    assert row[9] == "trainings, by seed"
    frame = sdabench.run_differences(list(map(str, folders)))
    assert row[6] == f"{signed(frame['low'].item(), 2)} to {signed(frame['high'].item(), 2)}"


def test_failed_jobs_and_obstacles_are_shown(tmp_path):
    failure = {"kind": "CUDA", "message": "out of memory"}
    failed = record(metrics={}).model_validate(record(metrics={}).model_dump() | {"failure": failure})
    page = make_page([write_run(tmp_path / "run", failed, record(training=training()))])
    html = to_html(page)
    assert "CUDA: out of memory" in html
    assert "CUDA: out of memory" in to_html(make_page([write_run(tmp_path / "failed", failed)]))
    assert "1 job failed" in html


def test_errors_are_one_line(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert_error(run_program("report", empty), 2, "no records in", "--output folder of a run")
    (empty / "records.jsonl").write_text("{damaged}\n")
    assert_error(run_program("report", empty), 4, "records.jsonl, line 1", "restore the file")
    unwritable = tmp_path / "file" / "report.html"
    (tmp_path / "file").write_text("")
    assert_error(run_program("report", "-o", unwritable), 1, "cannot write", "name another file with -o")


def test_a_page_replaces_no_records(tmp_path):
    records = tmp_path / "records.jsonl"
    records.write_text("{}\n")
    assert_error(run_program("report", "-o", records), 2, "records.jsonl", "e.g. report.html")
    assert records.read_text() == "{}\n"


def test_networks_outside_the_registry_are_linked(tmp_path):
    names = ["my net", "answer", "#a[1]*"]
    records = [[record(model=name, seed=seed) for name in names] for seed in range(2)]
    folders = [write_run(tmp_path / name, *each) for name, each in zip("ab", records, strict=True)]
    parsed = Tables(to_html(make_page(folders)))
    assert_links_lead_somewhere(parsed)
    links = [attributes["href"] for tag, attributes in parsed.tags if tag == "a"]
    assert len(set(links)) >= len(names) + len(load_registry().tables)


def test_training_without_records_shows_its_curves(tmp_path):
    write_training(tmp_path / "run" / "training" / "resnet50-0", [3.0, 2.0])
    page = make_page([tmp_path / "run", write_run(tmp_path / "other", record())])
    assert [bool(section.grid) for section in page.runs] == [False, True]
    assert [chart.title for chart in page.runs[0].charts] == ["Training curves"]
    alone = to_html(make_page([tmp_path / "run"]))
    assert "no training of this run was evaluated yet" in alone
    assert "Report of sdabench" in alone


@pytest.mark.parametrize("task", ["classification", "detection"])
def test_figures_of_stored_predictions(tmp_path, monkeypatch, task):
    run, models = (
        tmp_path / "run",
        {"classification": ["resnet50", "senet50"], "detection": ["mask_rcnn_resnet50"]},
    )
    if task == "classification":
        write_classified(run, dict.fromkeys(models[task], 0.9))
        titles = ["Reliability diagram", "Accuracy by class", "Confusion matrix of ResNet-50"]
        titles.append("Confusion matrix of SENet-50")
    else:
        _, annotations = write_detected(run, models[task])
        matched = (
            run_figures.pr.frame(run, annotations=annotations),
            run_figures.errors.frame(run, annotations=annotations),
        )
        monkeypatch.setattr(run_figures.pr, "frame", lambda *_, **__: matched[0])
        monkeypatch.setattr(run_figures.errors, "frame", lambda *_, **__: matched[1])
        titles = ["Precision over recall", "Types of errors"]
    [section] = make_page([run]).runs
    assert [chart.title.removesuffix(f", {task}") for chart in section.charts] == titles
    assert section.left_out == []
    assert all(chart.static.startswith("data:image/svg+xml;base64,") for chart in section.charts)


def test_figures_beyond_the_size_of_the_page_are_named(tmp_path, monkeypatch):
    run = write_classified(tmp_path / "a run", {"resnet50": 0.9})
    monkeypatch.setattr(runs, "MOST_BYTES", 0)
    [section] = make_page([run]).runs
    assert section.charts == []
    assert section.left_out[2].startswith(
        "Confusion matrix of ResNet-50: left out, because the page would be"
    )
    command = section.left_out[2].partition("draw it with: ")[2]
    assert command == f"sdabench plot confusion '{run}' --models resnet50 -o confusion.pdf"


def test_other_predictions_of_the_same_spec_are_drawn_again(tmp_path):
    folders = [
        write_classified(tmp_path / name, {"resnet50": share}) for name, share in (("a", 0.9), ("b", 0.6))
    ]
    first, second = make_page(folders).runs
    assert first.charts[0].title == second.charts[0].title
    assert first.charts[0].static != second.charts[0].static


def test_names_with_wildcards_choose_one_network(tmp_path):
    run = write_classified(tmp_path / "run", {"net[1]*": 0.9, "net1b": 0.8})
    [section] = make_page([run]).runs
    assert [chart.title for chart in section.charts[2:]] == [
        "Confusion matrix of net[1]*",
        "Confusion matrix of net1b",
    ]
    assert section.left_out == []


def test_missing_and_damaged_predictions_are_stated(tmp_path):
    run = write_classified(tmp_path / "run", {"resnet50": 0.9, "senet50": 0.8, "cbam50": 0.8})
    (run / "senet50.csv.gz").unlink()
    (run / "resnet50.csv.gz").write_bytes(b"damaged")
    [section] = make_page([run]).runs
    assert [chart.title for chart in section.charts] == ["Confusion matrix of CBAM-50"]
    assert "No figures of the classification by senet50: the run stores no predictions." in section.left_out
    assert any("resnet50.csv.gz" in sentence for sentence in section.left_out)


def test_figures_of_many_records_show_some(tmp_path):
    models = ["resnet50", "senet50", "cbam50", "resnet101", "senet101", "res2net50", "epsanet50", "gsop50"]
    run = write_classified(tmp_path / "run", dict.fromkeys(models, 0.9), images=3)
    [sentence] = make_page([run]).runs[0].left_out
    assert "at most 4 records, and leave out senet101, res2net50, epsanet50 and 1 more" in sentence


def test_no_confusion_matrix_of_many_classes_or_several_trainings(tmp_path):
    run = write_classified(tmp_path / "run", {"resnet50": 0.9, "senet50": 0.9})
    records = RecordStore(run).read()
    large = records[0].model_copy(update={"dataset": DATASET})
    (run / "records.jsonl").unlink()
    RecordStore(run).append([large, records[1], records[1].model_copy(update={"seed": 1})])
    [section] = make_page([run]).runs
    assert not any(chart.title.startswith("Confusion") for chart in section.charts)
    [sentence] = section.left_out
    assert sentence.startswith(
        "No confusion matrices of resnet50, senet50, which have several trainings or more"
    )


def test_earlier_records_of_a_large_run_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "MOST_RECORDS", 4)
    folders = [
        write_run(tmp_path / name, *(trained("resnet50", 70 + seed, seed) for seed in range(3)))
        for name in "ab"
    ]
    parsed = Tables(to_html(make_page(folders)))
    shown = [cells for cells in parsed.tables["run-1-records"] if cells[0] == "resnet50"]
    assert [cells[2] for cells in shown] == ["1", "2"]
    assert "1 earlier record left out, to keep the page small." in parsed.texts


def test_large_page_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr("sdabench.tools.report.command.MOST_BYTES", 1_000_000)
    result = run_program("report", "-o", tmp_path / "page.html")
    assert result.returncode == 0
    assert "larger than 1 MB; name fewer runs" in result.stderr


def test_measured_difference_that_is_not_printed_is_named_so(tmp_path):
    networks = {"sda_resnet86": 79.0, "resnet86_g8": 78.0}  # the paper does not print the control
    run = write_run(
        tmp_path / "run",
        *(trained(model, top1 + seed / 10, seed) for model, top1 in networks.items() for seed in range(3)),
    )
    page = make_page([run])
    forest = next(chart for chart in page.charts if chart.id == "forest")
    data = forest.specs[0]["datasets"].values()
    [row] = [row for rows in data for row in rows if "measured" in row]
    assert row["outcome"] == row["verdict"] == "not printed"
    assert row["below"] == row["place"]  # there is no printed mark above it
    assert row["single_text"] != row["measured_text"].partition("(")[2].rstrip(")")
    rows = Tables(to_html(page)).tables["comparisons"]
    [cells] = [cells for cells in rows if cells[1:2] == ["resnet86_g8 (control)"]]
    assert cells[-1] == "not printed"


def test_charts_follow_the_schema_of_vega_lite():
    for chart in make_page([]).charts:
        for spec in chart.specs:
            altair.Chart.from_dict(spec).to_dict(validate=True)


def test_text_below_a_chart_is_that_of_its_static_figure_which_lacks_it(tmp_path):
    run = write_run(tmp_path / "run", *(trained("resnet50", 75 + seed / 10, seed) for seed in range(3)))
    data = pareto.frame("classification-multiscale", [run])
    [chart] = [each for each in make_page([run]).charts if each.id == "pareto-classification-multiscale"]
    assert chart.text.endswith(pareto.describe(data))
    assert pareto.draw(data).get_supxlabel()
    assert not pareto.draw(data, Theme(captions=False)).get_supxlabel()
    rows = [row for rows in chart.specs[0]["datasets"].values() for row in rows]
    on_front = [row["model"] for row in sorted(rows, key=lambda row: row["x"]) if row["front"]]
    assert on_front == list(pareto.pareto_front(data)["model"])
    assert {row["model"] for row in rows if "measured_x" in row} == {"resnet50"}


def test_static_figures_are_cached_by_all_sources_that_compute_them():
    sources = {line.partition(" ")[0] for line in charts._code()}
    assert {"scoring/coco.py", "report/figures/pr.py", "claims/implied.py", "numpy"} <= sources


def test_thinned_curves_stay_within_the_values_of_a_chart():
    data = pd.DataFrame({"run": [str(number) for number in range(400) for _ in range(300)]})
    steps = charts._steps(data)
    rows = [dict.fromkeys(("run", "group", "seed", "step", "epoch", "value"), step) for step in range(300)]
    thinned = list(charts._thinned(rows, steps))
    assert thinned[-1]["step"] == 299
    assert 400 * len(thinned) <= charts.MAX_VALUES


def test_command_prints_the_answer(tmp_path):
    target = tmp_path / "page.html"
    result = run_program("report", "-o", target)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Of ")
    assert f"Wrote {target}" in result.stdout
    assert target.stat().st_size < 5e6


def test_page_has_the_studies_in_the_folders_of_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("SDABENCH_PLUGINS", str(write_study_plugin(tmp_path / "plugin")))
    write_measured(tmp_path / "run", frozen(load_study("tiny")))
    html = to_html(make_page([tmp_path / "run"]))
    page = Tables(html)
    assert "Decision: supported. Hypothesis: Depth attention helps." in html
    assert ["learned", "sda_small", "4", "90.05 ± 0.21"] in [row[:4] for row in page.tables["study-1-arms"]]
    tests = {row[0]: row for row in page.tables["study-1-tests"]}
    assert tests["accuracy"][1] == "+5.03"
    assert tests["slope"][-1].endswith("supported")


def test_run_has_the_tables_and_figures_of_its_inspection(tmp_path):
    two_runs().save(tmp_path / "inspected")
    html = to_html(make_page([tmp_path / "inspected"]))
    page = Tables(html)
    slopes = page.tables["run-1-depth-slopes"]
    assert [
        "sda_resnet_narrow",
        "trained",
        "layer1",
        "+0.0300",
        "−0.0971 to +0.1571",
        "2 runs",
        "+1.00",
    ] in slopes
    assert {"run-1-depth-by-size", "run-1-depth-weights", "run-1-receptive-fields"} <= page.tables.keys()
    images = {attributes["alt"] for tag, attributes in page.tags if tag == "img"}
    assert {"Attention depth by object size", "Depth weights", "Effective receptive fields"} <= images
    assert "No records: networks were inspected, but not evaluated." in html
