"""Networks from torchvision with a stem for small grey images, trained from scratch."""

from __future__ import annotations

from torch import nn

from hwr.networks.base import CharacterNetwork, init_linear


class ResNet18(CharacterNetwork):
    """ResNet-18 (He et al. 2016), 11 M parameters.

    The 7x7 stem of stride 2 and the max-pooling after it, made for 224 pixels, become one 3x3 convolution.

    Args:
        num_classes: Outputs.
        image_size: Side of the square images; any.
        dropout: Before the head.
    """

    def __init__(self, num_classes: int, image_size: int, dropout: float = 0.0) -> None:
        from torchvision.models import resnet18

        super().__init__()
        net = resnet18(weights=None)
        stem = nn.Conv2d(1, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
        self.backbone = nn.Sequential()
        self.backbone.add_module("stem", nn.Sequential(stem, net.bn1, net.relu))
        for i, layer in enumerate((net.layer1, net.layer2, net.layer3, net.layer4), start=1):
            self.backbone.add_module(f"stage{i}", layer)
        self.backbone.add_module("pooling", nn.Sequential(net.avgpool, nn.Flatten(), nn.Dropout(dropout)))
        self.head = nn.Linear(512, num_classes)
        init_linear(self.head)


class MobileNetV3(CharacterNetwork):
    """MobileNetV3-Small (Howard et al. 2019), 1.5 M parameters.

    The stem takes one channel and has stride 1, so that 28 pixels are not lost in five halvings.

    Args:
        num_classes: Outputs.
        image_size: Side of the square images; any.
        dropout: Before the head.
    """

    def __init__(self, num_classes: int, image_size: int, dropout: float = 0.2) -> None:
        from torchvision.models import mobilenet_v3_small

        super().__init__()
        net = mobilenet_v3_small(weights=None)
        stem = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out")
        net.features[0][0] = stem
        self.backbone = nn.Sequential()
        groups = ((0, 1), (1, 2), (2, 4), (4, 9), (9, 13))  # between the halvings
        for i, (start, stop) in enumerate(groups):
            self.backbone.add_module(f"stage{i}" if i else "stem", net.features[start:stop])
        hidden = nn.Sequential(*net.classifier[:2], nn.Dropout(dropout))
        self.backbone.add_module("pooling", nn.Sequential(net.avgpool, nn.Flatten(), hidden))
        self.head = nn.Linear(1024, num_classes)
        init_linear(self.head)
