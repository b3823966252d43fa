"""Probe sdabench, Python and the packages, and compare versions with those that sdabench requires."""

import platform
import sys
import tomllib
import warnings
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

import sdabench
from sdabench.packages import installed_version
from sdabench.paths import checkout_dir
from sdabench.tools.doctor.probe import Probe, in_one_line

# The module of each package that sdabench imports; torch before the packages that need it.
MODULES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "fvcore": "fvcore.nn",
    "pycocotools": "pycocotools.mask",
    "numpy": "numpy",
    "Pillow": "PIL.Image",
}
NEED_TORCH = ("torchvision", "fvcore")


def import_errors() -> dict[str, str]:
    """Import each package; return the errors. Skip packages that need torch if it cannot be imported."""
    errors: dict[str, str] = {}
    for name, module in MODULES.items():
        if "torch" in errors and name in NEED_TORCH:
            continue
        try:
            with warnings.catch_warnings(action="ignore"):  # deprecations in other packages
                import_module(module)
        except Exception as error:  # a broken build raises anything
            errors[name] = in_one_line(error)
    return errors


def probes(broken: Mapping[str, str]) -> list[Probe]:
    """Probe sdabench, Python and the packages with their import errors; add others that are not ok."""
    required = {canonicalize_name(each.name): each for each in declared_requirements()}
    revision = None
    if "torch" not in broken:
        from sdabench.records.environment import git_revision

        revision = git_revision()
    found = [probe_sdabench(revision), Probe("Python", "ok", platform.python_version())]
    for name in MODULES:
        requirement = required.pop(canonicalize_name(name), Requirement(name))
        probe = probe_package(name, imported_version(name) or installed_version(name), requirement)
        if name in broken and probe.state != "problem":
            probe = Probe(
                name, "problem", f"{probe.value}, but the import fails: {broken[name]}",
                "sdabench requires it.", f"pip install --force-reinstall {name}",
            )  # fmt: skip
        elif name == "torchvision" and "torch" not in broken and probe.state != "problem":
            probe = probe_operators(probe)
        found.append(probe)
    for requirement in required.values():
        version = installed_version(requirement.name)
        probe = probe_package(requirement.name, version, requirement)
        if probe.state != "ok" or (version and is_optional(requirement)):
            found.append(probe)
    return found


def declared_requirements() -> list[Requirement]:
    """Read the requirements from pyproject.toml of a checkout, or else from the installed metadata."""
    checkout = checkout_dir()
    if checkout is not None:  # the metadata of an editable installation may be out of date
        project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        extras = project["optional-dependencies"].items()
        texts = [*project["dependencies"]]
        texts += [f"{text}; extra == '{extra}'" for extra, optional in extras for text in optional]
    else:
        try:
            texts = requires("sdabench") or []
        except PackageNotFoundError:
            texts = []
    return [Requirement(text) for text in texts]


def is_optional(requirement: Requirement) -> bool:
    return requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})


def imported_version(package: str) -> str | None:
    """Return the version that an imported package reports, or None.

    It can differ from the metadata: Pillow-SIMD replaces Pillow, even if both are installed. torch adds its
    build: ``2.6.0+cpu``.
    """
    found: str | None = getattr(sys.modules.get(MODULES[package]), "__version__", None)
    simd = package == "Pillow" and found is not None and found == installed_version("Pillow-SIMD")
    return f"{found} (Pillow-SIMD)" if simd else found


def satisfies(found: str, requirement: Requirement) -> bool:
    """Return whether a version is allowed; a vendor's pre-release ``2.6.0a0+git`` counts as 2.6.0."""
    try:
        version = Version(found.partition(" ")[0])
    except InvalidVersion:
        return False
    allowed = requirement.specifier
    return allowed.contains(version, prereleases=True) or allowed.contains(version.base_version)


def probe_package(name: str, found: str | None, requirement: Requirement) -> Probe:
    install = f"pip install --upgrade '{name}{requirement.specifier}'"
    if found is None:
        if is_optional(requirement):
            return Probe(name, "ok", "not installed")
        return Probe(name, "problem", "not installed", "sdabench requires it.", install)
    if not satisfies(found, requirement):
        return Probe(
            name, "warning", f"{found}, but sdabench requires {requirement.specifier}",
            "sdabench is not tested with this version; numbers may differ.", install, affects_accuracy=True,
        )  # fmt: skip
    return Probe(name, "ok", found)


def probe_operators(torchvision: Probe) -> Probe:
    """Call a compiled operator of torchvision; return the probe with the result."""
    try:
        import torch
        from torchvision.ops import nms

        boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0]])  # IoU 0.9
        selected = nms(boxes, torch.tensor([0.5, 0.6]), iou_threshold=0.5).tolist()
        failure = None if selected == [1] else f"nms selects {selected} of two boxes instead of [1]"
    except Exception as error:  # as in import_errors
        failure = in_one_line(error)
    if failure is None:
        return replace(torchvision, value=f"{torchvision.value}, compiled operators work")
    return Probe(
        torchvision.name, "problem", f"{torchvision.value}, but its compiled operators fail: {failure}",
        "It was built for another version of torch; detectors cannot run.",
        "pip install --upgrade --force-reinstall torch torchvision",
    )  # fmt: skip


def probe_sdabench(revision: str | None) -> Probe:
    """Probe sdabench itself; ``revision`` is that of :func:`sdabench.records.environment.git_revision`."""
    commit, dirty, _ = (revision or "").partition("-dirty")
    value = f"{sdabench.__version__}, {f'commit {commit[:10]}' if commit else 'installed'}"
    if not dirty:
        return Probe("sdabench", "ok", value)
    return Probe(
        "sdabench", "note", f"{value}, with uncommitted changes",
        "Records are marked -dirty: nobody else can check out the code that made them.",
        "Commit before you measure anything to be published.",
    )  # fmt: skip
