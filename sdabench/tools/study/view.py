"""Print studies and their results."""

from sdabench.claims.studies import find_study, judged_or_empty
from sdabench.cli.options import FRAME_FORMATS, echo_frame, echo_json, show
from sdabench.paths import results_dir
from sdabench.records.studies import shipped_study
from sdabench.registry.studies import registry_state, study_files
from sdabench.report.studies import arms_sheet, decision_text, declaration_sheet, results_sheet, studies_sheet
from sdabench.tools.study.work import refuse_without_measurements


def show_results(text: str, form: str, as_json: bool) -> None:
    """Print the results of a study, or its declaration if it has none; then raise a NothingMeasuredError."""
    folder, declaration = find_study(text)
    judged, state = judged_or_empty(folder, declaration), registry_state(declaration)
    if as_json:
        where = {"folder": folder and str(folder.path), "sha256": declaration.sha256, "registry": state}
        echo_json(judged.as_json() | where)
    elif form in FRAME_FORMATS:
        from sdabench.report.study_frames import tests_frame

        echo_frame(tests_frame(judged), form)
    elif not judged.measurements:
        show(declaration_sheet(declaration, state), form=form)
    else:
        assert folder is not None
        shipped = folder == shipped_study(declaration.study.name)
        place = folder.path.relative_to(results_dir().parent) if shipped else folder.path
        digest = f"Digest {declaration.sha256[:8]}, in {place}. {state}"
        show(arms_sheet(judged), results_sheet(judged, digest), form=form)
    refuse_without_measurements(text, declaration.study, folder, judged.pilot, judged.measurements)


def list_studies(form: str, as_json: bool) -> None:
    """Print the studies of the registry and of plugins, each with what was measured of it."""
    found = []
    for name in study_files():
        folder, declaration = find_study(name)
        judged = judged_or_empty(folder, declaration)
        state = decision_text(judged, brief=True) if judged.measurements else "not measured"
        found.append((declaration, state))
    if as_json:
        echo_json(
            [
                {"study": each.study.name, "title": each.study.title, "sha256": each.sha256, "state": state}
                for each, state in found
            ]
        )
    else:
        show(studies_sheet([(each.study, each.sha256, state) for each, state in found]), form=form)
