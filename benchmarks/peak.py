"""How much of what a GPU can do is done: the share of its bfloat16 peak.

Counted as is usual for training ("model FLOPs utilisation", Chowdhery et al. 2022,
arXiv:2204.02311, appendix B): the way forward once and the way back as twice that, whatever is
computed besides. Data sheets count a multiply-add as two operations, and so does
`fmbench.training.cost.count_flops`.
"""

#: Dense bfloat16 FLOP/s by the name that CUDA gives. NVIDIA's H100, H200 and A100 data sheets;
#: where a sheet prints the figure with sparsity, half of it. Other forms of a chip (PCIe and NVL
#: cards of the H100, slices of one) have other peaks, so only whole names count.
BF16_PEAK = {
    "NVIDIA H100 80GB HBM3": 989.4e12,
    "NVIDIA H200": 989.4e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
}


def share_of_peak(flops: int | None, images_per_second: float, chip: str) -> float | None:
    """The share of a chip's bfloat16 peak that training comes to, 0 to 1.

    Args:
        flops: of one image's way forward, a multiply-add as two; None where not known.
        images_per_second: trained on.
        chip: the device's name.

    Returns:
        None where the chip's peak or the net's FLOPs are not known.
    """
    if flops is None or chip not in BF16_PEAK:
        return None
    return 3 * flops * images_per_second / BF16_PEAK[chip]
