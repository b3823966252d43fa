"""Build the stub of the CUDA runtime, and the environment of a process that uses it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch

SOURCE = Path(__file__).with_name("runtime.c")
DEFINED = re.compile(r"^\w[\w *]*?\b(cu(?:da)?[A-Z]\w*)\(", re.MULTILINE)
EXPORTED = re.compile(rb"(?<!\w)cu(?:da)?[A-Z]\w+(?=\0)")
STUB_GPUS = "STUB_GPUS"  # read by runtime.c


class CannotBuildError(Exception):
    """The stub cannot be built here; the message is the reason."""


def stub_environment(folder: Path, gpus: int = 2) -> dict[str, str]:
    """Build the stub in a folder; return the variables of a process in which torch sees that many GPUs."""
    return {"LD_PRELOAD": str(_build(folder)), STUB_GPUS: str(gpus)}


def _build(folder: Path) -> Path:
    """Compile the stub to a library that takes the place of the runtime, and of the driver by its name."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or torch.version.cuda is None:
        raise CannotBuildError("the stub replaces the CUDA runtime of torch on Linux, which is not there")
    if compiler is None:
        raise CannotBuildError("there is no C compiler")
    source = SOURCE.read_text()
    defined = set(DEFINED.findall(source))
    others = sorted(set().union(*map(_exported, _libraries())) - defined)
    (folder / "others.c").write_text("".join(f"int {name}(void) {{ return 0; }}\n" for name in others))
    major, minor, *_ = torch.version.cuda.split(".")
    library = folder / "libcuda.so.1"
    command = [compiler, "-O1", "-w", "-shared", "-fPIC", f"-I{_headers(major)}", "-pthread"]
    command += [f"-DVERSION={int(major) * 1000 + int(minor) * 10}", f"-Wl,-soname,{library.name}"]
    command += ["-o", str(library), str(SOURCE), str(folder / "others.c")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(done.stderr)  # not a reason to skip: the source is wrong
    return library


def _libraries() -> Iterator[Path]:
    """Yield the runtime that this process has loaded, and torch's library that calls the driver."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    yield from {Path(line.split()[-1]) for line in lines if "/libcudart" in line}
    yield Path(torch.__file__).with_name("lib") / "libcaffe2_nvrtc.so"


def _exported(library: Path) -> set[str]:
    return {name.decode() for name in EXPORTED.findall(library.read_bytes())}


def _headers(major: str) -> Path:
    """Find complete headers of torch's version of CUDA: of Triton, of NVIDIA's packages, or of a toolkit."""
    roots = {
        package: list(spec.submodule_search_locations or ())
        for package in ("triton", "nvidia")
        if (spec := find_spec(package)) is not None
    }
    places = [Path(root) / "backends/nvidia/include" for root in roots.get("triton", [])]
    for root in roots.get("nvidia", []):
        places += [Path(root) / f"cu{major}/include", Path(root) / "cuda_runtime/include"]
    places.append(Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "include")
    for place in places:
        api = place / "cuda_runtime_api.h"
        if api.is_file() and (place / "crt" / "host_defines.h").is_file():
            version = re.search(r"#define\s+CUDART_VERSION\s+(\d+)", api.read_text())
            if version and int(version[1]) // 1000 == int(major):
                return place
    raise CannotBuildError(f"there are no headers of CUDA {major}, which Triton has")
