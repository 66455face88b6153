"""A transform: from images (B, C, H, W), 0 black to 1 white, and draws (B, n) to images."""


class Brightness:
    """Each image becomes brighter or darker by a share of up to `most`."""

    draws = 1  # n: the random numbers, 0 to below 1, that each image gets in each epoch

    def __init__(self, most: float = 0.2) -> None:
        self.most = most

    def __call__(self, images, draws):
        factor = 1 + self.most * (2 * draws[:, :, None, None] - 1)
        return (images * factor).clamp(0, 1)
