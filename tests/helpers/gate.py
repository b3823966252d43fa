"""Run ``sdabench check`` and check its exit code."""

from pathlib import Path

from tests.helpers.program import sdabench


def check(*arguments: object, rc: int) -> str:
    """Run the gate, check its exit code, and return its output."""
    result = sdabench("check", *arguments)
    assert result.returncode == rc, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout + result.stderr


def tiny_in(folder: Path, *options: object) -> tuple[object, ...]:
    """Return the arguments that check the network ``tiny`` against the golden files of a folder."""
    return ("--models", "tiny", "--baseline", folder, *options)
