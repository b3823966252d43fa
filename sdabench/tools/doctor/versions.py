"""The versions of what computes, against what this package declares that it needs. Free of torch."""

import platform
import re
import sys
import tomllib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version

import sdabench
from sdabench.paths import checkout_dir
from sdabench.tools.doctor.probe import Check

# What each package is imported by here; torch before those that need it.
MODULES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "fvcore": "fvcore.nn",
    "pycocotools": "pycocotools.mask",
    "numpy": "numpy",
    "Pillow": "PIL.Image",
}
NEED_TORCH = ("torchvision", "fvcore")
SHOWN_IF_INSTALLED = ("faster-coco-eval", "tensorboard", "submitit")
_REQUIREMENT = re.compile(r"([\w.-]+)\s*>=\s*([\w.]+)")


@dataclass(frozen=True)
class Requirement:
    """A package of at least some version; an ``optional`` one may be absent."""

    name: str
    minimum: str
    optional: bool = False


def broken() -> dict[str, str]:
    """The packages that cannot be imported, and why; of those that need a broken torch only torch itself."""
    errors: dict[str, str] = {}
    for name, module in MODULES.items():
        if "torch" in errors and name in NEED_TORCH:
            continue
        if error := import_error(module):
            errors[name] = error
    return errors


def checks(broken: Mapping[str, str]) -> list[Check]:
    """Of this program, of Python and of the packages.

    Args:
        broken: why some packages cannot be imported.
    """
    minimums = {canonical(requirement.name): requirement for requirement in declared()}
    found = [_program("torch" not in broken), Check("Python", "ok", platform.python_version())]
    for name in MODULES:
        needed = minimums.pop(canonical(name), Requirement(name, "0"))
        check = of_package(name, imported(name) or installed(name), needed)
        if name in broken and check.state != "problem":
            check = Check(
                name, "problem", f"{check.value}, but it cannot be imported: {broken[name]}",
                "sdabench needs it.", f"pip install --force-reinstall {name}",
            )  # fmt: skip
        elif name == "torchvision" and "torch" not in broken and check.state != "problem":
            check = with_operators(check)
        found.append(check)
    for name in SHOWN_IF_INSTALLED:
        needed = minimums.pop(canonical(name), Requirement(name, "0", optional=True))
        if installed(name) is not None:
            found.append(of_package(name, installed(name), needed))
    rest = [of_package(each.name, installed(each.name), each) for each in minimums.values()]
    return found + [check for check in rest if check.state != "ok"]


def import_error(module: str) -> str | None:
    """Why a module cannot be imported, in one line; None if it can."""
    try:
        with warnings.catch_warnings(action="ignore"):  # what is deprecated in it is no concern of a user's
            import_module(module)
    except Exception as error:  # a broken build fails in ways that no list of errors covers
        return in_one_line(error)
    return None


def in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def declared() -> list[Requirement]:
    """What the checkout's pyproject.toml asks for, or what was asked for when the package was installed."""
    checkout = checkout_dir()
    if checkout is not None:  # an installation's metadata may be older than the checkout
        project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        extras = (text for texts in project["optional-dependencies"].values() for text in texts)
        return [*_read(project["dependencies"]), *_read(f"{text}; extra ==" for text in extras)]
    try:
        return list(_read(requires("sdabench") or []))
    except PackageNotFoundError:
        return []


def _read(texts: Iterable[str]) -> Iterator[Requirement]:
    for text in texts:
        if match := _REQUIREMENT.match(text):
            yield Requirement(match[1], match[2], optional="extra ==" in text)


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def installed(package: str) -> str | None:
    """The version of a package as it was installed, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def imported(package: str) -> str | None:
    """The version that an imported package says of itself, or None where it says none.

    That can be another than what was installed last: Pillow-SIMD takes Pillow's place, also beside it. For
    torch it names the build: ``2.6.0+cpu``.
    """
    found: str | None = getattr(sys.modules.get(MODULES[package]), "__version__", None)
    simd = package == "Pillow" and found is not None and found == installed("Pillow-SIMD")
    return f"{found} (Pillow-SIMD)" if simd else found


def release(text: str) -> tuple[int, ...]:
    """The numbers of a version, without zeros at the end: a vendor's ``2.6.0a0+git`` counts as ``2.6``."""
    match = re.match(r"\d+(?:\.\d+)*", text)
    numbers = [int(part) for part in match[0].split(".")] if match else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def of_package(name: str, found: str | None, needed: Requirement) -> Check:
    install = f"pip install --upgrade '{name}>={needed.minimum}'"
    if found is None:
        if needed.optional:
            return Check(name, "ok", "not installed")
        return Check(name, "problem", "not installed", "sdabench needs it.", install)
    if release(found) < release(needed.minimum):
        return Check(
            name, "warning", f"{found}, older than {needed.minimum}",
            "sdabench is not tested with it, and its numbers may differ.", install, moves_accuracy=True,
        )  # fmt: skip
    return Check(name, "ok", found)


def with_operators(torchvision: Check) -> Check:
    """The check of torchvision, after one of its compiled operators has been called."""
    try:
        import torch
        from torchvision.ops import nms

        boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0]])  # they overlap by 0.9
        kept = nms(boxes, torch.tensor([0.5, 0.6]), iou_threshold=0.5).tolist()
        failure = None if kept == [1] else f"of two boxes nms keeps {kept}, and should keep [1]"
    except Exception as error:  # as in import_error
        failure = in_one_line(error)
    if failure is None:
        return replace(torchvision, value=f"{torchvision.value}, its operators work")
    return Check(
        torchvision.name, "problem", f"{torchvision.value}, its operators fail: {failure}",
        "It does not belong to this torch; detectors cannot work, and most often nothing can.",
        "pip install --upgrade --force-reinstall torch torchvision",
    )  # fmt: skip


def _program(with_revision: bool) -> Check:
    revision = None
    if with_revision:
        from sdabench.records.environment import git_revision

        revision = git_revision()
    return of_program(revision)


def of_program(revision: str | None) -> Check:
    """Of sdabench itself, at a commit of its checkout (``-dirty``: changed since), or None if installed."""
    commit, dirty, _ = (revision or "").partition("-dirty")
    value = f"{sdabench.__version__}, {f'commit {commit[:10]}' if commit else 'installed'}"
    if not dirty:
        return Check("sdabench", "ok", value)
    return Check(
        "sdabench", "note", f"{value}, changed since",
        "Records say -dirty: nobody else can check out what made them.",
        "Commit before a measurement that is to be published.",
    )  # fmt: skip
