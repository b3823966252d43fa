"""What several tests need."""

import os
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

from PIL import Image

from sdabench import complexity
from sdabench.complexity import Count
from sdabench.data.imagenet import class_indices
from sdabench.models import list_models

FACTS = Path(__file__).parent / "facts"
BUILT = list_models()
SAMPLE = Path(
    os.environ.get("SDABENCH_IMAGENET_SAMPLE", Path(__file__).parents[2] / "shared/data/imagenet-sample")
)


@cache
def count(name: str) -> Count:
    """A count at 224x224, once a session."""
    return complexity.count(name)


def sdabench(
    *arguments: object, interpreter: tuple[str, ...] = (), **options: object
) -> subprocess.CompletedProcess[str]:
    """The real program in a process of its own."""
    command = [sys.executable, *interpreter, "-m", "sdabench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]


def stopped(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """What a process that leads its group says when a signal stops it, with exit code 75."""
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal sends it
    else:
        process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 75, stderr
    assert "Traceback" not in stderr
    assert stderr.count("Stopped by a signal.") == 1
    return stderr


def make_imagenet(root: Path, classes: int = 3, images: int = 2) -> Path:
    """A small tree of real JPEG files: val/<wnid>/*.JPEG for every 300th class."""
    for index, wnid in enumerate(list(class_indices())[::300][:classes]):
        folder = root / "val" / wnid
        folder.mkdir(parents=True)
        for number in range(images):
            hue = Image.linear_gradient("L").rotate(40 * index + 20 * number).resize((96 + 10 * number, 80))
            Image.merge("RGB", (hue, hue.transpose(Image.Transpose.FLIP_LEFT_RIGHT), hue)).save(
                folder / f"{wnid}_{number}.JPEG", quality=90
            )
    return root
