"""Recognize errors of devices and of their libraries, which share no class. Free of torch."""

# Texts of errors that state exhausted memory: of torch, the system, cuBLAS and other libraries, and cuDNN 9.
EXHAUSTED = ("out of memory", "can't allocate memory", "_ALLOC_FAILED", "_ALLOCATION_FAILED")
# Libraries also report these if there is no memory for a handle or a workspace.
PERHAPS_EXHAUSTED = (
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_INTERNAL_ERROR",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_NOT_SUPPORTED",
    "unable to find an engine to execute this computation",
)
OF_DEVICES = (
    "CUDA error",
    "CUDA driver error",
    "cuDNN error",
    "CUBLAS_STATUS_",
    "CUDNN_STATUS_",
    "cuFFT error",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of any class means that memory was exhausted."""
    return isinstance(error, MemoryError) or _mentions(error, EXHAUSTED)


def may_be_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means exhausted memory, or can be caused by it, so that less may succeed."""
    return is_out_of_memory(error) or _mentions(error, PERHAPS_EXHAUSTED)


def describe_device_error(error: BaseException) -> str | None:
    """Describe an error of a device or of its libraries in one line with the next step; None for others."""
    if not isinstance(error, RuntimeError) or not _mentions(error, (*OF_DEVICES, *PERHAPS_EXHAUSTED)):
        return None
    first = str(error).strip().splitlines()[0][:150]
    memory = "memory may be exhausted: " if may_be_out_of_memory(error) else ""
    smaller = "try a smaller batch, " if memory else ""
    return f"{first}; {memory}{smaller}run 'sdabench doctor', or use --device cpu"


def _mentions(error: BaseException, texts: tuple[str, ...]) -> bool:
    words = str(error)
    return any(text in words for text in texts)
