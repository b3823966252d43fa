"""Types of options refuse values outside their range."""

import os
from pathlib import Path

import click
import pytest

from sdabench.cli import StoppedBySignalError
from sdabench.cli.cluster import slurm_minutes
from sdabench.cli.options import COUNT, PIXELS, WORKERS, FiniteRange, OutputFolder
from sdabench.cli.work import ensure_generated
from sdabench.data.source import DataSource
from sdabench.errors import UsageError


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "-1", "1e10", "x"])
def test_numbers_that_are_not_finite_are_refused(text):
    with pytest.raises(click.BadParameter):
        FiniteRange(min=0).convert(text, None, None)


def test_finite_numbers_are_accepted():
    assert [FiniteRange(min=0).convert(text, None, None) for text in ("0", "0.5", "1e9")] == [0, 0.5, 1e9]


@pytest.mark.parametrize(("kind", "largest"), [(COUNT, 10**9), (WORKERS, 1024), (PIXELS, 16384)])
def test_whole_numbers_have_an_upper_bound(kind, largest):
    assert kind.convert(str(largest), None, None) == largest
    for text in (str(largest + 1), "9" * 20, "inf"):
        with pytest.raises(click.BadParameter):
            kind.convert(text, None, None)


def test_name_of_an_output_folder_must_be_utf_8():
    kind = OutputFolder(file_okay=False)
    assert kind.convert("naïve", None, None) == Path("naïve")
    with pytest.raises(click.BadParameter, match="not UTF-8"):
        kind.convert(os.fsdecode(b"out\xff"), None, None)


def test_interrupted_generation_says_that_it_starts_again(tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setenv("SDABENCH_CACHE", str(tmp_path))
    monkeypatch.setattr("sdabench.data.synthetic.write_dataset", interrupt)
    with pytest.raises(StoppedBySignalError, match="Rerun the same command to generate the dataset from"):
        ensure_generated(DataSource(), "classification")


def test_long_digits_are_not_a_slurm_time():
    with pytest.raises(UsageError, match="is not a Slurm time"):
        slurm_minutes("9" * 5000)
