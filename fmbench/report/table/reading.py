"""How the benchmark table is to be read: terms and what they mean, for all outputs."""

#: By term, the sentences whose subject it is. Plain text.
READING = {
    "Test accuracy": (
        "is measured after the last epoch; nothing was chosen on the test set. Over n ≥ 2 seeds "
        "it is the mean ± the standard deviation (n - 1 in the denominator). Rows are ordered by "
        "this mean, unless a note says otherwise."
    ),
    "95 % interval": (
        "of that mean, by Student's t. One seed has none: how far another would land is not known."
    ),
    "Rank": (
        "is 1, and one more for each row that is better beyond doubt. Two rows can differ in rank "
        "and not be told apart: a third may be better than one of them alone. Each pair of rows "
        "on one test set is compared image by image where their runs kept what they answered, "
        "with the spread of each row's own seeds on top, and corrected for the number of pairs "
        "(Holm): at most one table in twenty whose rows do not differ has two ranks. Rows of one "
        "seed are compared with each other alone, by McNemar's test, and only where there are no "
        "two rows of several seeds. Their rank has a mark (1*): it is of trained models, not of "
        "recipes."
    ),
    "n": (
        "counts seeds, and all runs of a row where they were grouped otherwise. 3 of 5 says that "
        "runs of the same config did not complete: failed ones ended early, interrupted ones were "
        "stopped and can go on, pruned ones a search gave up, unfinished ones still run or were "
        "killed. Trials of a search that were not "
        "looked at on the test set are no rows."
    ),
    "Chosen": (
        "says how a search came to choose a row among its trials. Validation accuracy is then "
        "optimistic; test accuracy is not."
    ),
    "Best on test": (
        "is the best epoch as seen on the test set itself. That is optimistic, and never decides "
        "the order; it stands only where every seed has it."
    ),
    "Published": (
        "is the figure of the project that a row takes its recipe from, and how it was chosen "
        "where that is stated."
    ),
    "Difference": (
        "is ours less theirs: where theirs is the best epoch on test, so is ours, if we looked "
        "each epoch; else ours is the last epoch. A row whose recipe was changed has none. "
        "Published experiments run in fp32: a difference of runs in bf16 says so. The device is no "
        "part of a recipe."
    ),
    "Split": "names the images to train, validate and test on.",
    "FLOPs": "count the forward pass of one image, a multiply-add as two operations.",
    "Training time": (
        "is the wall time of the training clock, mean ± standard deviation over the seeds: "
        "evaluation has a clock of its own. Total time has both, and all else from the moment the "
        "images are in memory."
    ),
    "Runs at once": (
        "are those of one sweep that shared the machine, - where that is not known. What other "
        "programs did there is not known either."
    ),
    "Images/s": (
        "are the training images of all seeds over their training clocks. They and all times "
        "compare only between rows of one device and one setting of it."
    ),
    "Published time": "was taken on another device.",
    "Peak memory": "is that of the process, or of the GPU where there is one.",
    "One row": (
        "is one configuration on one device in one precision. The same run made again (same "
        "settings, same seed) counts once, the newest of them."
    ),
}
