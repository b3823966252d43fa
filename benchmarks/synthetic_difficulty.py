"""Measure the difficulty of the generated default dataset: linear classifiers compared with trained networks.

    python benchmarks/synthetic_difficulty.py [RECORDS.jsonl …]

A linear classifier on pixels is trained to convergence for several image sizes and weight decays. The best
one on the validation images is reported, which favors it. The networks are those of the records with the same
validation images, such as the records of ``sdabench train resnet50 --recipe demo``.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import to_tensor

from sdabench.data.folders import ImageSplit
from sdabench.data.images import decode
from sdabench.data.source import DataSource
from sdabench.errors import DataError
from sdabench.records.json_lines import read_lines
from sdabench.records.record import Record
from sdabench.scoring.intervals import standard_error_pct

SIDES = (16, 32, 64)
DECAYS = (1e-4, 1e-3, 1e-2, 1e-1)


def pixels(split: ImageSplit) -> Tensor:
    """Decode all images to (N, 3, 64, 64), in the range -0.5 to 0.5."""
    images = []
    for item in split.items:
        decoded = decode(split.root / item.path)
        if isinstance(decoded, DataError):
            raise decoded
        images.append(to_tensor(decoded[0].resize((64, 64))) - 0.5)
    return torch.stack(images)


def accuracy_pct(train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], decay: float) -> float:
    """Return the accuracy on ``val`` of multinomial logistic regression with weight decay."""
    weight = torch.zeros(train[0].shape[1], int(train[1].max()) + 1, requires_grad=True)
    bias = torch.zeros(weight.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(train[0] @ weight + bias, train[1]) + decay * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return 100 * (((val[0] @ weight + bias).argmax(dim=1) == val[1]).float().mean().item())


def report(name: str, top1: float, samples: int) -> None:
    print(f"{name:42} {top1:9.1f}  {standard_error_pct(top1, samples):6.1f}")


def main() -> None:
    source = DataSource().ensure_generated()
    splits = {name: source.read(name) for name in ("train", "val")}
    labels = {name: torch.tensor([item.label for item in split.items]) for name, split in splits.items()}
    images = {name: pixels(split) for name, split in splits.items()}
    samples = len(labels["val"])
    print(f"{'classifier':42} top-1 (%)  ± s.e.   on {samples} images of {splits['val'].classes} classes")
    print(f"{'chance':42} {100 / splits['val'].classes:9.1f}")
    for side in SIDES:
        flat = {name: F.adaptive_avg_pool2d(all_, side).flatten(1) for name, all_ in images.items()}
        pairs = [(flat[name], labels[name]) for name in ("train", "val")]
        best = max(accuracy_pct(*pairs, decay) for decay in DECAYS)
        report(f"linear on {side}x{side} pixels, best of {len(DECAYS)}", best, samples)
    for path in sys.argv[1:]:
        for record in read_lines(Path(path), Record):
            if record.dataset.listing_sha256 == splits["val"].listing_sha256 and record.recipe:
                name = f"{record.model}, {record.recipe['name']}, {record.recipe['epochs']} epochs"
                report(name, record.metrics["top1_pct"], samples)


if __name__ == "__main__":
    main()
