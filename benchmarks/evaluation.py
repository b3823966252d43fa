"""Compare the speed of ``sdabench eval`` with a script that uses timm, in one run.

    python benchmarks/evaluation.py [--data FOLDER] [--images N] [--model NAME] [--timm NAME]
        [--resolution PIXELS] [--batch-size N] [--workers N] [--device cuda] [--amp bf16]
        [--channels-last] [--exact] [--rounds N] [--distinct N] [--parts NAME …] [--output FILE.json]

The peer works like timm's ``validate.py``, with timm's dataset, loader (prefetching, uint8 to the device),
network and ``accuracy``, on the same folder and with the same weights, batches, workers and threads. On CUDA
it allows TF32, as ``validate.py`` does, unless ``--exact`` is given; sdabench does not. The number of images
that each classifies correctly is printed, and the number with the same top-5 classes. If top-1 or top-5
differ, the exit code is 1.

After the whole commands, their parts are timed: the loaders alone, up to batches on the device, and the
networks alone, on a batch in memory. Passes are interleaved. A ratio is the median over the rounds; CPU time
includes all processes.

FOLDER has ``val/<wnid>/`` or ``<wnid>/`` with images; without it, images are generated. The weights are
seeded, and the classifier is fitted to half of the images, so that many predictions are correct and many are
wrong. On a CPU the network takes nearly all of the time: ``--resolution 32`` makes it small, and ``--images
2000`` makes the start-up negligible. ``--distinct 1024`` generates 1024 images, and links the others to them.
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
from pictures import HEADER, Cost, interleave_costs, line, make_pictures, speedup
from safetensors.torch import load_file, save_file
from timing import interleave, output_option, write_record
from torch import Tensor, nn

from sdabench.data.description import Preprocessing
from sdabench.data.folders import ImageSplit
from sdabench.data.imagenet import class_indices, read_imagenet
from sdabench.data.images import Batch, EvaluationImages
from sdabench.models.build import create_model
from sdabench.models.inputs import MEAN, STD
from sdabench.records.class_predictions import ClassPredictions
from sdabench.training.memory import synchronize
from sdabench.training.precision import autocast, strict_fp32
from sdabench.training.tasks import load_batches
from sdabench.training.tasks.classification import images_at_once

GOAL = 1.2
MAX_FITTED = 500  # images
PARTS = ("commands", "loaders", "networks")


def layout_of(options: argparse.Namespace) -> torch.memory_format:
    return torch.channels_last if options.channels_last else torch.contiguous_format


@torch.inference_mode()
def make_weights(split: ImageSplit, options: argparse.Namespace, path: Path) -> None:
    """Write seeded weights whose classifier is fitted to every other image."""
    torch.manual_seed(0)
    network = create_model(options.model).to(options.device)
    images = EvaluationImages(split, Preprocessing.at(options.resolution))
    every_other = list(range(0, len(split.items), 2))[:MAX_FITTED]
    of_batches = [every_other[start : start + 25] for start in range(0, len(every_other), 25)]
    features, labels = [], []
    with closing(load_batches(images, Batch.of, 0, False, batch_sampler=of_batches)) as batches:
        for number, batch in enumerate(batches):
            assert isinstance(batch, Batch)
            inputs = batch.to(torch.device(options.device), torch.contiguous_format).images
            if number == 0:  # set the statistics of the norms: otherwise activations vanish
                for module in network.modules():
                    if isinstance(module, nn.BatchNorm2d):
                        module.momentum = 1.0
                network.train()(inputs)
                network.eval()
            of_batch = network.forward_head(network.forward_features(inputs), pre_logits=True)
            features.append(of_batch.cpu())
            labels += batch.labels.tolist()
    state = {key: tensor.cpu().clone() for key, tensor in network.state_dict().items()}
    inputs_of_fc = torch.cat(features).double()
    targets = nn.functional.one_hot(torch.tensor(labels), 1000).double()
    targets -= inputs_of_fc @ state["fc.weight"].T.double()
    products = inputs_of_fc @ inputs_of_fc.T
    regularized = products + 0.1 * products.diagonal().mean() * torch.eye(
        len(inputs_of_fc)
    )  # ridge regression
    state["fc.weight"] += (inputs_of_fc.T @ torch.linalg.solve(regularized, targets)).T.float()
    save_file(state, path)


def timm_loader(root: Path, folder: Path, options: argparse.Namespace) -> Any:
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
        # timm rounds the short side down from crop / crop_pct.
        crop_pct=preprocessing.crop / (preprocessing.resize + 0.5),
        pin_memory=False,
        device=torch.device(options.device),
        persistent_workers=False,
    )


def timm_network(folder: Path, options: argparse.Namespace) -> nn.Module:
    import timm

    network: nn.Module = timm.create_model(options.timm or options.model, num_classes=1000)
    network.load_state_dict(load_file(folder / "weights.safetensors"))
    return network.eval().to(options.device, memory_format=layout_of(options))  # type: ignore[call-overload]


def run_peer(root: Path, folder: Path, options: argparse.Namespace) -> None:
    """Evaluate with timm, in its own process, and write the results to the folder."""
    from timm.utils import AverageMeter, accuracy

    device = torch.device(options.device)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = not options.exact
    network, loader = timm_network(folder, options), timm_loader(root, folder, options)
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


def time_commands(root: Path, folder: Path, options: argparse.Namespace) -> dict[str, list[Cost]]:
    own = [sys.executable, "-m", "sdabench", "eval", options.model, "--data", f"imagenet={root}"]
    own += ["--weights", folder / "weights.safetensors", "--output", folder / "sdabench"]
    own += ["--resolution", options.resolution, "--batch-size", options.batch_size, "--amp", options.amp]
    own += ["--workers", options.workers, "--device", options.device]
    own += ["--channels-last"] if options.channels_last else []
    peer = [sys.executable, __file__, *sys.argv[1:], "--as-peer", folder, "--data", root]
    commands = {"timm": peer, "sdabench": own}
    spreads = interleave(
        {name: ([*map(str, command)], os.environ) for name, command in commands.items()}, options.rounds
    )
    images = len(read_imagenet(root).items)
    return {
        name: [Cost(clock / images, cpu / images) for clock, cpu in zip(each.times, each.cpu, strict=True)]
        for name, each in spreads.items()
    }


def time_loaders(split: ImageSplit, folder: Path, options: argparse.Namespace) -> dict[str, list[Cost]]:
    device = torch.device(options.device)

    def sdabench() -> None:
        images, workers = EvaluationImages(split, Preprocessing.at(options.resolution)), options.workers
        pin, size = device.type == "cuda", options.batch_size
        with closing(load_batches(images, Batch.of, workers, pin, batch_size=size)) as batches:
            for batch in batches:
                assert isinstance(batch, Batch)
                batch.to(device, layout_of(options))
        synchronize(device)

    def timm() -> None:
        for images, _ in timm_loader(split.root, folder, options):
            images.contiguous(memory_format=layout_of(options))
        synchronize(device)

    return interleave_costs({"timm": timm, "sdabench": sdabench}, len(split.items), options.rounds)


def time_networks(folder: Path, options: argparse.Namespace) -> dict[str, list[Cost]]:
    device, side = torch.device(options.device), options.resolution
    own = create_model(options.model).eval()
    own.load_state_dict(load_file(folder / "weights.safetensors"))
    own = own.to(device, memory_format=layout_of(options))  # type: ignore[call-overload]
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
        synchronize(device)
        return logits

    peer = timm_network(folder, options)
    works: dict[str, Callable[[], Any]] = {
        "timm": lambda: step(peer, options.exact, options.batch_size),
        "sdabench": lambda: step(own, True, images_at_once(inputs)),
    }
    with strict_fp32(device):
        return interleave_costs(works, options.batch_size, options.rounds)


def compare_results(folder: Path) -> dict[str, Any]:
    peer = json.loads((folder / "timm.json").read_text())
    record = json.loads((folder / "sdabench/records.jsonl").read_text().splitlines()[-1])
    own = ClassPredictions.read(folder / "sdabench" / record["predictions"])
    same = sum(peer["best"][path] == best.tolist() for path, best in zip(own.paths, own.top5, strict=True))
    metrics = {key: (record["metrics"][key], peer[key]) for key in ("top1_pct", "top5_pct")}
    images = len(own.paths)
    hits = {key: [round(each * images / 100) for each in pair] for key, pair in metrics.items()}
    return {"images": images, "hits": hits, "same_best_five": same}


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, help="ImageNet-style folders.")
    parser.add_argument("--images", type=int, default=256, help="Number of generated images without --data.")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--timm", help="timm's name of the model, if different.")
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--amp", choices=["off", "bf16", "fp16"], default="off")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--exact", action="store_true", help="Turn TF32 off for timm too.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--distinct", type=int, help="Number of different ones among the generated images.")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="Parts to time.")
    parser.add_argument("--as-peer", type=Path, help=argparse.SUPPRESS)
    output_option(parser)
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    if options.as_peer:
        run_peer(options.data, options.as_peer, options)
        return
    found: dict[str, dict[str, list[Cost]]] = {}
    agreed: dict[str, Any] | None = None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.data is None:
            make_pictures(folder / "generated", options.images, distinct=options.distinct)
        split = read_imagenet(options.data or folder / "generated")
        make_weights(split, options, folder / "weights.safetensors")
        if "commands" in options.parts:
            found["whole commands"] = time_commands(split.root, folder, options)
            agreed = compare_results(folder)
        if "loaders" in options.parts:
            found["loaders alone"] = time_loaders(split, folder, options)
        if "networks" in options.parts:
            found["networks alone"] = time_networks(folder, options)
    rows = {
        part: {name: speedup(costs["timm"], each) for name, each in costs.items()}
        for part, costs in found.items()
    }
    print(
        f"{options.model}, {len(split.items)} images, crop {options.resolution}, batch {options.batch_size}, "
        f"{options.workers} workers, on {options.device}, {torch.get_num_threads()} threads"
    )
    print(HEADER)
    for part, of_part in rows.items():
        print(part)
        print(*(line(f"  {name}", row) for name, row in of_part.items()), sep="\n")
    bound = None
    if agreed is not None and len(rows) == len(PARTS):
        bound = rows["whole commands"]["timm"]["cores_ms"] / rows["networks alone"]["sdabench"]["cores_ms"]
        print_shares(rows, agreed, bound, len(split.items))
    excluded = ("output", "data", "as_peer")
    settings = {key: value for key, value in vars(options).items() if key not in excluded}
    settings |= {"images": len(split.items), "generated": options.data is None}
    settings |= {"threads": torch.get_num_threads(), "agreement": agreed, "bound": bound, "rows": rows}
    write_record(options.output, "evaluation", goal=GOAL, **settings)
    sys.exit(agreed is not None and any(own != peer for own, peer in agreed["hits"].values()))


def print_shares(rows: dict[str, Any], agreed: dict[str, Any], bound: float, images: int) -> None:
    """Print the agreement with timm, and the shares of network and loader in the CPU time."""
    whole, loader, network = (of_part["sdabench"] for of_part in rows.values())
    print(
        f"correct of {images} images, sdabench and timm: top-1 {agreed['hits']['top1_pct']}, "
        f"top-5 {agreed['hits']['top5_pct']}; same top-5 classes: {agreed['same_best_five']}\n"
        f"sdabench eval: {whole['clock']['median']:.2f} times as many images per second (goal {GOAL})\n"
        f"share of CPU time: network {network['cores_ms'] / whole['cores_ms']:.0%}, "
        f"loader {loader['cores_ms'] / whole['cores_ms']:.0%}; "
        f"upper bound if everything but the network took no time: {bound:.2f} times\n"
        f"the slower of the two, by wall-clock time, is the "
        f"{'loader' if loader['clock_ms'] > network['clock_ms'] else 'network'}"
    )


if __name__ == "__main__":
    main()
