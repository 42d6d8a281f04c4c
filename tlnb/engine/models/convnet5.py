"""ConvNet5: the small network that ships with tlnb, five convolutions and three linear layers."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

WEIGHTS = Path(__file__).parents[2] / "assets" / "convnet5.safetensors"

WIDTHS = (32, 64, 128, 128, 128)
HIDDEN = (256, 256)
HEAD = "classifier.7"
"""Qualified name of the last linear layer, the one that a new task replaces."""


def _convolution(inputs: int, outputs: int) -> list[nn.Module]:
    # The batch norm has a shift of its own, so a bias here would be a parameter without effect.
    return [
        nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]


class ConvNet5(nn.Module):
    """Convolutions 1 to 5 with batch norm, three poolings, then linear layers with dropout between them.

    Takes images of shape (N, 1, 32, 32), float, normalised; gives logits of shape (N, ``num_classes``).
    With 41 classes it has 0.99 million parameters. Convolutions, then linear layers with dropout: the pattern
    of AlexNet (Krizhevsky et al. 2012); batch norm as in Ioffe and Szegedy 2015.

    Args:
        num_classes: number of logits.
        dropout: probability with which a unit between two linear layers is left out in training.
    """

    def __init__(self, num_classes: int, dropout: float = 0.3):
        super().__init__()
        c1, c2, c3, c4, c5 = WIDTHS
        h1, h2 = HIDDEN
        self.features = nn.Sequential(
            *_convolution(1, c1),
            nn.MaxPool2d(2),
            *_convolution(c1, c2),
            nn.MaxPool2d(2),
            *_convolution(c2, c3),
            *_convolution(c3, c4),
            nn.MaxPool2d(2),
            *_convolution(c4, c5),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(1),
            nn.Linear(c5 * 4 * 4, h1),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(h1, h2),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(h2, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of normalised images (N, 1, 32, 32)."""
        return self.classifier(self.features(images))


def convnet5(num_classes: int = 41, dropout: float = 0.3) -> ConvNet5:
    """A ``ConvNet5`` with random weights: He normal, biases zero (He et al. 2015).

    The random numbers come from torch's global generator.
    """
    model = ConvNet5(num_classes, dropout)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model
