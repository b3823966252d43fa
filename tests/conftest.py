from pathlib import Path

import pytest
import torch

from tests.support import make_imagenet

torch.set_num_threads(2)


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    """Three classes of two images each, generated."""
    return make_imagenet(tmp_path / "imagenet")
