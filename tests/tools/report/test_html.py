"""The HTML of the report page, without a browser."""

import re
from base64 import b64encode
from collections import Counter
from hashlib import sha256
from html.parser import HTMLParser

import pytest

import sdabench
from sdabench.records.store import RecordStore
from sdabench.registry import load_registry
from sdabench.report.cells import signed
from sdabench.tools.report.answer import Answer, outcome_counts
from sdabench.tools.report.page import make_page
from sdabench.tools.report.view import to_html
from tests.helpers.hostile import HOSTILE
from tests.helpers.program import assert_error
from tests.helpers.program import sdabench as run_program
from tests.helpers.records import DATASET, record, trained, training


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
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert [name for name, number in Counter(ids).items() if number > 1] == []
    for _, attributes in parsed.tags:
        for key in ("popovertarget", "aria-labelledby"):
            assert attributes.get(key, ids[0]) in ids
        if attributes.get("href", "").startswith("#"):
            assert attributes["href"][1:] in ids


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
    before = write_run(tmp_path / "before", record(), record(model="senet50"))
    after = write_run(tmp_path / "after", record(metrics={"top1_pct": 76.0, "top5_pct": 93.0}, seed=1))
    parsed = Tables(to_html(make_page([before, after])))
    rows = parsed.tables["run-differences"][1:]
    assert [row[1:7] for row in rows] == [
        ["top-1", "run 2 − run 1", "75.30", "76.00", "+0.70", "–"],
        ["top-5", "run 2 − run 1", "92.50", "93.00", "+0.50", "–"],
    ]
    assert "resnet50: not the same images" in "".join(parsed.texts)


def test_trainings_of_two_runs_are_compared_with_their_seeds(tmp_path):
    folders = []
    for name, gain in (("before", 0.0), ("after", 0.5)):
        dataset = DATASET.model_copy(update={"fingerprint_sha256": "f" * 64})
        trainings = [trained("resnet50", 75 + gain + seed / 10, seed, dataset=dataset) for seed in range(3)]
        folders.append(write_run(tmp_path / name, *trainings))
    [row] = Tables(to_html(make_page(folders))).tables["run-differences"][1:]
    assert row[3:6] == ["75.10", "75.60", "+0.50"]
    assert row[7] == "trainings, paired"
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
    assert_error(run_program("report", "-o", records), 2, "records.jsonl", "such as report.html")
    assert records.read_text() == "{}\n"


def test_command_prints_the_answer(tmp_path):
    target = tmp_path / "page.html"
    result = run_program("report", "-o", target)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Of ")
    assert f"Wrote {target}" in result.stdout
    assert target.stat().st_size < 5e6
