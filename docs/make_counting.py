"""Compare sdabench's counts with torch's counter and with the numbers that torchvision and timm publish.

    python docs/make_counting.py [torchvision|timm]

It counts every classification network of torchvision and those of docs/timm-gmacs.csv, and rewrites the
tables of docs/counting.md. It fails if a difference has no explanation. It takes some minutes.

docs/timm-gmacs.csv holds rows of ``results/benchmark-infer-amp-nchw-pt240-cu124-rtx4090.csv`` of timm, whose
benchmark script counts with fvcore, with attention in separate operators.
"""

import csv
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import timm
import torch
import torchvision
from timm.layers import set_fused_attn
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import sdabench
from sdabench.complexity.counters import FVCORE_PRODUCTS, fvcore_analysis, sample

PAGE, PUBLISHED = (Path(__file__).with_name(name) for name in ("counting.md", "timm-gmacs.csv"))
BLOCK = re.compile(r"(<!-- differences: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
GIGA = 10**9


class Network(NamedTuple):
    """A network with what its library publishes: parameters, and multiply-adds in units of 10^9."""

    name: str
    side: int
    params: float
    published: float
    module: nn.Module


class Difference(NamedTuple):
    network: Network
    ours: int  # macs and products
    torch: int  # FLOPs of FlopCounterMode
    reason: str  # empty: unexplained


def torchvision_networks() -> Iterator[Network]:
    models = torchvision.models
    for name in models.list_models(module=models):
        published = {
            (each.transforms().crop_size[0], each.meta["_ops"]): each.meta["num_params"]
            for each in models.get_model_weights(name)
        }
        for (side, giga), params in published.items():
            settings = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
            settings |= {"image_size": side} if name.startswith("vit_") else {}
            device = "cpu" if name.startswith("regnet") else "meta"  # its constructor reads values of tensors
            with torch.device(device):
                module = models.get_model(name, **settings).to("meta")
            yield Network(name, side, params / 1e6, giga, module)


def timm_networks() -> Iterator[Network]:
    set_fused_attn(False)
    with PUBLISHED.open() as lines:
        for line in csv.DictReader(lines):
            with torch.device("meta"):
                module = timm.create_model(line["model"])
            side, params, giga = int(line["side"]), float(line["params_m"]), float(line["gmacs"])
            yield Network(line["model"], side, params, giga, module)


def compare(network: Network, with_fvcore: bool) -> Difference:
    size = (3, network.side, network.side)
    counted = sdabench.count(network.module, size, fvcore=False)
    module = network.module.eval().requires_grad_(False)  # FlopCounterMode fails on some parameters
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*sample(module, size))
    ours = counted.macs + counted.products
    candidates = {"ours, rounded": ours}
    if counted.products:
        candidates["macs, without the products"] = counted.macs
    tolerance = 0.0006 * GIGA
    if with_fvcore:
        tolerance = 0.0051 * GIGA
        analysis = fvcore_analysis(module, sample(module, size))
        operators = analysis.by_operator()
        candidates[parts(operators, ours)] = int(sum(operators.values()))
    published = network.published * GIGA
    found = [reason for reason, value in candidates.items() if abs(value - published) <= tolerance]
    params = sum(each.numel() for each in network.module.parameters()) / 1e6
    other = "of another version, with other parameters" if abs(params - network.params) > 0.0051 else ""
    return Difference(network, ours, counter.get_total_flops(), found[0] if found else other)


def parts(operators: Mapping[str, int], ours: int) -> str:
    """Say what fvcore's total has besides the multiply-adds, and how many of these it skips."""
    found = sum(number for name, number in operators.items() if name in FVCORE_PRODUCTS)
    words = [f"fvcore's, {(found - ours) / GIGA:+.3f} of skipped operators" if found != ours else "fvcore's"]
    rest = [(number, name) for name, number in operators.items() if name not in FVCORE_PRODUCTS and number]
    rest = [(number, name) for number, name in rest if number >= 0.0005 * GIGA]
    return ", ".join(words + [f"{number / GIGA:+.3f} {name}" for number, name in sorted(rest, reverse=True)])


def row(difference: Difference, digits: int) -> str:
    network, ours, flops, reason = difference
    params = sum(each.numel() for each in network.module.parameters()) / 1e6
    cells = [
        network.name,
        str(network.side),
        f"{params:.2f}",
        "" if abs(params - network.params) < 0.0051 else f"{network.params:.2f}",
        f"{ours:,}",
        "equal" if flops == 2 * ours else f"{flops / 2 - ours:+,.0f}",
        f"{network.published:.{digits}f}",
        f"{round(network.published - ours / GIGA, digits) + 0.0:+.{digits}f}",
        reason or UNEXPLAINED,
    ]
    return f"| {' | '.join(cells)} |"


def table(library: str) -> str:
    networks, with_fvcore, digits = LIBRARIES[library]
    lines = [f"| {' | '.join(HEAD)} |", "|---|--:|--:|--:|--:|--:|--:|--:|---|"]
    for network in networks():
        lines.append(row(compare(network, with_fvcore), digits))
        print(lines[-1], flush=True)
    return "\n".join(lines)


def write(library: str, content: str) -> None:
    """Replace the table of a library in the page."""

    def replace(block: re.Match[str]) -> str:
        return f"{block[1]}\n{content}\n\n{block[3]}" if block[2] == library else block[0]

    PAGE.write_text(BLOCK.sub(replace, PAGE.read_text()))


HEAD = (
    "network", "side", "params (M)", "published (M)", "macs + products", "torch's counter", "published (G)",
    "difference (G)", "the published number is",
)  # fmt: skip
UNEXPLAINED = "unexplained"
LIBRARIES = {"torchvision": (torchvision_networks, False, 3), "timm": (timm_networks, True, 2)}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for library in sys.argv[1:] or LIBRARIES:
        write(library, table(library))
    sys.exit(UNEXPLAINED in PAGE.read_text())
