"""The studies on the page: what was measured of their arms, their tests and their decisions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sdabench.claims.studies import judged_in
from sdabench.records.studies import StudyFolder, shipped_study
from sdabench.registry.studies import registry_state, study_names
from sdabench.report.sheet import Sheet
from sdabench.report.studies import arms_sheet, decision_text, results_sheet
from sdabench.tools.report.grid import Grid


@dataclass(frozen=True)
class StudySection:
    """A study in one folder; ``decision`` is one sentence."""

    id: str
    title: str
    decision: str
    grids: Sequence[Grid]


def study_sections(folders: Sequence[Path]) -> list[StudySection]:
    """Show the studies in the folders of runs; without any, those in ``results/``.

    Raises:
        DataError: a file of a study is damaged.
    """
    found = [StudyFolder(folder) for folder in folders] or [shipped_study(name) for name in study_names()]
    with_study = [folder for folder in found if folder.has_study]
    return [_section(folder, f"study-{number}") for number, folder in enumerate(with_study, start=1)]


def _section(folder: StudyFolder, name: str) -> StudySection:
    judged, declaration = judged_in(folder), folder.read().declaration
    digest = f"Digest {declaration.sha256[:8]}, in {folder.path}. {registry_state(declaration)}"
    return StudySection(
        id=name,
        title=f"{judged.study.name}: {judged.study.title}",
        decision=decision_text(judged),
        grids=list(_grids(name, arms_sheet(judged), results_sheet(judged, digest))),
    )


def _grids(name: str, arms: Sheet, results: Sheet) -> Iterator[Grid]:
    yield Grid(f"{name}-arms", replace(arms, title="Arms"))
    names = ["Primary tests", "Secondary tests"][: len(results.groups)]
    yield Grid(f"{name}-tests", results, names)
