"""Store a study and its measurements in an output folder."""

import json

import pytest

from sdabench.errors import DataError, RefusedError, UsageError
from sdabench.records.studies import StudyFolder, export_study
from sdabench.registry.studies import FrozenStudy
from tests.helpers.studies import declared, measured


def frozen(**changes):
    return FrozenStudy(study=declared(**changes), recipe={"epochs": 2}, networks={"learned": "a"})


def test_a_folder_keeps_one_version_of_a_study(tmp_path):
    folder, study = StudyFolder(tmp_path / "out"), frozen()
    folder.freeze(study, pilot=False)
    folder.freeze(frozen(title="Other words"), pilot=False)
    assert folder.read().declaration == study
    with pytest.raises(RefusedError, match="holds another version of the study tiny .*another --output"):
        folder.freeze(frozen(alpha=0.01), pilot=False)
    with pytest.raises(RefusedError, match="holds the study tiny, not other"):
        folder.freeze(frozen(name="other"), pilot=False)
    with pytest.raises(RefusedError, match="with the seeds of the study, not with pilot seeds"):
        folder.freeze(study, pilot=True)


def test_an_edited_study_file_is_an_error(tmp_path):
    folder = StudyFolder(tmp_path)
    folder.freeze(frozen(), pilot=False)
    path = tmp_path / "study.json"
    content = json.loads(path.read_text())
    content["declaration"]["study"]["alpha"] = 0.4
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="was edited"):
        folder.read()
    path.write_text("{")
    with pytest.raises(DataError, match="damaged"):
        folder.read()
    with pytest.raises(UsageError, match="holds no study"):
        StudyFolder(tmp_path / "missing").read()


def test_the_last_measurement_of_a_training_counts(tmp_path):
    folder = StudyFolder(tmp_path)
    first, other = measured("learned", 0, depth_slope=1.0), measured("learned", 1, depth_slope=2.0)
    folder.append([first, other, measured("learned", 0, study_sha256="1" * 64, depth_slope=9.0)])
    folder.append([measured("learned", 0, depth_slope=3.0)])
    found = {each.seed: each.values["depth_slope"] for each in folder.measurements("0" * 64)}
    assert found == {0: 3.0, 1: 2.0}


def test_an_export_overwrites_nothing_else(tmp_path):
    folder, other = StudyFolder(tmp_path / "out"), StudyFolder(tmp_path / "other")
    study = frozen()
    folder.freeze(study, pilot=False)
    folder.append([measured("learned", 0, study.sha256, depth_slope=1.0)])
    with pytest.raises(UsageError, match="is the folder of the study itself"):
        export_study(folder, StudyFolder(tmp_path / "other" / ".." / "out"))
    other.path.mkdir()
    (other.path / "measurements.jsonl").write_text("keep")
    with pytest.raises(RefusedError, match=r"has a measurements\.jsonl of no study; name another folder"):
        export_study(folder, other)
    assert (other.path / "measurements.jsonl").read_text() == "keep"
    assert export_study(folder, StudyFolder(tmp_path / "copy")) == export_study(
        folder, StudyFolder(tmp_path / "copy")
    )
