from pathlib import Path

import pytest

from sdabench.data.synthetic.classification import ClassificationPlan, write_classification
from tests.support import make_coco, make_imagenet


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    """Three classes of two images each, generated."""
    return make_imagenet(tmp_path / "imagenet")


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """COCO's layout with a validation split of four images, generated."""
    return make_coco(tmp_path / "coco")


@pytest.fixture(scope="session")
def textures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated dataset: two classes, five and two images of each, of 32 pixels."""
    folder = tmp_path_factory.mktemp("synthetic") / "textures"
    write_classification(folder, ClassificationPlan(2, 5, 2, 32))
    return folder
