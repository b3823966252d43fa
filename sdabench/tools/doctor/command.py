"""``sdabench doctor``."""

import click

from sdabench.cli.options import echo_json, json_option
from sdabench.errors import ExitCode

EPILOG = """\b
Examples:
  sdabench doctor
  sdabench doctor --json
  sdabench doctor > machine.txt           to send with a question

\b
The states: ok; note, which is worth knowing; warning, which can change a number
or end a run; problem, which has to be mended first and makes the exit code 1.
"""


@click.command("doctor", epilog=EPILOG)
@json_option
def command(as_json: bool) -> None:
    """Is this machine fit to measure, and what of it would explain a wrong accuracy?

    Looks at versions, devices, arithmetic, image decoding and storage, with a small computation, a small JPEG
    file and a temporary file for each folder. It changes nothing, and needs no network.
    """
    from sdabench.tools.doctor import diagnose

    diagnosis = diagnose()
    if as_json:
        echo_json(diagnosis.as_json())
    else:
        from sdabench.tools.doctor.view import print_diagnosis

        print_diagnosis(diagnosis)
    if not diagnosis.fit:
        raise click.exceptions.Exit(ExitCode.ERROR)
