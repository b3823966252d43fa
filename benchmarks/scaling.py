"""Simulate the time of a training step on 1 to 64 ranks, beside steps measured with gloo on a CPU.

    python benchmarks/scaling.py [--models NAME …] [--ranks N …] [--batch-size N] [--resolution PIXELS]
        [--rounds N] [--output FILE.json]

It measures the bytes of gradients and batch-norm statistics, when each bucket of gradients is complete within
the backward pass, and, for each number of --ranks, steps without communication, all-reduces alone, and steps
with both. Each rank has one thread; ranks connect as with ``--nproc``. CLUSTERS are assumed; SUSTAINED and
HOST_SECONDS were measured with one network. docs/scaling.md explains the formula.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from operator import mul
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from timing import output_option, write_record
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from sdabench.complexity import count
from sdabench.models.build import create_model
from sdabench.training.distributed import process_group

FIRST_BUCKET, BUCKET = 1 << 20, 25 << 20  # bytes; the defaults of DistributedDataParallel
SMALL_COLLECTIVES = 3  # per step: batch-norm statistics, losses, reports of the ranks
# sda_resnet86 in bf16 on an H100: a step of 256 images took 184 ms. One of 64 images took 75 ms, in which the
# host launched the kernels: fewer images take as long.
SUSTAINED, HOST_SECONDS = 32e12, 0.075  # FLOP/s and seconds per step
BACKWARD = 2 / 3  # of the computation: gradients of inputs and of weights, beside the forward pass
SIZES = (1, 2, 4, 8, 16, 32, 64)
BATCHES = ((64, "per rank"), (256, "per rank"), (1024, "in total"))


@dataclass(frozen=True)
class Cluster:
    """Links of a ring: bandwidth in bytes per second and direction, latency in seconds per message."""

    name: str
    ranks_per_machine: int
    inside: float
    between: float  # all network cards of a machine together
    inside_latency: float
    between_latency: float


CLUSTERS = (
    Cluster("NVLink 4, 8 x 400 Gb/s", 8, 450e9, 400e9, 3e-6, 8e-6),
    Cluster("NVLink 4, 100 Gb/s", 8, 450e9, 12.5e9, 3e-6, 20e-6),
    Cluster("NVLink 4, 10 Gb/s", 8, 450e9, 1.25e9, 3e-6, 40e-6),
)


@dataclass(frozen=True)
class Bucket:
    bytes: int
    ready: float  # when its gradients are complete, as a fraction of the backward pass


def all_reduce_seconds(size: float, ranks: int, cluster: Cluster) -> float:
    """Return the time of a ring all-reduce: each rank sends 2 (n - 1) parts of 1/n of the bytes."""
    if ranks == 1:
        return 0.0
    bandwidth, latency = cluster.inside, cluster.inside_latency
    if ranks > cluster.ranks_per_machine:  # the slowest link of the ring decides
        bandwidth, latency = min(cluster.inside, cluster.between), cluster.between_latency
    return 2 * (ranks - 1) * (size / ranks / bandwidth + latency)


def step_seconds(
    compute: float,
    buckets: Sequence[Bucket],
    statistics_bytes: int,
    reduce: Callable[[float], float],
    overlap: bool = True,
) -> float:
    """Return the time of a step: buckets are reduced one after another, each once it is complete.

    Without ``overlap``, all are reduced after the backward pass. The small collectives follow in both cases.
    """
    forward = (1 - BACKWARD) * compute
    end = 0.0
    for bucket in buckets:
        ready = forward + BACKWARD * compute * (bucket.ready if overlap else 1.0)
        end = max(end, ready) + reduce(bucket.bytes)
    return max(end, compute) + reduce(statistics_bytes) + (SMALL_COLLECTIVES - 1) * reduce(64)


def gradient_buckets(network: nn.Module, images: Tensor) -> list[Bucket]:
    """Measure when gradients are complete, and group them into buckets as DistributedDataParallel does."""
    times: list[tuple[float, int]] = []
    for parameter in network.parameters():
        parameter.register_post_accumulate_grad_hook(
            lambda each: times.append((time.perf_counter(), each.numel() * each.element_size()))
        )
    for _ in range(2):  # the first is for warm-up
        times.clear()
        loss = F.cross_entropy(network(images), torch.zeros(len(images), dtype=torch.long))
        start = time.perf_counter()
        loss.backward()
        took = time.perf_counter() - start
    buckets, size = list[Bucket](), 0
    for moment, added in times:
        size += added
        if size >= (BUCKET if buckets else FIRST_BUCKET):
            buckets.append(Bucket(size, (moment - start) / took))
            size = 0
    return [*buckets, Bucket(size, 1.0)] if size else buckets


def statistics_bytes(network: nn.Module) -> int:
    return sum(each.numel() * each.element_size() for each in network.buffers() if each.is_floating_point())


def time_rank(rank: int, ranks: int, model: str, options: argparse.Namespace, folder: str) -> None:
    """Time three kinds of steps, interleaved; rank 0 writes the milliseconds of the slowest rank."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
    os.environ |= {name: str(value) for name, value in names.items()}
    os.environ["SDABENCH_STORE_FILE"] = f"{folder}/store"
    torch.set_num_threads(1)
    torch.manual_seed(rank)
    network = create_model(model)
    images = torch.randn(options.batch_size, 3, options.resolution, options.resolution)
    labels = torch.zeros(len(images), dtype=torch.long)
    sizes = [bucket.bytes for bucket in options.buckets[model]]
    with process_group("cpu"):
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # of a renamed argument
            replica: Any = (  # as in the trainer
                DistributedDataParallel(network, broadcast_buffers=False, find_unused_parameters=True)
                if ranks > 1
                else network
            )
        tensors = [torch.zeros(size // 4) for size in (*sizes, options.statistics[model])]

        def step(sync: bool) -> None:
            alone = nullcontext() if sync or ranks == 1 else replica.no_sync()
            with alone:
                F.cross_entropy(replica(images), labels).backward()
            if sync and ranks > 1:
                dist.all_reduce(tensors[-1])

        def communicate() -> None:
            for tensor in tensors if ranks > 1 else ():
                dist.all_reduce(tensor)

        kinds = {"compute": lambda: step(False), "communicate": communicate, "step": lambda: step(True)}
        times: dict[str, list[float]] = {kind: [] for kind in kinds}
        for number in range(1 + options.rounds):  # the first is for warm-up
            for kind, work in kinds.items():
                if ranks > 1:
                    dist.barrier()
                start = time.perf_counter()
                work()
                took = torch.tensor(1000 * (time.perf_counter() - start))
                if ranks > 1:
                    dist.all_reduce(took, dist.ReduceOp.MAX)
                times[kind] += [took.item()] if number else []
    if rank == 0:
        Path(folder, "times.json").write_text(json.dumps(times))


def time_ranks(model: str, ranks: int, options: argparse.Namespace) -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(time_rank, (ranks, model, options, folder), nprocs=ranks)  # type: ignore[no-untyped-call]
        times: dict[str, list[float]] = json.loads(Path(folder, "times.json").read_text())
    return times


def compare_with_gloo(model: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Print measured steps beside those predicted from the measured computation and all-reduces."""
    images = f"{options.batch_size} images of {options.resolution} pixels per rank"
    print(f"\n{model}: gloo, {images}, milliseconds")
    heads = ("ranks", "compute", "all-reduce", "step", "spread", "sum", "overlapped")
    print("".join(f"{head:>13}" for head in heads))
    buckets, counted = options.buckets[model], options.statistics[model]
    size = sum(bucket.bytes for bucket in buckets) + counted
    rows = []
    for ranks in options.ranks:
        times = time_ranks(model, ranks, options)
        compute, communicate, step = (statistics.median(times[kind]) for kind in times)
        reduce = partial(mul, communicate / size if ranks > 1 else 0.0)
        plain = step_seconds(compute, buckets, counted, reduce, overlap=False)
        overlapped = step_seconds(compute, buckets, counted, reduce)
        spread = f"{min(times['step']):.0f} to {max(times['step']):.0f}"
        print(f"{ranks:13}{compute:13.0f}{communicate:13.0f}{step:13.0f}", end="")
        print(f"{spread:>13}{plain:13.0f}{overlapped:13.0f}", flush=True)
        rows.append({"ranks": ranks, "milliseconds": times, "sum": plain, "overlapped": overlapped})
    return rows


def simulate(model: str, flops: float, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Print the time of a step and its efficiency on each cluster."""
    buckets, counted = options.buckets[model], options.statistics[model]
    size = sum(bucket.bytes for bucket in buckets)
    print(f"\n{model}: {size / 1e6:.1f} MB of gradients in {len(buckets)} buckets,", end=" ")
    print(f"{counted / 1e6:.2f} MB of statistics, {flops / 1e9:.1f} GFLOP per image")
    print("milliseconds per step (efficiency in %)")
    rows = []
    for batch, fixed in BATCHES:
        print(f"\n{f'{batch} images {fixed}':28}" + "".join(f"{ranks:>13}" for ranks in SIZES))
        share = {ranks: batch / ranks if fixed == "in total" else batch for ranks in SIZES}
        for cluster, overlap in product(CLUSTERS, (True, False)):
            times = {}
            for ranks in SIZES:
                reduce = partial(all_reduce_seconds, ranks=ranks, cluster=cluster)
                compute = max(share[ranks] * flops / SUSTAINED, HOST_SECONDS)
                times[ranks] = step_seconds(compute, buckets, counted, reduce, overlap)
            alone = {ranks: times[1] * share[ranks] / batch for ranks in SIZES}
            cells = (f"{1000 * times[n]:.1f} ({100 * alone[n] / times[n]:.0f})" for n in SIZES)
            name = cluster.name + ("" if overlap else ", sum")
            print(f"{name:28}" + "".join(f"{cell:>13}" for cell in cells), flush=True)
            row = {"batch": batch, "fixed": fixed, "cluster": cluster.name, "overlap": overlap}
            rows.append(row | {"ranks": SIZES, "seconds": list(times.values())})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=["resnet50", "sda_resnet86"])
    parser.add_argument("--ranks", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    output_option(parser)
    options = parser.parse_args()
    os.environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"  # torch advises against find_unused_parameters
    torch.set_num_threads(1)
    options.buckets, options.statistics, content = {}, {}, {}
    for model in options.models:
        network = create_model(model)
        images = torch.randn(options.batch_size, 3, options.resolution, options.resolution)
        options.buckets[model] = gradient_buckets(network, images)
        options.statistics[model] = statistics_bytes(network)
        flops = 6.0 * count(model).macs  # 2 per MAC, 3 passes of the same cost
        content[model] = {
            "buckets": [asdict(bucket) for bucket in options.buckets[model]],
            "statistics_bytes": options.statistics[model],
            "gloo": compare_with_gloo(model, options),
            "simulated": simulate(model, flops, options),
        }
    assumed: dict[str, Any] = {"clusters": [asdict(cluster) for cluster in CLUSTERS]}
    assumed |= {"flops_per_second": SUSTAINED, "host_seconds": HOST_SECONDS, "backward": BACKWARD}
    conditions = {"batch_size": options.batch_size, "resolution": options.resolution, "threads": 1}
    write_record(options.output, "scaling", assumed=assumed, conditions=conditions, models=content)


if __name__ == "__main__":
    main()
