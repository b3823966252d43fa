"""Compare the speed of the training data loader with torchvision's, in one run.

    python benchmarks/training_input.py [--data FOLDER] [--images N] [--workers N] [--batch-size N]
        [--crop PIXELS] [--rounds N] [--device cuda] [--output FILE.json]

The peer is torchvision's reference training: ImageFolder, RandomResizedCrop, flip, ToTensor, Normalize, and
torch's DataLoader. sdabench's loader takes the same crops for the same random numbers, which is asserted
first, and leaves normalization and memory format to the device. Both deliver batches, with ``--device cuda``
on the device, where sdabench normalizes them. The score is images per second of CPU time, including that of
DataLoader workers.

FOLDER has ``val/<wnid>/`` or ``<wnid>/`` with images; without it, images are generated. ``Pillow's decoder``
is sdabench's loader if torchvision's JPEG decoder is not available.
"""

import argparse
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from unittest import mock

import torch
from pictures import HEADER, interleave_costs, line, make_pictures, speedup
from timing import output_option, write_record
from torchvision import datasets
from torchvision import transforms as T

from sdabench.data import images as data_images
from sdabench.data.folders import ImageSplit
from sdabench.data.imagenet import read_imagenet
from sdabench.data.images import Batch, TrainingImages, TrainingOrder, decode, seeded
from sdabench.errors import DataError
from sdabench.models.inputs import MEAN, STD
from sdabench.registry.recipe_parts import Augmentation
from sdabench.training.memory import synchronize
from sdabench.training.tasks import load_batches

GOAL = 1.4


def assert_same_crops(split: ImageSplit, augmentation: Augmentation) -> None:
    """Assert that the same random numbers give the same image, to within one pixel value."""
    usual = T.Compose([T.RandomResizedCrop(augmentation.crop), T.RandomHorizontalFlip(), T.PILToTensor()])
    images = TrainingImages(split, augmentation, seed=0)
    for index in range(min(50, len(split.items))):
        decoded = decode(split.root / split.items[index].path)
        assert not isinstance(decoded, DataError)
        with seeded(0, 0, index):
            expected = usual(decoded[0])
        sample = images[0, index]
        assert not isinstance(sample, DataError)
        assert (sample.image.int() - expected.int()).abs().max() <= 1


def run_torchvision(root: Path, options: argparse.Namespace) -> None:
    steps = [
        T.RandomResizedCrop(options.crop),
        T.RandomHorizontalFlip(),
        T.ToTensor(),
        T.Normalize(MEAN, STD),
    ]
    loader = torch.utils.data.DataLoader(
        datasets.ImageFolder(str(root), T.Compose(steps)),
        batch_size=options.batch_size,
        shuffle=True,
        num_workers=options.workers,
        pin_memory=options.device != "cpu",
    )
    for images, labels in loader:
        images.to(options.device, non_blocking=True), labels.to(options.device, non_blocking=True)
    synchronize(torch.device(options.device))


def run_sdabench(split: ImageSplit, augmentation: Augmentation, options: argparse.Namespace) -> None:
    order = TrainingOrder(len(split.items), options.batch_size, epochs=1, seed=0, smallest=1)
    images, pin = TrainingImages(split, augmentation, seed=0), options.device != "cpu"
    with closing(load_batches(images, Batch.of, options.workers, pin, batch_sampler=order)) as batches:
        for batch in batches:
            assert isinstance(batch, Batch)
            if pin:
                batch.to(torch.device(options.device), torch.contiguous_format)
    synchronize(torch.device(options.device))


def with_pillow(work: Callable[[], None]) -> None:
    with mock.patch.object(data_images, "decode_jpeg", return_value=None):
        work()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, help="ImageNet-style folders.")
    parser.add_argument("--images", type=int, default=1000, help="Number of generated images without --data.")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    output_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        if options.data is None:
            make_pictures(Path(made), options.images)
        split = read_imagenet(options.data or Path(made))
        augmentation = Augmentation(crop=options.crop)
        assert_same_crops(split, augmentation)
        sdabench_pass = lambda: run_sdabench(split, augmentation, options)  # noqa: E731
        works = {
            "torchvision": lambda: run_torchvision(split.root, options),
            "sdabench": sdabench_pass,
            "sdabench, Pillow's decoder": lambda: with_pillow(sdabench_pass),
        }
        found = interleave_costs(works, len(split.items), options.rounds)
    rows = {name: speedup(found["torchvision"], costs) for name, costs in found.items()}
    print(f"{len(split.items)} images, crop {options.crop}, {options.workers} workers, to {options.device}")
    print(HEADER, *(line(name, row) for name, row in rows.items()), sep="\n")
    reached = rows["sdabench"]["cores"]["median"]
    print(f"sdabench: {reached:.2f} times as many images per second of CPU time (goal {GOAL})")
    settings = {key: value for key, value in vars(options).items() if key not in ("output", "data")}
    settings |= {"images": len(split.items), "generated": options.data is None, "rows": rows}
    write_record(options.output, "training_input", goal=GOAL, **settings)


if __name__ == "__main__":
    main()
