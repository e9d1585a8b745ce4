"""A GPU's own limits, measured: matrix products and copies. Every time is the median of several, by the GPU's clock."""

import statistics
from typing import Any, Callable, Dict

TIMED, WARM = 12, 3
SIZE = 8192  # of square matrices: two of them are larger than any cache
COPIED_BYTES = 4 << 30


def gpu_ms(work: Callable[[], Any], timed: int = TIMED) -> float:
    """Milliseconds of ``work`` on the GPU."""
    import torch

    for _ in range(WARM):
        work()
    events = [torch.cuda.Event(enable_timing=True) for _ in range(timed + 1)]
    events[0].record()
    for event in events[1:]:
        work()
        event.record()
    torch.cuda.synchronize()
    return statistics.median(float(before.elapsed_time(after)) for before, after in zip(events, events[1:]))


def matrix_rate(dtype: Any) -> float:
    """FLOP/s of a product of two square matrices of random numbers."""
    import torch

    left, right = (torch.randn(SIZE, SIZE, device="cuda").to(dtype) for _ in range(2))
    return 2.0 * SIZE**3 / gpu_ms(lambda: left @ right) * 1e3


def fp8_rate() -> float:
    """The same in FP8, with a scale for each row and column."""
    import torch

    left, right = (torch.randn(SIZE, SIZE, device="cuda").to(torch.float8_e4m3fn) for _ in range(2))
    rows, columns = torch.ones(SIZE, 1, device="cuda"), torch.ones(1, SIZE, device="cuda")

    def product() -> Any:
        return torch._scaled_mm(
            left, right.t(), rows, columns, out_dtype=torch.bfloat16, use_fast_accum=True
        )  # fmt: skip

    return 2.0 * SIZE**3 / gpu_ms(product) * 1e3


def copy_rate() -> float:
    """Bytes a second of a copy within the GPU's memory, those read and those written."""
    import torch

    source = torch.empty(COPIED_BYTES, dtype=torch.uint8, device="cuda").random_(0, 255)
    target = torch.empty_like(source)
    return 2.0 * COPIED_BYTES / gpu_ms(lambda: target.copy_(source)) * 1e3


def rates() -> Dict[str, float]:
    """All of them, with units in the names."""
    import torch

    found = {
        "bf16_tflops": matrix_rate(torch.bfloat16) / 1e12,
        "fp16_tflops": matrix_rate(torch.float16) / 1e12,
        "fp32_tflops": matrix_rate(torch.float32) / 1e12,
        "copy_tb_per_s": copy_rate() / 1e12,
    }
    if torch.cuda.get_device_capability() >= (8, 9):
        found["fp8_tflops"] = fp8_rate() / 1e12
    torch.cuda.empty_cache()
    return found
