"""What several tests need."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile

from PIL import Image
from pycocotools import mask as coco_mask

from sdabench import complexity
from sdabench.cli import main
from sdabench.complexity import Count
from sdabench.data.imagenet import class_indices
from sdabench.errors import ExitCode, SdabenchError
from sdabench.models import list_models
from sdabench.training.distributed import joined
from sdabench.training.signals import SIGNALS, handle_signals

FACTS = Path(__file__).parent / "facts"
DETECTORS = list_models("*_rcnn_*")
NETWORKS = [name for name in list_models() if name not in DETECTORS]  # for classification
SAMPLE = Path(
    os.environ.get("SDABENCH_IMAGENET_SAMPLE", Path(__file__).parents[2] / "shared/data/imagenet-sample")
)
COCO_SAMPLE = Path(
    os.environ.get("SDABENCH_COCO_SAMPLE", Path(__file__).parents[2] / "shared/data/coco-sample")
)


@cache
def count(name: str) -> Count:
    """A count at the usual input, once a session."""
    return complexity.count(name)


def sdabench(
    *arguments: object, interpreter: tuple[str, ...] = (), **options: object
) -> subprocess.CompletedProcess[str]:
    """The real program in a process of its own: a fresh one if there are options for it.

    Otherwise one that begins in the middle of this one, and need not import torch anew.
    """
    command = [sys.executable, *interpreter, "-m", "sdabench", *map(str, arguments)]
    if not interpreter and not options:
        return _in_the_middle(command)
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]


def _in_the_middle(command: list[str]) -> subprocess.CompletedProcess[str]:
    def begin() -> None:
        for stream, file in enumerate((os.devnull, out.name, err.name)):
            os.dup2(os.open(file, os.O_RDONLY if stream == 0 else os.O_WRONLY), stream)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        sys.argv = ["sdabench", *command[3:]]
        warnings.resetwarnings()
        status: object = 1
        try:
            main()
        except SystemExit as end:
            status = end.code
        except BaseException:
            traceback.print_exc()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(int(str(status)))

    with NamedTemporaryFile() as out, NamedTemporaryFile() as err:
        process = multiprocessing.get_context("fork").Process(target=begin)
        process.start()
        process.join()
        said = [Path(file.name).read_text() for file in (out, err)]
    assert process.exitcode is not None
    return subprocess.CompletedProcess(command, process.exitcode, *said)


def stopped(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """What a process that leads its group says when a signal stops it, with exit code 75."""
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal sends it
    else:
        process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 75, stderr
    assert "Traceback" not in stderr, stderr
    assert stderr.count("Stopped by a signal.") == 1
    return stderr


def forked(work: Callable[[], object], processes: int = 1) -> list[multiprocessing.Process]:
    """Processes that are begun in the middle of this one, and belong together as torchrun's do.

    They import nothing anew, so that hundreds of them can be begun. Each ends with its exit code of ``main``.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    context = multiprocessing.get_context("fork")

    def begin(rank: int) -> None:
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(processes), "LOCAL_RANK": str(rank)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.setpgid(0, 0)
        handle_signals()
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            with joined("cpu"):
                work()
        except KeyboardInterrupt:
            os._exit(ExitCode.STOPPED)
        except SdabenchError as error:
            print(type(error).__name__, error, file=sys.stderr, flush=True)
            os._exit(error.exit_code)
        os._exit(0)

    begun = [context.Process(target=begin, args=(rank,)) for rank in range(processes)]
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # one that comes before it is handled waits
    try:
        for process in begun:
            process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    return begun


def ended(processes: list[multiprocessing.Process]) -> list[int]:
    """Their exit codes."""
    for process in processes:
        process.join(120)
        assert process.exitcode is not None, "it hangs"
    return [process.exitcode for process in processes]


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


def make_coco(root: Path) -> Path:
    """A small COCO folder of real JPEG files, val2017 alone: what the real one has, and has seldom.

    Image 7 has two polygons and a crowd in lengths of runs, 21 only a crowd in compressed ones, 22 is
    grey and has nothing, 40 has a box of no area. Categories have ids with gaps, out of order.
    """
    (root / "val2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    for number in (7, 21, 22, 40):
        picture = Image.linear_gradient("L").rotate(number).resize((60, 50))
        picture.convert("L" if number == 22 else "RGB").save(root / f"val2017/{number:012d}.jpg")
    square = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]
    runs = {"size": [50, 60], "counts": [1000, 50, 1950]}
    compressed = coco_mask.frPyObjects(runs, 50, 60)["counts"].decode()
    annotations = [
        (9, 40, 90, [5.0, 5.0, 8.0, 0.0], 0.0, 0, [[5.0, 5.0, 5.0, 5.0, 13.0, 5.0, 13.0, 5.0]]),
        (1, 7, 90, [10.0, 10.0, 20.0, 20.0], 400.0, 0, square),
        (2, 7, 1, [0, 40, 10, 10], 100, 0, [[0, 40, 10, 40, 10, 50, 0, 50], [1, 1, 2, 1, 2, 2]]),
        (3, 7, 90, [20.0, 0.0, 1.0, 50.0], 50.0, 1, runs),
        (4, 21, 1, [20.0, 0.0, 1.0, 50.0], 50.0, 1, {"size": [50, 60], "counts": compressed}),
    ]
    fields = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation")
    content = {
        "info": {"description": "a test"},
        "images": [
            {"id": number, "file_name": f"{number:012d}.jpg", "height": 50, "width": 60}
            for number in (40, 7, 22, 21)
        ],
        "annotations": [dict(zip(fields, one, strict=True)) for one in annotations],
        "categories": [{"id": 90, "name": "kite"}, {"id": 7, "name": "cat"}, {"id": 1, "name": "person"}],
    }
    (root / "annotations/instances_val2017.json").write_text(json.dumps(content))
    return root
