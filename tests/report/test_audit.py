"""The audit printed on a terminal."""

from typing import get_args

from sdabench.claims.audit import audit
from sdabench.records.counts import stored_counts
from sdabench.registry import load_registry
from sdabench.registry.schema import Counter, Kind
from sdabench.report.audit import print_audit
from sdabench.report.meanings import COUNTS


def test_every_verdict_on_size_and_cost_has_a_meaning():
    verdicts = {f"match ({counter})" for counter in get_args(Counter)}
    verdicts |= {f"explained ({kind})" for kind in get_args(Kind) if kind != "not reproduced"}
    assert set(COUNTS) == verdicts | {"match", "not reproduced", "differs", "not measured"}


def test_each_mismatch_is_printed_with_its_reason(capsys):
    registry = load_registry()
    names = ("resnet50", "cbam50", "sda_resnet86", "pyconvhg101")
    print_audit(audit(registry.tables, {name: stored_counts()[name] for name in names}))
    output = " ".join(capsys.readouterr().out.split())
    assert "CBAM Params 30.62 match (per_call)" in output
    assert "30,620,616 instead of 28,089,624" in output
    assert output.count("ResNet-50 FLOPs 4.12 match (total)") == 1  # its row is in two tables
    assert "SDA-ResNet-86 (ours) Params" not in output
    assert "PyConv-101 Params 44.63 explained (mislabelled)" in output
    assert "and 0 differ" in output
