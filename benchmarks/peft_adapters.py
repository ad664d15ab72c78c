"""LoRA and IA3 of PEFT on a frozen backbone, for comparisons. It needs ``pip install peft``."""

from torch import nn

KINDS = {"lora": "LoRA", "ia3": "IA3"}


def inject(backbone: nn.Module, kind: str) -> nn.Module:
    """Freeze a network, in place and in eval mode, and put adapters on its convolutions and linear layers.

    Args:
        backbone: is changed.
        kind: ``"lora"``, of rank 4 with a scale of 2, or ``"ia3"``, a factor for each output channel.
    """
    import peft

    attention = [name for name, layer in backbone.named_modules() if isinstance(layer, nn.MultiheadAttention)]
    layers = [
        name
        for name, layer in backbone.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and not any(name.startswith(f"{outer}.") for outer in attention)
    ]
    if kind == "ia3":
        config: peft.PeftConfig = peft.IA3Config(target_modules=layers, feedforward_modules=[])
    else:
        config = peft.LoraConfig(target_modules=layers, r=4, lora_alpha=8)
    backbone.requires_grad_(False)
    peft.inject_adapter_in_model(config, backbone)
    backbone.eval().train = lambda mode=True: backbone  # type: ignore[method-assign, assignment]  # keeps its statistics
    return backbone
