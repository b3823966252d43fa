"""Build networks by source: of timm, of torchvision, and from a factory of anybody's Python code.

The code of a network runs here and nowhere else. It prints to stderr, and must not use the internet.
"""

import inspect
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from hashlib import sha256
from importlib import import_module, invalidate_caches
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from types import MethodType, ModuleType
from typing import Any
from warnings import catch_warnings, simplefilter

from torch import Tensor, device, get_default_device, nn
from torch.random import fork_rng

from sdabench.errors import SdabenchError, UsageError
from sdabench.hashing import sha256_of_file
from sdabench.models.user_files import SOURCES
from sdabench.offline import network_forbidden
from sdabench.registry.schema import NamedModel
from sdabench.registry.source_models import source_model
from sdabench.registry.sources import Source, check, import_timm, parse
from sdabench.terminal import error_line

_from_files: dict[str, Path] = {}  # modules that files have imported from their folders


def create_external(
    name: str,
    declared: NamedModel,
    *,
    num_classes: int | None = None,
    in_chans: int = 3,
    features_only: bool = False,
    out_indices: Sequence[int] | None = None,
) -> nn.Module:
    """Build a network by source with random weights; see :func:`sdabench.models.build.create_model`.

    Raises:
        UsageError: there is no such network, or its library or factory does not take an argument.
        SdabenchError: its code raises an error, needs the internet, or returns something else than a module.
    """
    source = parse(name)
    check(source)
    options: dict[str, Any] = {}
    if num_classes is not None:
        options["num_classes"] = num_classes
    if in_chans != 3:
        options["in_chans"] = in_chans
    if features_only:
        options["features_only"] = True
        if out_indices is not None:
            options["out_indices"] = tuple(out_indices)
    network: Any = None
    with _clear_errors(name), _on_cpu(), catch_warnings():
        if source.kind != "python":
            simplefilter("ignore")  # advice of libraries on their own arguments
        if source.kind == "timm":
            network = import_timm().create_model(source.target, pretrained=False, **options)
        elif source.kind == "torchvision":
            network = _of_torchvision(source, declared, options)
        else:
            network = _of_factory(source, options)
        if not isinstance(network, nn.Module):
            raise UsageError(f"'{name}' returned {_kind(network)}, not a torch.nn.Module; return a network")
    setattr(network, "model_name", name)  # noqa: B010  # mypy takes attributes of modules for tensors
    return network


def classifier_of(name: str) -> dict[str, int]:
    """Return the tensors of a classifier by source whose shape follows the number of classes.

    The value of each is the dimension of the classes. Empty if the factory has no such parameter.
    """
    declared = source_model(name)
    with fork_rng(devices=[]):
        one, other = (
            create_external(name, declared, num_classes=classes).state_dict() for classes in (11, 13)
        )
    return {
        key: next(
            dim
            for dim, sizes in enumerate(zip(tensor.shape, other[key].shape, strict=True))
            if sizes[0] != sizes[1]
        )
        for key, tensor in one.items()
        if key in other and tensor.ndim == other[key].ndim and tensor.shape != other[key].shape
    }


def _of_torchvision(source: Source, declared: NamedModel, options: dict[str, Any]) -> nn.Module:
    for option in options:
        if option != "num_classes" or options[option] == 0:
            raise UsageError(
                f"torchvision's '{source.target}' has no {option}={options[option]}; use a network of "
                "timm, or a factory: python:./file.py:factory"
            )
    build: Any = import_module("torchvision.models").get_model
    if declared.task == "detection":
        if "num_classes" in options:
            options["num_classes"] += 1  # the background
        network: nn.Module = build(source.target, weights=None, weights_backbone=None, **options)
        network.forward_dense = MethodType(_forward_dense, network)  # type: ignore[assignment]
        return network
    parameters = inspect.signature(import_module("torchvision.models").get_model_builder(source.target))
    if "weights_backbone" in parameters.parameters:  # of semantic segmentation
        options["weights_backbone"] = None
    built: nn.Module = build(source.target, weights=None, **options)
    return built


def _forward_dense(self: Any, x: Tensor, proposals: int = 1000, detections: int = 100) -> list[Tensor]:
    """Run each layer of a detector of torchvision once, as :meth:`Detector.forward_dense` does."""
    features = self.backbone(x)
    maps = [features] if isinstance(features, Tensor) else list(features.values())
    if not hasattr(self, "roi_heads"):
        outputs = self.head(maps)
        return list(outputs.values())
    heads, channels = self.roi_heads, maps[0].shape[1]
    logits, deltas = self.rpn.head(maps)
    outputs = [*logits, *deltas]
    side = heads.box_roi_pool.output_size[0]
    outputs += heads.box_predictor(heads.box_head(x.new_zeros(proposals, channels, side, side)))
    for kind in ("mask", "keypoint"):
        if (head := getattr(heads, f"{kind}_head", None)) is not None:
            side = getattr(heads, f"{kind}_roi_pool").output_size[0]
            values = head(x.new_zeros(detections, channels, side, side))
            outputs.append(getattr(heads, f"{kind}_predictor")(values))
    return outputs


def _of_factory(source: Source, options: dict[str, Any]) -> Any:
    factory, keywords = _factory(source), source.keywords
    for option, value in options.items():
        if _takes(factory, option):
            keywords.setdefault(option, value)
        elif option != "num_classes":  # the width of the output is checked where it is known
            raise UsageError(f"the factory '{source.short}' takes no {option}; add that parameter to it")
    try:
        inspect.signature(factory).bind(**keywords)
    except TypeError as error:
        raise UsageError(
            f"the factory '{source.short}' cannot be called: {error}; it has the parameters "
            f"{inspect.signature(factory)}, given as ?key=value&key=value"
        ) from None
    except ValueError:  # a builtin without a signature
        pass
    with _importable(source):
        return factory(**keywords)


def _factory(source: Source) -> Any:
    """Import the factory of a source."""
    with _importable(source):
        module = _load_file(Path(source.target)) if source.is_file else import_module(source.target)
    factory = getattr(module, source.factory, None)
    if not callable(factory):
        from sdabench.registry import unknown

        own = [name for name, each in vars(module).items() if callable(each) and not name.startswith("_")]
        defined = [
            name for name in own if getattr(getattr(module, name), "__module__", "") == module.__name__
        ]
        listing = f"it has {', '.join(defined[:5])}" if defined else "it defines none"
        place = Path(source.target).name if source.is_file else source.target
        raise UsageError(unknown(f"factory of {place}", source.factory, own, listing))
    return factory


def _takes(factory: Any, name: str) -> bool:
    """Whether a callable has a parameter of this name, or any keywords."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return False
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = name in parameters and parameters[name].kind in kinds
    return named or any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())


@contextmanager
def _importable(source: Source) -> Iterator[None]:
    """Let code import modules beside its file, or, for a module, those in the working directory.

    Modules that another file has imported from its own folder under the same name are imported again.
    """
    folder = Path(source.target).parent if source.is_file else Path.cwd()
    before = set(sys.modules)
    for name, place in list(_from_files.items()):
        if place != folder and sys.modules.pop(name, None) is not None:
            del _from_files[name]
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with suppress(ValueError):
            sys.path.remove(str(folder))
        if source.is_file:
            for name in set(sys.modules) - before:
                origin = getattr(sys.modules[name], "__file__", None)
                if origin and Path(origin).is_relative_to(folder) and not name.startswith(SOURCES):
                    _from_files[name] = folder


def _load_file(path: Path) -> ModuleType:
    """Import a file, whose folder is a package of its own, so that relative imports find the files beside it.

    A file that has changed is imported again.
    """
    invalidate_caches()
    if SOURCES not in sys.modules:
        _package(SOURCES, [])
    name = f"{SOURCES}.{sha256(str(path.parent).encode()).hexdigest()[:12]}"
    if name not in sys.modules:
        _package(name, [str(path.parent)])
    version = sha256_of_file(path)
    module = sys.modules.get(f"{name}.{path.stem}")
    if module is None or getattr(module, "__sdabench_sha256__", None) != version:
        for loaded in [each for each in sys.modules if each.startswith(f"{name}.")]:
            del sys.modules[loaded]
        module = import_module(f"{name}.{path.stem}")
        module.__sdabench_sha256__ = version  # type: ignore[attr-defined]
    return module


def _package(name: str, folders: list[str]) -> ModuleType:
    spec = ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = folders
    sys.modules[name] = module_from_spec(spec)
    return sys.modules[name]


@contextmanager
def _on_cpu() -> Iterator[None]:
    """Build on the CPU instead of the meta device, which many networks do not support."""
    if get_default_device().type != "meta":
        yield
        return
    with fork_rng(devices=[]), device("cpu"):
        yield


@contextmanager
def _clear_errors(name: str) -> Iterator[None]:
    """Run the code of a network: print to stderr, forbid the internet, and report an error in one line."""
    reason = f"the code of '{name}' must not download anything; pass weights with --weights"
    try:
        with redirect_stdout(sys.stderr), network_forbidden(reason):
            yield
    except SdabenchError:
        raise
    except MemoryError:
        raise
    except SystemExit as error:
        raise SdabenchError(
            f"the code of '{name}' ended with sys.exit({error.code!r}); return a network"
        ) from None
    except Exception as error:
        raise SdabenchError(
            f"'{name}' cannot be built: {type(error).__name__}: {error_line(' '.join(str(error).split()))}"
            f"{_place_of(error)}"
        ) from error


def _place_of(error: Exception) -> str:
    """Return file and line of the code that raised an error; the innermost place that is not torch's."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "site-packages" not in file and Path(file) != Path(__file__) and Path(file).is_file():
            place = f" ({Path(file).name}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return place


def _kind(value: Any) -> str:
    return "None" if value is None else f"an object of type {type(value).__name__}"
