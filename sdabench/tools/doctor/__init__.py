"""Is this machine fit to reproduce the paper's numbers, and what of it would explain a wrong accuracy?"""

from sdabench.tools.doctor import versions
from sdabench.tools.doctor.explanations import explanations
from sdabench.tools.doctor.probe import Check, Diagnosis


def diagnose() -> Diagnosis:
    """Looks at all that a number may depend on besides code and data.

    Nothing is changed, and nothing raised: what is broken is a check whose state is ``problem``. Where a
    package cannot be imported, the sections that need it are left out.
    """
    broken = versions.broken()
    sections = {"Versions": versions.checks(broken)}
    if not broken.keys() & {"torch", "numpy", "Pillow"}:
        sections |= _of_torch()
    if not broken.keys() & {"numpy", "Pillow"}:
        sections |= _of_files()
    return Diagnosis(sections, explanations([check for each in sections.values() for check in each]))


def _of_torch() -> dict[str, list[Check]]:
    from sdabench.tools.doctor import devices, numerics

    return {"Devices": devices.checks(), "Arithmetic": numerics.checks()}


def _of_files() -> dict[str, list[Check]]:
    from sdabench.tools.doctor import decoder, storage

    return {"Images": decoder.checks(), "Storage": storage.checks()}
