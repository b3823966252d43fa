import json

import pytest

from sdabench.data.synthetic.detection import DetectionPlan, write_detection
from tests.helpers.coco_cases import SIZE


@pytest.fixture
def write(tmp_path):
    """Return a function that writes annotations of images 1 and 2 and categories 3 and 8."""

    def write_file(*objects):
        path = tmp_path / "instances_val2017.json"
        content = {
            "images": [
                {"id": number, "file_name": f"{number}.jpg", "height": SIZE, "width": SIZE}
                for number in (1, 2)
            ],
            "categories": [{"id": 8, "name": "dog"}, {"id": 3, "name": "cat"}],
            "annotations": [{"id": number, **one} for number, one in enumerate(objects, start=1)],
        }
        path.write_text(json.dumps(content))
        return path

    return write_file


@pytest.fixture(scope="session")
def generated(tmp_path_factory):
    """Generate a detection dataset and return its annotation file."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    write_detection(folder, DetectionPlan(categories=4, train=1, val=24, image_size=160))
    return folder / "annotations" / "instances_val2017.json"
