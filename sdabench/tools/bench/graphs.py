"""Capture the steps of ``sdabench bench`` in CUDA graphs, which the host launches at once."""

from collections.abc import Callable

import torch

from sdabench.errors import SdabenchError, UsageError
from sdabench.tools.bench.steps import Step, TrainingStep
from sdabench.training.device_errors import is_out_of_memory

MIN_WARMUP_STEPS = 3  # before a capture: libraries allocate workspaces, and the optimizer its momentum


def refuse_graphs(device: torch.device) -> None:
    """Raise a UsageError for a device without CUDA graphs."""
    if device.type != "cuda":
        raise UsageError(f"--cuda-graphs needs a CUDA device, not {device}; leave it out")


class Capture:
    """Capture steps on one device. The graphs share their memory, because only one step runs at a time.

    A step has to use the same tensors each time, and the host must not wait for a value. The captured step
    keeps the original one, because a replay uses its tensors.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pool = torch.cuda.graph_pool_handle()
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __call__(
        self,
        name: str,
        step: Step,
        warmup: int = MIN_WARMUP_STEPS,
        begin: Callable[[], object] = lambda: None,
    ) -> Step:
        """Return a step that replays the kernels of a network's step; call ``begin`` before the capture.

        The update of the weights of a training with a loss scale (fp16) is not captured, because the host
        decides by a value whether to skip it.

        Raises:
            SdabenchError: the step cannot be captured.
        """
        with torch.cuda.device(self.device):
            self._warm_up(step, max(MIN_WARMUP_STEPS, warmup))
            begin()
            if not (isinstance(step, TrainingStep) and step.scaler.is_enabled()):
                return self._captured(name, step)
            compute_gradients = self._captured(name, step.compute_gradients)
            update_weights = step.update_weights

        def partly_captured() -> None:
            compute_gradients()  # overwrites the gradients, which keep their addresses
            update_weights()

        return partly_captured

    def _warm_up(self, step: Step, times: int) -> None:
        """Run a step on a side stream, because the default stream cannot be captured."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            for _ in range(times):
                step()
        torch.cuda.current_stream().wait_stream(self.stream)
        torch.cuda.synchronize()

    def _captured(self, name: str, step: Step) -> Step:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
                step()
        except RuntimeError as error:
            cause = error.__context__ or error  # the end of a capture fails too
            if is_out_of_memory(cause):
                raise cause from None
            reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0][:150]
            raise SdabenchError(
                f"{name} cannot be captured in a CUDA graph: {reason}; leave out --cuda-graphs"
            ) from error

        def replay(step: Step = step) -> None:
            graph.replay()

        return replay
