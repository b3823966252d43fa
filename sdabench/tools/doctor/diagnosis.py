"""Running all probes."""

from sdabench.tools.doctor import requirements
from sdabench.tools.doctor.likely_causes import likely_causes
from sdabench.tools.doctor.probe import Diagnosis, Probe


def diagnose() -> Diagnosis:
    """Run all probes. They change nothing and raise nothing: a failure has the state ``problem``.

    Sections that need a package that cannot be imported are left out.
    """
    broken = requirements.import_errors()
    sections = {"Versions": requirements.probes(broken)}
    if not broken.keys() & {"torch", "numpy", "Pillow"}:
        sections |= _sections_with_torch()
    if not broken.keys() & {"numpy", "Pillow"}:
        sections |= _sections_without_torch()
    return Diagnosis(sections, likely_causes([probe for probes in sections.values() for probe in probes]))


def _sections_with_torch() -> dict[str, list[Probe]]:
    from sdabench.tools.doctor import devices, numerics

    return {"Devices": devices.probes(), "Arithmetic": numerics.probes()}


def _sections_without_torch() -> dict[str, list[Probe]]:
    from sdabench.tools.doctor import decoder, storage

    return {"Images": decoder.probes(), "Storage": storage.probes()}
