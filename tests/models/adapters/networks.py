"""Small backbones: a network of convolutions with batch norm, a U-Net, one of attention, an MLP."""

import torch
from torch import nn

from dendrite_zoo.models.adapters import context, head


def set_few_random_features(put):
    """As many as suffice for a few dozen rows, by ``setattr`` or that of a monkeypatch."""
    put(head, "HIDDEN", 256)
    put(head, "HIDDEN_OF_INPUTS", 512)
    put(context, "LEAST", 256)


class Recurrent(nn.Module):
    """A network of series ``(B, T, F)``, whose first layer raises a ValueError on what is none."""

    def __init__(self, features, outputs):
        super().__init__()
        self.rnn, self.head = nn.GRU(features, 8, batch_first=True), nn.Linear(8, outputs)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


class Convolutions(nn.Module):
    """Images ``(B, 3, H, W)`` to 16 features, over two resolutions."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.body = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.body(self.stem(x))).mean((2, 3))


class UNet(nn.Module):
    """Images ``(B, 3, H, W)`` to maps ``(B, 4, H, W)``, by way of smaller ones."""

    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 8, 3, 2, 1), nn.ConvTranspose2d(8, 6, 2, 2, groups=2)
        self.last = nn.Conv2d(9, 4, 1)

    def forward(self, x):
        return self.last(torch.cat([x, torch.relu(self.up(torch.relu(self.down(x))))], 1))


class Attention(nn.Module):
    """Tokens ``(B, T)`` to a sequence ``(B, T, 16)``."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(20, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3)

    def forward(self, ids, attention_mask=None):
        padding = None if attention_mask is None else attention_mask == 0
        return {"last_hidden_state": self.encoder(self.tokens(ids), src_key_padding_mask=padding)}


def made(kind, seed=0):
    """A backbone with statistics and weights of its own."""
    torch.manual_seed(seed)
    network = kind()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
            nn.init.normal_(module.weight, 1.0, 0.2)
    return network


def mlp():
    return nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())


IMAGES, TOKENS = torch.rand(24, 3, 12, 12), torch.randint(20, (24, 9))
