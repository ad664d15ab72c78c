"""Active-dendrite networks: pretrained, trainable, and measured for what they forget."""

__version__ = "0.1.0"
