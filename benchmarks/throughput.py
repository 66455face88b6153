"""Training speed: the machine's limit, fmbench, and the loops that people write instead.

    python -m benchmarks.throughput

Images per second, for every model and batch size, on the real images, of

- limit: the bare step (forward, loss, backward, optimizer) on one batch that already lies on the
  device, in whichever memory format and precision is fastest (on a GPU also as a CUDA graph); and
  in those that fmbench takes ("same precision");
- fmbench: whole epochs through the product's own path, with crop and flip;
- usual: the loop of older projects: torchvision's data set, a PIL transform for each image, a
  DataLoader with 0 and with 2 workers, float32;
- lightning: the same model and DataLoader in a Lightning Trainer, where lightning is installed.

On a GPU whose bf16 peak is known, one more column has fmbench's share of it.
"""

import itertools
from collections.abc import Iterator, Sequence

from benchmarks.contenders import LIMIT, SAME, Setup, compose, contenders
from benchmarks.frame import Results, Spread, interleaved, main, ratio

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

QUICK = {"models": ("lenet5", "lenet"), "batch_sizes": (64, 256), "seconds": 0.5, "repeats": 2}


def measure(
    *,
    models: Sequence[str] = ("lenet5", "lenet", "resnet18", "preact_resnet20", "densenet"),
    batch_sizes: Sequence[int] = (8, 64, 256, 512),
    repeats: int = 5,
    seconds: float = 2.0,
    budget: float = 180.0,
    usual: bool = True,
    data: str = "fashion_mnist",
    overrides: Sequence[str] = (),
) -> Iterator[Results]:
    """The speed of every contender, named "MODEL, batch SIZE: CONTENDER".

    Args:
        models: options of the group `model`
        batch_sizes: images a step
        repeats: turns
        seconds: of each contender's turn, about; one batch at least
        budget: seconds after which a model at one batch size gets no more turns than three
        usual: whether others than the limit and fmbench compete
        data: an option of the group `data`
        overrides: of the config, as threads=1
    """
    for model, batch_size in itertools.product(models, batch_sizes):
        chosen = [f"model={model}", f"batch_size={batch_size}", f"data={data}", *overrides]
        setup = Setup(compose("augmentation=crop_flip", "epochs=100000", *chosen))
        works, fastest = contenders(setup, seconds, usual=usual)
        rates = interleaved(works, repeats, wait=setup.device.synchronize, budget=budget)
        # A short look beforehand does not say reliably which of two variants is faster.
        limit = [*map(max, zip(rates[SAME], rates.pop(LIMIT, rates[SAME]), strict=True))]
        rates = {LIMIT: limit, **rates}
        found: Results = {name: Spread.of(values, "images/s") for name, values in rates.items()}
        ours = rates.pop("fmbench")
        found |= {f"over {name}": ratio(ours, theirs) for name, theirs in rates.items()}
        shares = [share_of_peak(setup.flops, rate, setup.device.name) for rate in ours]
        if None not in shares:
            found["share of bf16 peak"] = Spread.of([100 * share for share in shares], "%")
        found["limit runs in"] = fastest
        yield {f"{model}, batch {batch_size}: {name}": value for name, value in found.items()}


def share_of_peak(flops: int | None, images_per_second: float, chip: str) -> float | None:
    """The share of a chip's bfloat16 peak that training comes to, 0 to 1; None if not known.

    Counted as is usual for training ("model FLOPs utilisation", Chowdhery et al. 2022,
    arXiv:2204.02311, appendix B): the way forward once and the way back as twice that.

    Args:
        flops: of one image's way forward, a multiply-add as two, as data sheets count.
        images_per_second: trained on.
        chip: the device's name.
    """
    if flops is None or chip not in BF16_PEAK:
        return None
    return 3 * flops * images_per_second / BF16_PEAK[chip]


if __name__ == "__main__":
    main(measure)
