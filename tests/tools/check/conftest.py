from pathlib import Path

import pytest

from tests.helpers.gate import check, tiny_in


@pytest.fixture
def golden_folder(tmp_path: Path, tiny: str) -> Path:
    """Golden counts and outputs of a small network."""
    folder = tmp_path / "golden"
    check("counts", "outputs", *tiny_in(folder, "--update"), rc=0)
    return folder
