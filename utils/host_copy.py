"""Move tensors between the host and the device that computes, so that neither waits before it must."""

import torch
from torch import Tensor


class HostCopy:
    """Starts to copy a tensor when it is made; `read` waits for the copy, and for nothing that was queued after it."""

    def __init__(self, tensor: Tensor):
        self._copy = tensor.detach().to("cpu", non_blocking=True)  # from a GPU: into page-locked memory
        self._ready = torch.cuda.current_stream(tensor.device).record_event() if tensor.is_cuda else None

    def read(self) -> Tensor:
        """Return the tensor on the host."""
        if self._ready is not None:
            self._ready.synchronize()
        return self._copy


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Queue the copy of a host's tensor to a device: nobody waits for it, and what is queued there later sees it."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
