"""Small plugins for tests."""

from pathlib import Path

BLOCK = """
from sdabench.models import BlockSpec, Bottleneck, register_block
from .gate import Gate

@register_block("{name}")
class Block(Bottleneck):
    def __init__(self, spec: BlockSpec) -> None:
        super().__init__(spec, attention=Gate(spec.out_channels))
"""
GATE = """
import torch
from sdabench.models import Attention

class Gate(Attention):
    def __init__(self, channels):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(channels))

    def forward(self, x):
        return x * torch.sigmoid(x.mean((2, 3)) * self.weight)[:, :, None, None]
"""
FAMILY = """
family: {name}
network: {{block: {block}}}
models:
  {name}14: {{title: {name}-14, baseline: resnet50, network: {{depths: [1, 1, 1, 1]}}}}
"""
PAPER = "authors: Doe, Jane\ntitle: Gates\njournal: Journal of Gates\nvenue: JG\nyear: 2025\n"
TABLE = """
table: {name}
title: Gates
task: classification
suite: {name}
source: Table 2
label_header: Network
columns:
  - {{key: params_m, header: Params, unit: M, decimals: 2, convention: params}}
  - {{key: top1_pct, header: Top-1, unit: "%", decimals: 2}}
groups:
  - name: Gates
    rows:
      - {{label: ResNet-50, model: resnet50, reported: [25.56, 76.15]}}
      - {{label: Gate-14, model: {name}14, reported: [8.03, 70.00]}}
"""


def write_plugin(folder: Path, name: str = "gatenet", block: str | None = None) -> Path:
    """Write a plugin with a block in two files, a family, a paper and a table."""
    block = block or name
    files = {
        "block.py": BLOCK.format(name=block),
        "gate.py": GATE,
        f"models/{name}.yaml": FAMILY.format(name=name, block=block),
        f"tables/{name}.yaml": TABLE.format(name=name),
        "paper.yaml": PAPER,
    }
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder
