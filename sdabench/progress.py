"""Progress bars on stderr, where that is a terminal."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sdabench.processes import is_main_process, note


class Advance:
    """Advance a progress bar by some steps, and show a note beside it. This base class shows no bar."""

    def __call__(self, steps: int, note: str = "") -> None: ...

    def say(self, line: str) -> None:
        """Print a line to stderr, above the bar."""
        note(line)


@contextmanager
def progress(description: str, total: int | None, unit: str = "") -> Iterator[Advance]:
    """Show a progress bar on stderr, if that is a terminal; yield the function that advances it.

    Args:
        total: number of steps; no bar is shown for 0.
        unit: unit of the steps. With a unit, the bar shows rate and remaining time, otherwise elapsed time.
            ``bytes`` are shown as megabytes, and their ``total`` may be unknown.
    """
    if total == 0 or not sys.stderr.isatty() or not is_main_process():
        yield Advance()
        return
    import rich.progress as rich
    from rich.text import Text

    from sdabench.console import PrintableConsole

    class Rate(rich.ProgressColumn):
        def render(self, task: rich.Task) -> Text:
            speed = task.finished_speed or task.speed
            known = speed is not None and (task.elapsed or 0.0) >= 1  # else mostly results that were cached
            return Text(f"{speed:,.1f} {unit}/s" if known else "", style="progress.data.speed")

    of_bytes = unit == "bytes"
    rate = rich.TransferSpeedColumn() if of_bytes else Rate()
    times = (
        (rate, rich.TimeRemainingColumn(elapsed_when_finished=True)) if unit else (rich.TimeElapsedColumn(),)
    )
    count = rich.DownloadColumn() if of_bytes else rich.MofNCompleteColumn()
    columns = (rich.TextColumn("{task.description}", markup=False), rich.BarColumn(), count, *times)
    bar = rich.Progress(*columns, console=PrintableConsole(stderr=True))
    task = bar.add_task(description, total=total)

    class BarAdvance(Advance):
        def __call__(self, steps: int, note: str = "") -> None:
            words = f"{description}  {note}" if note else description
            bar.update(task, advance=steps, description=words)

        def say(self, line: str) -> None:
            with suppress(OSError):
                bar.console.print(Text(line))

    bar.start()
    try:
        yield BarAdvance()
    finally:
        with suppress(OSError):  # the terminal is closed
            bar.stop()
