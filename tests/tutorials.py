"""Models as tutorials write them, which somebody may bring along to fmbench.

export FMBENCH_TRUST=tutorials PYTHONPATH=tests
python -m fmbench data=synthetic epochs=1 model._target_=tutorials.Blitz
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn


class Blitz(nn.Module):
    """Flattens with `view`, which asks for contiguous memory."""

    def __init__(self, hidden=256):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(hidden, 120)
        self.fc2 = nn.Linear(120, 10)

    def forward(self, x):
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = x.view(len(x), -1)
        return self.fc2(F.relu(self.fc1(x)))


class Colour(nn.Sequential):
    """Written for colour images."""

    def __init__(self):
        super().__init__(nn.Conv2d(3, 6, 5), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))


class LazyResNet(nn.Module):
    """Lazy layers, batch norm among them, and a 1 x 1 convolution with stride 2 of few channels."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.LazyConv2d(4, 3, padding=1), nn.LazyBatchNorm2d(), nn.ReLU())
        self.residual = nn.Sequential(
            nn.LazyConv2d(8, 3, padding=1, stride=2), nn.LazyBatchNorm2d(), nn.ReLU(),
            nn.LazyConv2d(8, 3, padding=1), nn.LazyBatchNorm2d(),
        )  # fmt: skip
        self.shortcut = nn.LazyConv2d(8, 1, stride=2)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(10))

    def forward(self, x):
        x = self.stem(x)
        return self.head(F.relu(self.residual(x) + self.shortcut(x)))


class NormedMLP(nn.Sequential):
    """Batch norm over single numbers, which cannot be trained on one image."""

    def __init__(self):
        super().__init__(
            nn.Flatten(), nn.Linear(784, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.5),
            nn.Linear(32, 10),
        )  # fmt: skip


class Matrices(nn.Sequential):
    """No biases: an optimizer for matrices alone takes all of it."""

    def __init__(self):
        super().__init__(
            nn.Flatten(), nn.Linear(784, 32, bias=False), nn.ReLU(), nn.Linear(32, 10, bias=False)
        )


class RowsLSTM(nn.Module):
    """Reads the image row by row."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(28, 16, num_layers=1, batch_first=True)
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        x = x.squeeze(1)
        h0 = torch.zeros(1, x.size(0), 16).to(x.device)
        c0 = torch.zeros(1, x.size(0), 16).to(x.device)
        out, _ = self.lstm(x, (h0, c0))
        return self.fc(out[:, -1, :])


class PatchTransformer(nn.Module):
    """A small vision transformer on patches of 7 x 7."""

    def __init__(self, width=32):
        super().__init__()
        self.patches = nn.Conv2d(1, width, 7, stride=7)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, 17, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 4, 64, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], dim=1) + self.places
        return self.head(self.encoder(x)[:, 0])


class Spectral(nn.Module):
    """A discriminator's layers, with spectral norm; it cannot be copied once it has run."""

    def __init__(self):
        super().__init__()
        norm = nn.utils.spectral_norm
        self.net = nn.Sequential(
            norm(nn.Conv2d(1, 8, 4, 2, 1)), nn.LeakyReLU(0.2), nn.Flatten(),
            norm(nn.Linear(8 * 14 * 14, 10)),
        )  # fmt: skip
        self.net(torch.zeros(2, 1, 28, 28))  # a look at the shapes

    def forward(self, x):
        return self.net(x)


class FixedBatch(nn.Module):
    """Written for batches of 64 images."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(784, 10)

    def forward(self, x):
        return self.fc(x.reshape(64, -1))


class Auxiliary(nn.Module):
    """Gives a second output while it is trained."""

    def __init__(self):
        super().__init__()
        self.main = nn.Linear(784, 10)
        self.aux = nn.Linear(784, 10)

    def forward(self, x):
        x = x.flatten(1)
        return (self.main(x), self.aux(x)) if self.training else self.main(x)


class Squeezed(nn.Module):
    """Loses the batch where it is one image."""

    def __init__(self, outputs=10):
        super().__init__()
        self.conv = nn.Conv2d(1, outputs, 28)

    def forward(self, x):
        return self.conv(x).squeeze()


class Grown(nn.Module):
    """Makes a layer in its first forward pass, when the optimizer has its parameters already."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.fc = None

    def forward(self, x):
        x = self.conv(x).relu().flatten(1)
        if self.fc is None:
            self.fc = nn.Linear(x.shape[1], 10)
        return self.fc(x)


class Speckle:
    """Darkens each image at two rows of its own."""

    draws = 2

    def __init__(self, amount=0.5):
        self.amount = amount

    def __call__(self, images, draws):
        rows = (draws * images.shape[2]).long()[:, None, :, None]
        here = torch.arange(images.shape[2], device=images.device)[:, None]
        return torch.where((rows.amin(2, True) == here) | (rows.amax(2, True) == here),
                           images * self.amount, images)  # fmt: skip


class Wrong:
    """A transform of images that does what it may not."""

    def __init__(self, fault):
        self.fault = fault
        self.draws = {"count": 1.5}.get(fault, 1)

    def __call__(self, images, draws):
        return {
            "shape": lambda: images[:, :, 1:],
            "dtype": images.double,
            "tuple": lambda: (images, draws),
            "infinite": lambda: images / 0,
            "random": lambda: images + torch.rand(1),
            "batch": lambda: images - images.mean(),
            "least": lambda: images - images.min(),
            "first": lambda: images - images[:1] * (len(images) > 1),
            "error": lambda: images @ torch.ones(3, 3),
        }[self.fault]()


class Centered(nn.Module):
    """A loss that remembers a running mean of the logits."""

    def __init__(self, *, classes, fault=None):
        super().__init__()
        self.fault, self.calls, self.seen = fault, 0, [0]
        self.register_buffer("center", torch.zeros(classes))
        self.register_buffer("late", None)
        self.register_buffer("aside", torch.zeros(()), persistent=False)

    def forward(self, logits, targets):
        mean = logits.mean(0)
        if self.fault == "attribute":
            self.calls += 1
        elif self.fault == "list":
            self.seen[0] += 1
        elif self.fault == "not persistent":
            self.aside += 1
        elif self.fault == "late":
            self.late = mean.detach()
        if self.fault in ("gradient", "replaced"):
            self.center = 0.9 * self.center + 0.1 * (
                mean if self.fault == "gradient" else mean.detach()
            )
        else:
            self.center.lerp_(mean.detach(), 0.1)
        return F.cross_entropy(logits - self.center, targets)


class Blurred(nn.Module):
    """A transform of images with a convolution whose weights are parameters, or a buffer."""

    draws = 0

    def __init__(self, trained=True):
        super().__init__()
        weight = torch.full((1, 1, 3, 3), 1 / 9)
        if trained:
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight)

    def forward(self, images, draws):
        return F.conv2d(images, self.weight, padding=1)


def bare_schedule(optimizer, *, epochs, batches):
    """One of PyTorch's, which does not say when it takes a step."""
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)


def bare_average(model, *, epochs, batches):
    """A list of weights, no average."""
    return [parameter.detach().clone() for parameter in model.parameters()]
