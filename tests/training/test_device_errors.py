"""Errors of devices are told apart by their texts, as torch and its libraries word them."""

import pytest
import torch

from sdabench.training.device_errors import describe_device_error, is_out_of_memory, may_be_out_of_memory

CUBLAS = "CUDA error: {} when calling `cublasCreate(handle)`"
CUDNN = "cuDNN error: {}"
ILLEGAL = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported"


@pytest.mark.parametrize(
    ("error", "certain", "possible"),
    [
        (MemoryError(), True, True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True, True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be"), True, True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True, True),
        (RuntimeError(CUBLAS.format("CUBLAS_STATUS_ALLOC_FAILED")), True, True),
        (RuntimeError(CUDNN.format("CUDNN_STATUS_ALLOC_FAILED")), True, True),
        (RuntimeError(CUDNN.format("CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED")), True, True),
        (RuntimeError(CUDNN.format("CUDNN_STATUS_INTERNAL_ERROR")), False, True),
        (RuntimeError(CUDNN.format("CUDNN_STATUS_NOT_SUPPORTED. This error may appear if")), False, True),
        (RuntimeError("GET was unable to find an engine to execute this computation"), False, True),
        (RuntimeError(CUBLAS.format("CUBLAS_STATUS_NOT_INITIALIZED")), False, True),
        (RuntimeError(CUDNN.format("CUDNN_STATUS_EXECUTION_FAILED")), False, False),
        (RuntimeError(ILLEGAL), False, False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False, False),
    ],
)
def test_exhausted_memory_is_recognized(error, certain, possible):
    assert (is_out_of_memory(error), may_be_out_of_memory(error)) == (certain, possible)


def test_errors_of_devices_are_one_line_with_a_step():
    assert describe_device_error(RuntimeError(ILLEGAL)) == (
        "CUDA error: an illegal memory access was encountered; run 'sdabench doctor', or use --device cpu"
    )
    words = describe_device_error(RuntimeError(CUDNN.format("CUDNN_STATUS_INTERNAL_ERROR")))
    assert words.startswith(
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR; memory may be exhausted: try a smaller batch"
    )
    assert describe_device_error(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    assert describe_device_error(ValueError("CUDA error")) is None
