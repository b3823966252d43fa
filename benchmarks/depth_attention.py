"""Compare the speed of depth attention with a plain implementation: whole networks, and single stages.

    python benchmarks/depth_attention.py [--device cuda] [--models NAME …] [--batch-size N]
        [--resolution PIXELS] [--repeats N] [--modes NAME …] [--variants NAME …] [--parts NAME …]
        [--no-bound] [--output FILE.json]

The peer clones the output of every block, stacks the clones by repeated concatenation, sums and pools them,
and after the softmax multiplies, sums and applies the ReLU. Its outputs and gradients are asserted to be the
same. The bound is the same network without depth attention under the same conditions: no implementation can
be faster. All steps are interleaved; a ratio is the median over the rounds, its spread their interquartile
range. On CUDA there are more variants: bf16, channels_last and torch.compile.

A single stage is given the n feature maps of a fused stage. It has to move at least these bytes, counted in
maps: forward, read n and write 1; backward, read the gradient and the output (for the ReLU), read n maps (for
the gradients of the weights) and write n gradients. In total 3n + 3. The time that this takes is estimated
from the time of copying the n maps, which is interleaved with the other steps. On CUDA, stages are timed in
CUDA graphs, without launches by the host, and also beside the PyTorch implementation under torch.compile.
"""

import argparse
import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdabench.models.build import create_model
from sdabench.models.depth_attention import DepthAttentionStage, LearnedWeights, StageMaps, maps_of_stage
from sdabench.records.environment import environment, git_revision
from sdabench.registry import load_registry
from sdabench.registry.recipes import Precision
from sdabench.report.render import print_terminal
from sdabench.report.sheet import Cell, Heading, Sheet
from sdabench.tools.bench.graphs import Capture
from sdabench.tools.bench.steps import STEPS, Mode, Step
from sdabench.tools.bench.timing import Timing, interleave, load_libraries
from sdabench.training.compilation import compile_network, compiler_errors
from sdabench.training.memory import MemoryRise, synchronize
from sdabench.training.precision import autocast, strict_fp32

WARMUP = 3
PARTS = ("networks", "stages")


@dataclass(frozen=True)
class Variant:
    name: str
    precision: Precision = "fp32"
    channels_last: bool = False
    compile: bool = False

    def place(self, tensor: Any, device: torch.device) -> Any:
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return tensor.to(device, memory_format=layout)

    def compiled(self, called: Any) -> Any:
        return compile_network(called) if self.compile else called


PLAIN = Variant("fp32")
VARIANTS = {
    variant.name: variant
    for variant in (
        PLAIN,
        Variant("fp32-channels-last", channels_last=True),
        Variant("bf16", "bf16"),
        Variant("fp32-compile", compile=True),
        Variant("bf16-channels-last-compile", "bf16", channels_last=True, compile=True),
    )
}
# Speed relative to the peer in the named precision, and largest peak memory relative to the peer.
GOALS: dict[tuple[str, Mode, str], tuple[float, str, float | None]] = {
    ("cuda", "training", "fp32"): (1.5, "fp32", 0.6),
    ("cuda", "training", "bf16"): (1.5, "bf16", 0.6),
    ("cuda", "training", "bf16-channels-last-compile"): (3.0, "fp32", None),
    ("cpu", "inference", "fp32"): (1.5, "fp32", None),
    ("cpu", "inference", "fp32-channels-last"): (1.5, "fp32", None),
}
STAGE_GOAL = 0.7  # share of the memory bandwidth, on CUDA


class PeerAttention(nn.Module):
    """The plain implementation of fusing the maps of a stage."""

    def __init__(self, attention: LearnedWeights) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, outputs: Sequence[Tensor]) -> Tensor:
        stacked = outputs[0].clone().unsqueeze(0)
        for output in outputs[1:]:
            stacked = self.append(stacked, output)
        return self.fuse(stacked)

    def append(self, stacked: Tensor, output: Tensor) -> Tensor:
        return torch.cat([stacked, output.clone().unsqueeze(0)])

    def fuse(self, stacked: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(stacked.sum(dim=0), 1)
        attention = self.attention
        hidden = F.relu(attention.bn(attention.reduce(pooled)))
        weights = torch.stack([select(hidden) for select in attention.select]).softmax(dim=0)
        return F.relu((weights * stacked).sum(dim=0))


class PeerStage(nn.Module):
    """The blocks and the attention of a fused stage, in the plain implementation."""

    def __init__(self, stage: DepthAttentionStage) -> None:
        super().__init__()
        *blocks, attention = stage
        self.blocks = nn.ModuleList(blocks)
        self.attention = PeerAttention(attention)

    def forward(self, x: Tensor) -> Tensor:
        stacked: Tensor | None = None
        for block in self.blocks:
            output = block(x)
            if stacked is None:
                stacked = output.clone().unsqueeze(0)
            else:
                stacked = self.attention.append(stacked, output)
            x = F.relu(output)
        assert stacked is not None
        return self.attention.fuse(stacked)


class StageAttention(nn.Module):
    """An implementation of :class:`DepthAttentionStage`, given the maps of a stage."""

    def __init__(self, attention: LearnedWeights, kind: Callable[[Tensor, bool], StageMaps]) -> None:
        super().__init__()
        self.attention = attention
        self.kind = kind

    def forward(self, outputs: Sequence[Tensor]) -> Tensor:
        maps = self.kind(outputs[0], True)
        for output in outputs:
            maps.append(output, activate=False)
        return maps.fuse(self.attention(maps.pooled()), activate=True)


def peer_of(network: nn.Module) -> nn.Module:
    peer = copy.deepcopy(network)
    for name, module in list(peer.named_children()):
        if isinstance(module, DepthAttentionStage):
            setattr(peer, name, PeerStage(module))
    return peer


def fused_stages(network: nn.Module) -> list[DepthAttentionStage]:
    return [module for module in network.modules() if isinstance(module, DepthAttentionStage)]


def assert_same(name: str) -> None:
    """Assert equal logits and equal gradients of all parameters, in training mode and float64."""
    torch.manual_seed(0)
    own = create_model(name).double().train()
    peer = peer_of(own)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    logits = [network(images) for network in (own, peer)]
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-8, atol=1e-8)
    for each in logits:
        each.logsumexp(dim=1).sum().backward()
    gradients = [[p.grad for p in network.parameters()] for network in (own, peer)]
    assert len(gradients[0]) == len(gradients[1])
    for actual, expected in zip(*gradients, strict=True):
        assert actual is not None
        scale = float(expected.abs().max()) + 1e-12
        torch.testing.assert_close(actual / scale, expected / scale, rtol=1e-6, atol=1e-6)


@dataclass(frozen=True)
class Measurement:
    timing: Timing
    peak_memory: int | None

    def as_json(self, images: int) -> dict[str, Any]:
        return {
            "images_per_second": images / self.timing.median,
            "latency_ms": {"median": 1000 * self.timing.median, "p95": 1000 * self.timing.p95},
            "spread_pct": self.timing.spread_pct,
            "peak_memory_bytes": self.peak_memory,
        }


def measure(
    subjects: dict[tuple[str, str], Callable[[], tuple[Step, bool]]],
    repeats: int,
    device: torch.device,
    graphs: bool = False,
) -> dict[tuple[str, str], Measurement]:
    """Build and warm up each step, then time all interleaved. A subject returns whether its memory counts.

    With ``graphs``, the steps are timed in CUDA graphs, without launches by the host.
    """
    steps, memory = [], []
    for build in subjects.values():
        rise = MemoryRise(device)
        step, memory_counts = build()
        for _ in range(WARMUP - 1):
            step()
        synchronize(device)
        measurable = rise.restart()
        step()
        synchronize(device)
        memory.append(rise.peak() if measurable and memory_counts else None)
        steps.append(Capture(device)("the stage", step) if graphs else step)
    timings = interleave(steps, repeats, device)
    return {
        key: Measurement(*each) for key, each in zip(subjects, zip(timings, memory, strict=True), strict=True)
    }


def whole_network(
    name: str, mode: Mode, variants: Sequence[Variant], options: argparse.Namespace
) -> dict[tuple[str, str], Measurement]:
    """Time the peer in each precision, and sdabench and the bound in each variant; by (name, variant)."""
    device = torch.device(options.device)
    side = options.resolution
    images = torch.randn(options.batch_size, 3, side, side)
    bound = load_registry().model(name).like_for_like
    assert bound is not None

    def build(who: str, variant: Variant) -> tuple[Step, bool]:
        network = create_model(bound if who == "bound" else name)
        network = variant.place(peer_of(network) if who == "peer" else network, device)
        step = STEPS[mode](variant.compiled(network), variant.place(images, device), variant.precision)
        return step, not (variant.compile and device.type == "cpu")

    peers = {
        variant.precision: Variant(variant.precision, variant.precision) for variant in [PLAIN, *variants]
    }
    wanted = [("peer", variant) for variant in peers.values()]
    wanted += [(who, variant) for variant in variants for who in ("sdabench", *["bound"] * options.bound)]
    subjects = {(who, one.name): (lambda who=who, one=one: build(who, one)) for who, one in wanted}
    return measure(subjects, options.repeats, device)


def stage_alone(
    name: str, mode: Mode, variants: Sequence[Variant], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Time peer, sdabench and a copy of the maps for each fused stage; return them with its shape."""
    device = torch.device(options.device)
    network = create_model(name)
    side, found = options.resolution, []
    for stage, info in zip(fused_stages(network), network.feature_info, strict=True):
        depth, channels, sides = len(stage) - 1, info["num_chs"], side // info["reduction"]
        shape = (options.batch_size, channels, sides, sides)

        def maps(variant: Variant, depth: int = depth, shape: tuple[int, ...] = shape) -> list[Tensor]:
            dtype = torch.bfloat16 if variant.precision == "bf16" else torch.float32
            return [
                variant.place(torch.randn(shape, device=device), device)
                .to(dtype)
                .requires_grad_(mode == "training")
                for _ in range(depth)
            ]

        def build(who: str, variant: Variant, stage: DepthAttentionStage = stage, maps: Any = maps) -> Any:
            outputs = maps(variant)
            if who == "copy":
                source = torch.stack(outputs).detach()
                target = torch.empty_like(source)
                return lambda: target.copy_(source), True
            attention = copy.deepcopy(stage.attention)
            own = StageAttention(attention, StageMaps if who == "compiled" else maps_of_stage)
            module = variant.place(PeerAttention(attention) if who == "peer" else own, device)
            module.train(mode == "training")
            called = compile_network(module) if who == "compiled" else variant.compiled(module)
            gradient = torch.randn_like(outputs[0])

            def step() -> None:
                if mode == "inference":
                    with torch.no_grad(), autocast(device, variant.precision):
                        called(outputs)
                    return
                for tensor in (*outputs, *module.parameters()):
                    tensor.grad = None
                with autocast(device, variant.precision):
                    fused = called(outputs)
                fused.backward(gradient.to(fused.dtype))

            return step, not (variant.compile and device.type == "cpu")

        wanted = [("peer", PLAIN), *((who, one) for one in variants for who in ("sdabench", "copy"))]
        wanted += [("compiled", one) for one in variants if device.type == "cuda" and one.name == "bf16"]
        subjects = {(who, one.name): (lambda who=who, one=one, b=build: b(who, one)) for who, one in wanted}
        results = measure(subjects, options.repeats, device, graphs=device.type == "cuda")
        found.append({"depth": depth, "shape": shape, "results": results})
    return found


def least_bytes(mode: Mode, depth: int, shape: Sequence[int], variant: Variant) -> int:
    """Return the bytes that a stage has to move at least."""
    maps = depth + 1 if mode == "inference" else 3 * depth + 3
    return maps * torch.Size(shape).numel() * (2 if variant.precision == "bf16" else 4)


def network_rows(
    name: str, mode: Mode, found: dict[tuple[str, str], Measurement], kind: str
) -> list[dict[str, Any]]:
    rows = []
    for (who, variant), own in found.items():
        if who != "sdabench":
            continue
        precision = VARIANTS[variant].precision
        goal, beside, memory_goal = GOALS.get((kind, mode, variant), (None, precision, None))
        peer, bound = found["peer", beside], found.get(("bound", variant))
        rows.append(
            {
                "model": name,
                "mode": mode,
                "variant": variant,
                "peer": beside,
                "speed_ratio": peer.timing.ratio_to(own.timing).median,
                "bound_speed_ratio": bound and peer.timing.ratio_to(bound.timing).median,
                "speed_goal": goal,
                "memory_ratio": _over(own.peak_memory, peer.peak_memory),
                "bound_memory_ratio": bound and _over(bound.peak_memory, peer.peak_memory),
                "memory_goal": memory_goal,
                "spread_pct": peer.timing.ratio_to(own.timing).spread_pct,
            }
        )
    return rows


def stage_rows(name: str, mode: Mode, stages: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Make a row for each variant, with the seconds summed over the stages."""
    rows = []
    for variant in [key[1] for key in stages[0]["results"] if key[0] == "sdabench"]:
        own, peer = _seconds(stages, "sdabench", variant), _seconds(stages, "peer", "fp32")
        numbers = [least_bytes(mode, stage["depth"], stage["shape"], VARIANTS[variant]) for stage in stages]
        once = 0.0
        for stage, count in zip(stages, numbers, strict=True):
            size = torch.Size(stage["shape"]).numel() * (2 if VARIANTS[variant].precision == "bf16" else 4)
            copied = 2 * stage["depth"] * size
            once += count / copied * stage["results"]["copy", variant].timing.median
        memory = [
            _over(
                stage["results"]["sdabench", variant].peak_memory,
                stage["results"]["peer", "fp32"].peak_memory,
            )
            for stage in stages
        ]
        rows.append(
            {
                "model": name,
                "mode": mode,
                "variant": variant,
                "bytes": sum(numbers),
                "seconds": own,
                "seconds_of_moving_once": once,
                "speed_ratio": peer / own,
                "of_moving_once": once / own,
                "goal": STAGE_GOAL if kind == "cuda" and mode == "training" else None,
                "memory_ratios": memory,
                "speed_ratio_to_compiled": _seconds(stages, "compiled", variant) / own
                if ("compiled", variant) in stages[0]["results"]
                else None,
                "spread_pct": max(
                    stage["results"][who, variant].timing.spread_pct
                    for stage in stages
                    for who in ("sdabench", "copy")
                ),
            }
        )
    return rows


def _seconds(stages: list[dict[str, Any]], who: str, variant: str) -> float:
    return sum(stage["results"][who, variant].timing.median for stage in stages)


def _over(one: int | None, other: int | None) -> float | None:
    return None if one is None or not other else one / other


def _ratio(
    value: float | None, goal: float | None = None, bound: float | None = None, at_most: bool = False
) -> Cell:
    """Format a ratio with its goal, and say if even the bound misses it."""
    if value is None:
        return Cell("-")
    if goal is None:
        return Cell(f"{value:.2f}")

    def met(reached: float) -> bool:
        return reached <= goal if at_most else reached >= goal

    words = f"{'at most' if at_most else 'goal'} {goal:g}"
    words += ", missed by the bound too" if bound is not None and not met(bound) else ""
    return Cell(f"{value:.2f} ({words})", tone="good" if met(value) else "bad")


def print_rows(networks: list[dict[str, Any]], stages: list[dict[str, Any]], where: str) -> None:
    names = ["model", "step", "variant", "peer"]
    names += ["speed / peer", "bound", "memory / peer", "bound", "spread (%)"]
    cells = [
        [
            Cell(row["model"]), Cell(row["mode"]), Cell(row["variant"]), Cell(row["peer"]),
            _ratio(row["speed_ratio"], row["speed_goal"], row["bound_speed_ratio"]),
            _ratio(row["bound_speed_ratio"]),
            _ratio(row["memory_ratio"], row["memory_goal"], row["bound_memory_ratio"], at_most=True),
            _ratio(row["bound_memory_ratio"]),
            Cell(f"{row['spread_pct']:.1f}"),
        ]
        for row in networks
    ]  # fmt: skip
    note = "The bound is the same network without depth attention, relative to the same peer."
    headings = [Heading(name, numeric=index > 3) for index, name in enumerate(names)]
    if networks:
        print_terminal(Sheet(f"Whole networks, {where}", headings, [cells], [note]))
    names = [
        "model",
        "step",
        "variant",
        "bytes (MB)",
        "ms",
        "least (ms)",
        "share",
        "speed / peer",
        "speed / compiled",
    ]
    cells = [
        [
            Cell(row["model"]), Cell(row["mode"]), Cell(row["variant"]), Cell(f"{row['bytes'] / 1e6:,.0f}"),
            Cell(f"{1000 * row['seconds']:.2f}"), Cell(f"{1000 * row['seconds_of_moving_once']:.2f}"),
            _ratio(row["of_moving_once"], row["goal"]), _ratio(row["speed_ratio"]),
            _ratio(row["speed_ratio_to_compiled"]),
            Cell(f"{row['spread_pct']:.1f}"),
        ]
        for row in stages
    ]  # fmt: skip
    note = "Least is the time of moving the bytes once, share is least / ms. The peer is in float32."
    headings = [Heading(name, numeric=index > 2) for index, name in enumerate([*names, "spread (%)"])]
    if stages:
        print_terminal(Sheet(f"Single stages, {where}", headings, [cells], [note]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--models", nargs="+", default=["sda_resnet86", "sda_pyconv86"])
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--modes", nargs="+", choices=[*STEPS], default=[*STEPS])
    parser.add_argument("--variants", nargs="+", choices=[*VARIANTS])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--no-bound", action="store_false", dest="bound", help="Leave out the bound.")
    parser.add_argument("--output", type=Path, default=Path("runs/depth_attention.json"))
    options = parser.parse_args()
    device = torch.device(options.device)
    cuda = device.type == "cuda"
    options.batch_size = options.batch_size or (64 if cuda else 4)
    options.repeats = options.repeats or (30 if cuda else 7)
    variants = [
        VARIANTS[name] for name in options.variants or (VARIANTS if cuda else ["fp32", "fp32-channels-last"])
    ]
    networks, stages, details = [], [], []
    with strict_fp32(device), compiler_errors("the benchmark"):
        torch.backends.cudnn.benchmark = cuda
        settings = environment(device)
        load_libraries(device, options.modes)
        for name in options.models:
            assert_same(name)
            for mode in options.modes:
                if "networks" in options.parts:
                    found = whole_network(name, mode, variants, options)
                    networks += network_rows(name, mode, found, device.type)
                    details += [
                        {"model": name, "mode": mode, "who": who, "variant": variant}
                        | each.as_json(options.batch_size)
                        for (who, variant), each in found.items()
                    ]
                if "stages" in options.parts:
                    alone = stage_alone(name, mode, variants, options)
                    stages += stage_rows(name, mode, alone, device.type)
                print(f"{name}, {mode}: done", flush=True)
    where = (
        f"{options.batch_size} images of {options.resolution}x{options.resolution} on {settings['device']}"
    )
    print_rows(networks, stages, where)
    record = {
        "schema": "sdabench.benchmark.depth_attention/1",
        "batch_size": options.batch_size,
        "resolution": options.resolution,
        "repeats": options.repeats,
        "variants": [asdict(variant) for variant in variants],
        "revision": git_revision(),
        "environment": settings | {"cudnn_benchmark": cuda},
        "networks": networks,
        "stages": stages,
        "measured": details,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(record, indent=2) + "\n")
    print(f"record: {options.output}")


if __name__ == "__main__":
    main()
