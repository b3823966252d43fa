"""How quick ``sdabench eval`` is beside a script on timm's own parts, whole commands, in one run.

    python benchmarks/evaluation.py [--data FOLDER] [--images N] [--model NAME] [--timm NAME]
        [--resolution PIXELS] [--batch-size N] [--workers N] [--device cuda] [--amp bf16]
        [--channels-last] [--exact] [--rounds N] [--output FILE.json]

The peer does what timm's ``validate.py`` does, with timm's dataset, loader (prefetching, uint8 to the
device), network and ``accuracy``: on the same folder, with the same weights, batches, workers and threads. On
CUDA it allows TF32, as ``validate.py`` does, unless ``--exact``; ours does not. How many images are right is
told of both, and how many have the same five best classes; where top-1 or top-5 differ, the exit code is 1.

Then what limits: the loaders alone, up to batches that a network can take, and the networks alone on batches
that are there. A ratio is the median over the rounds, which take turns; the cores' time is that of all
processes.

FOLDER has ``val/<wnid>/`` or ``<wnid>/``; without one images are made. The weights are seeded, and their
classifier is fitted to half of the images, so that both right and wrong answers are many. On a CPU the
network takes nearly all the time: ``--resolution 32`` makes it small, and ``--images 2000`` the start.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from pictures import HEADER, Cost, beside, costs_in_turns, line, make_pictures
from safetensors.torch import load_file, save_file
from timing import in_turns, output_option, write_record
from torch import Tensor, nn

from sdabench.data.description import Preprocessing
from sdabench.data.folders import ImageSplit
from sdabench.data.imagenet import class_indices, read_imagenet
from sdabench.data.images import Batch, EvaluationImages
from sdabench.models.build import create_model
from sdabench.models.inputs import MEAN, STD
from sdabench.records.class_predictions import ClassPredictions
from sdabench.tools.bench.timing import synchronise
from sdabench.training.precision import autocast, strict_fp32
from sdabench.training.tasks import load
from sdabench.training.tasks.classification import images_at_once

GOAL = 1.2
FITTED = 500  # images at most


def layout_of(options: argparse.Namespace) -> torch.memory_format:
    return torch.channels_last if options.channels_last else torch.contiguous_format


@torch.inference_mode()
def make_weights(split: ImageSplit, options: argparse.Namespace, path: Path) -> None:
    """Seeded ones whose classifier knows every other image."""
    torch.manual_seed(0)
    network = create_model(options.model).to(options.device)
    images = EvaluationImages(split, Preprocessing.at(options.resolution))
    every_other = list(range(0, len(split.items), 2))[:FITTED]
    of_batches = [every_other[start : start + 25] for start in range(0, len(every_other), 25)]
    features, labels = [], []
    with closing(load(images, Batch.of, 0, False, batch_sampler=of_batches)) as batches:
        for number, batch in enumerate(batches):
            assert isinstance(batch, Batch)
            inputs = batch.to(torch.device(options.device), torch.contiguous_format).images
            if number == 0:  # norms as after a training: else the maps get ever smaller
                for module in network.modules():
                    if isinstance(module, nn.BatchNorm2d):
                        module.momentum = 1.0
                network.train()(inputs)
                network.eval()
            of_batch = network.forward_head(network.forward_features(inputs), pre_logits=True)
            features.append(of_batch.cpu())
            labels += batch.labels.tolist()
    state = {key: tensor.cpu().clone() for key, tensor in network.state_dict().items()}
    known = torch.cat(features).double()
    wanted = nn.functional.one_hot(torch.tensor(labels), 1000).double()
    wanted -= known @ state["fc.weight"].T.double()
    products = known @ known.T
    softened = products + 0.1 * products.diagonal().mean() * torch.eye(len(known))  # no score is exact
    state["fc.weight"] += (known.T @ torch.linalg.solve(softened, wanted)).T.float()
    save_file(state, path)


def timms_loader(root: Path, folder: Path, options: argparse.Namespace) -> Any:
    from timm.data import create_dataset, create_loader

    preprocessing = Preprocessing.at(options.resolution)
    classes = folder / "classes.txt"
    classes.write_text("\n".join(class_indices()))
    dataset = create_dataset("", root=str(root), split="validation", class_map=str(classes))
    return create_loader(
        dataset,
        input_size=(3, preprocessing.crop, preprocessing.crop),
        batch_size=options.batch_size,
        use_prefetcher=True,
        interpolation=preprocessing.interpolation,
        mean=MEAN,
        std=STD,
        num_workers=options.workers,
        # Its short side is rounded down from crop / crop_pct.
        crop_pct=preprocessing.crop / (preprocessing.resize + 0.5),
        pin_memory=False,
        device=torch.device(options.device),
        persistent_workers=False,
    )


def timms_network(folder: Path, options: argparse.Namespace) -> nn.Module:
    import timm

    network: nn.Module = timm.create_model(options.timm or options.model, num_classes=1000)
    network.load_state_dict(load_file(folder / "weights.safetensors"))
    return network.eval().to(options.device, memory_format=layout_of(options))  # type: ignore[call-overload]


def be_timm(root: Path, folder: Path, options: argparse.Namespace) -> None:
    """The peer, in a process of its own; leaves its results in the folder."""
    from timm.utils import AverageMeter, accuracy

    device = torch.device(options.device)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = not options.exact
    network, loader = timms_network(folder, options), timms_loader(root, folder, options)
    losses, top1, top5 = AverageMeter(), AverageMeter(), AverageMeter()
    best: list[list[int]] = []
    with torch.inference_mode():
        for images, labels in loader:
            images, labels = images.contiguous(memory_format=layout_of(options)), labels.to(device)
            with autocast(device, options.amp):
                logits = network(images)
            loss = nn.functional.cross_entropy(logits.float(), labels)
            hits1, hits5 = accuracy(logits, labels, topk=(1, 5))
            losses.update(loss.item(), len(images))
            top1.update(hits1.item(), len(images))
            top5.update(hits5.item(), len(images))
            best += logits.topk(5).indices.tolist()
    best_of_images = dict(zip(loader.dataset.filenames(), best, strict=True))
    result = {"top1_pct": top1.avg, "top5_pct": top5.avg, "best": best_of_images}
    (folder / "timm.json").write_text(json.dumps(result))


def whole_commands(root: Path, folder: Path, options: argparse.Namespace) -> dict[str, list[Cost]]:
    ours = [sys.executable, "-m", "sdabench", "eval", options.model, "--data", f"imagenet={root}"]
    ours += ["--weights", folder / "weights.safetensors", "--output", folder / "ours"]
    ours += ["--resolution", options.resolution, "--batch-size", options.batch_size, "--amp", options.amp]
    ours += ["--workers", options.workers, "--device", options.device]
    ours += ["--channels-last"] if options.channels_last else []
    theirs = [sys.executable, __file__, *sys.argv[1:], "--as-peer", folder, "--data", root]
    commands = {"timm's": theirs, "ours": ours}
    spreads = in_turns(
        {name: ([*map(str, command)], os.environ) for name, command in commands.items()}, options.rounds
    )
    images = len(read_imagenet(root).items)
    return {
        name: [
            Cost(clock / images, cores / images) for clock, cores in zip(each.times, each.cores, strict=True)
        ]
        for name, each in spreads.items()
    }


def loaders(split: ImageSplit, folder: Path, options: argparse.Namespace) -> dict[str, list[Cost]]:
    device = torch.device(options.device)

    def ours() -> None:
        images, workers = EvaluationImages(split, Preprocessing.at(options.resolution)), options.workers
        pin, size = device.type == "cuda", options.batch_size
        with closing(load(images, Batch.of, workers, pin, batch_size=size)) as batches:
            for batch in batches:
                assert isinstance(batch, Batch)
                batch.to(device, layout_of(options))
        synchronise(device)

    def timms() -> None:
        for images, _ in timms_loader(split.root, folder, options):
            images.contiguous(memory_format=layout_of(options))
        synchronise(device)

    return costs_in_turns({"timm's": timms, "ours": ours}, len(split.items), options.rounds)


def networks(folder: Path, options: argparse.Namespace) -> dict[str, list[Cost]]:
    device, side = torch.device(options.device), options.resolution
    ours = create_model(options.model).eval()
    ours.load_state_dict(load_file(folder / "weights.safetensors"))
    ours = ours.to(device, memory_format=layout_of(options))  # type: ignore[call-overload]
    inputs = torch.randn(options.batch_size, 3, side, side)
    inputs = inputs.to(device, memory_format=layout_of(options))

    @torch.inference_mode()
    def step(network: nn.Module, exact: bool, at_once: int) -> Tensor:
        before = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = not exact
        try:
            with autocast(device, options.amp):
                logits = torch.cat([network(part) for part in torch.split(inputs, at_once)])
        finally:
            torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before, False
        synchronise(device)
        return logits

    theirs = timms_network(folder, options)
    works: dict[str, Callable[[], Any]] = {
        "timm's": lambda: step(theirs, options.exact, options.batch_size),
        "ours": lambda: step(ours, True, images_at_once(inputs)),
    }
    with strict_fp32(device):
        return costs_in_turns(works, options.batch_size, options.rounds)


def agreement(folder: Path) -> dict[str, Any]:
    theirs = json.loads((folder / "timm.json").read_text())
    record = json.loads((folder / "ours/records.jsonl").read_text().splitlines()[-1])
    ours = ClassPredictions.read(folder / "ours" / record["predictions"])
    same = sum(
        theirs["best"][path] == best.tolist() for path, best in zip(ours.paths, ours.top5, strict=True)
    )
    metrics = {key: (record["metrics"][key], theirs[key]) for key in ("top1_pct", "top5_pct")}
    images = len(ours.paths)
    hits = {key: [round(each * images / 100) for each in pair] for key, pair in metrics.items()}
    return {"images": images, "hits": hits, "same_best_five": same}


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, help="Images in folders for classes, named as ImageNet's.")
    parser.add_argument("--images", type=int, default=256, help="So many are made without --data.")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--timm", help="timm's name of the model, where it is another.")
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--amp", choices=["off", "bf16", "fp16"], default="off")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--exact", action="store_true", help="No TF32 for the peer either.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--as-peer", type=Path, help=argparse.SUPPRESS)
    output_option(parser)
    return parser.parse_args()


def main() -> None:
    options = parsed()
    if options.as_peer:
        be_timm(options.data, options.as_peer, options)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.data is None:
            make_pictures(folder / "made", options.images)
        split = read_imagenet(options.data or folder / "made")
        make_weights(split, options, folder / "weights.safetensors")
        found = {"whole commands": whole_commands(split.root, folder, options)}
        agreed = agreement(folder)
        found["loaders alone"] = loaders(split, folder, options)
        found["networks alone"] = networks(folder, options)
    rows = {
        part: {name: beside(costs["timm's"], each) for name, each in costs.items()}
        for part, costs in found.items()
    }
    whole, loader, network = (of_part["ours"] for of_part in rows.values())
    bound = rows["whole commands"]["timm's"]["cores_ms"] / network["cores_ms"]
    print(
        f"{options.model}, {len(split.items)} images, crop {options.resolution}, batch {options.batch_size}, "
        f"{options.workers} workers, on {options.device}, {torch.get_num_threads()} threads"
    )
    print(HEADER)
    for part, of_part in rows.items():
        print(part)
        print(*(line(f"  {name}", row) for name, row in of_part.items()), sep="\n")
    print(
        f"right of {len(split.items)}, ours and timm's: top-1 {agreed['hits']['top1_pct']}, "
        f"top-5 {agreed['hits']['top5_pct']}; the same five best: {agreed['same_best_five']}\n"
        f"sdabench eval: {whole['clock']['median']:.2f} times as many images a second (goal {GOAL})\n"
        f"of the cores' time the network alone takes {network['cores_ms'] / whole['cores_ms']:.0%}, "
        f"the loader {loader['cores_ms'] / whole['cores_ms']:.0%}; "
        f"if all but the network took none: {bound:.2f} times\n"
        f"by the clock, the slower of the two is the "
        f"{'loader' if loader['clock_ms'] > network['clock_ms'] else 'network'}"
    )
    left_out = ("output", "data", "as_peer")
    settings = {key: value for key, value in vars(options).items() if key not in left_out}
    settings |= {"images": len(split.items), "generated": options.data is None}
    settings |= {"threads": torch.get_num_threads(), "agreement": agreed, "bound": bound, "rows": rows}
    write_record(options.output, "evaluation", goal=GOAL, **settings)
    sys.exit(any(ours != theirs for ours, theirs in agreed["hits"].values()))


if __name__ == "__main__":
    main()
