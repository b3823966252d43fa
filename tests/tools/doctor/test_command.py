"""Run ``sdabench doctor`` as a user does."""

import json
import os

import pytest

from sdabench.tools.doctor.diagnosis import Diagnosis
from sdabench.tools.doctor.probe import Probe
from sdabench.tools.doctor.view import print_diagnosis, summary
from tests.helpers.paths import CHECKOUT
from tests.helpers.program import assert_error, sdabench


def broken_module_env(path, module, code):
    """Return an environment in which a module is replaced by the given code."""
    (path / f"{module}.py").write_text(code)
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(path), str(CHECKOUT)])}


def test_json_schema():
    result = sdabench("doctor", "--json")
    assert result.returncode == 0, result.stdout
    assert result.stderr == ""
    report = json.loads(result.stdout)
    assert set(report) == {"fit", "checks", "explanations"}
    assert report["fit"] is True
    assert {"name", "state", "value", "consequence", "next_step"} == {
        key for each in report["checks"] for key in each
    }
    assert {each["state"] for each in report["checks"]} <= {"ok", "note", "warning"}
    assert {"cause", "effect", "next_step"} == {key for each in report["explanations"] for key in each}


def test_page_lists_sections_and_ends_with_summary(tmp_path):
    result = sdabench("doctor", cwd=tmp_path)
    assert result.returncode == 0
    assert result.stderr == ""
    assert list(tmp_path.iterdir()) == []
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    for section in ("Versions", "Devices", "Arithmetic", "Images", "Storage"):
        assert section in lines
    assert any(line.startswith("ok       torchvision ") for line in lines)
    assert any(line.startswith("Likely causes of a wrong accuracy") for line in lines)
    assert lines[-1].startswith("Fit to measure: ")


def test_unwritable_output_is_a_problem(tmp_path):
    (tmp_path / "runs").write_text("")
    result = sdabench("doctor", cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(CHECKOUT)})
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    [line] = [line for line in result.stdout.splitlines() if line.startswith("problem")]
    assert "cannot write to " in line
    assert result.stdout.rstrip().splitlines()[-1].startswith("Not fit to measure: 1 problem")


@pytest.mark.parametrize(
    ("module", "package", "seen", "left_out"),
    [("torch", "torch", "JPEG decoder", "CPU"), ("PIL", "Pillow", "torchvision", "JPEG decoder")],
)
def test_failed_import_is_a_problem(tmp_path, module, package, seen, left_out):
    words = "libfast.so.13: cannot open shared object file"
    result = sdabench(
        "doctor", "--json", env=broken_module_env(tmp_path, module, f"raise ImportError({words!r})")
    )
    assert result.returncode == 1, result.stderr
    assert result.stderr == ""
    checks = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    assert checks[package]["state"] == "problem"
    assert words in checks[package]["value"]
    assert seen in checks
    assert left_out not in checks


def test_tf32_environment_override_is_a_warning():
    result = sdabench("doctor", "--json", env=os.environ | {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"})
    assert result.returncode == 0
    report = json.loads(result.stdout)
    [check] = [check for check in report["checks"] if check["name"] == "matrix products"]
    assert (check["state"], check["value"]) == ("warning", "float32 with high precision, TF32 on")
    assert report["explanations"][-1]["cause"].startswith("matrix products: ")


@pytest.mark.parametrize(
    ("states", "words"),
    [
        (["ok", "ok"], "Fit to measure: all probes are ok."),
        (["note", "ok", "note", "warning"], "Fit to measure: 1 warning, 2 notes."),
        (["note", "problem", "problem"], "Not fit to measure: 2 problems, 1 note."),
    ],
)
def test_summary_counts_probes_by_state(states, words):
    checks = [Probe(str(index), state, "x") for index, state in enumerate(states)]
    assert summary(Diagnosis({"All": checks}, [])) == words


def test_consequence_and_next_step_follow_the_probe(capsys):
    check = Probe("memory", "warning", "1 GB [of 2]", "Too little.", "Buy more.")
    print_diagnosis(Diagnosis({"Devices": [check]}, []))
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:4] == ["warning  memory  1 GB [of 2]", "Too little.", "→ Buy more."]


def test_next_step_is_one_line_to_paste(capsys):
    step = "pip install --upgrade 'torch>=2.6' " + " ".join(f"'package{number}>=1'" for number in range(20))
    print_diagnosis(Diagnosis({"Versions": [Probe("torch", "problem", "2.0", "", step)]}, []))
    assert f"→ {step}" in [line.strip() for line in capsys.readouterr().out.splitlines()]


def test_help_has_examples():
    assert "Examples:" in sdabench("doctor", "-h").stdout
    assert_error(sdabench("doctor", "--jsn"), 2, "No such option")
