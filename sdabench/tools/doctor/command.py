"""``sdabench doctor``."""

import click

from sdabench.cli.help import Command
from sdabench.cli.options import AsJson, echo_json
from sdabench.cli.parameters import declared
from sdabench.errors import ExitCode

EPILOG = """\b
Examples:
  sdabench doctor
  sdabench doctor --json
  sdabench doctor > machine.txt           attach this to a bug report

\b
States:
  ok
  note      worth knowing
  warning   can change a number or stop a run
  problem   fix it before you measure (exit code 1)
"""


@click.command("doctor", cls=Command, epilog=EPILOG)
@declared
def command(
    as_json: AsJson,
) -> None:  # fmt: skip
    """Diagnose this machine: can it reproduce the paper's numbers?

    Probes versions, devices, arithmetic, image decoding and storage, and lists likely causes of a wrong
    accuracy. Nothing is changed, and no network access is needed.
    """
    from sdabench.tools.doctor.diagnosis import diagnose

    diagnosis = diagnose()
    if as_json:
        echo_json(diagnosis.as_json())
    else:
        from sdabench.tools.doctor.view import print_diagnosis

        print_diagnosis(diagnosis)
    if not diagnosis.fit:
        raise click.exceptions.Exit(ExitCode.ERROR)
