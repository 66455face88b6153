"""How the benchmark table is to be read: terms and what they mean, for all outputs."""

#: By term, the sentences whose subject it is. Plain text.
READING = {
    "Test accuracy": (
        "is measured after the last epoch; nothing was chosen on the test set. Over n ≥ 2 seeds "
        "it is the mean ± the standard deviation (n - 1 in the denominator). Rows are ordered by"
        " this mean."
    ),
    "+1 failed": (
        "beside n counts runs of the same config that ended early, pruned those that a search "
        "gave up, unfinished those that still run or were killed. Trials of a search that were "
        "not looked at on the test set are no rows."
    ),
    "Best on test": (
        "is the best epoch as seen on the test set itself. That is optimistic, and never decides"
        " the order; it stands only where every seed has it."
    ),
    "Published": (
        "is the figure of the project that a row takes its recipe from, and how it was chosen "
        "where that is stated."
    ),
    "Difference": (
        "is ours less theirs: where theirs is the best epoch on test, so is ours, if we looked "
        "each epoch; else ours is the last epoch. A row whose recipe was changed has none. "
        "Precision and device are no part of a recipe."
    ),
    "Split": "names the images to train, validate and test on.",
    "FLOPs": "count the forward pass of one image, a multiply-add as two operations.",
    "Wall time": (
        "is the training clock, mean over the seeds: evaluation and start-up are outside it."
    ),
    "Images/s": (
        "are the training images of all seeds over their training clocks. They and wall times "
        "compare only between rows of one device and precision."
    ),
    "Published time": "was taken on another device.",
    "One row": (
        "is one configuration on one device in one precision. The same run made again (same "
        "settings, same seed) counts once, the newest of them."
    ),
}
