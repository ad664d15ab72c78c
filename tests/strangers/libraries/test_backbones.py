"""Dendrites on networks of torchvision, timm and transformers, with weights drawn at random."""

import io

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
import transformers
from torch import nn

from dendrite_zoo import add_dendrites

IMAGES, TOKENS = torch.rand(12, 3, 64, 64), torch.randint(5, 90, (12, 11))
SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48}


def without_head(network, name):
    setattr(network, name, nn.Identity())
    return network


def bert():
    return transformers.BertModel(transformers.BertConfig(vocab_size=100, **SMALL))


def vit():
    return transformers.ViTModel(transformers.ViTConfig(image_size=64, patch_size=16, **SMALL))


def gpt2():
    return transformers.GPT2Model(transformers.GPT2Config(vocab_size=100, n_embd=32, n_layer=3, n_head=2))


def llama():
    config = transformers.LlamaConfig(vocab_size=100, num_key_value_heads=2, **SMALL)
    return transformers.LlamaModel(config)


def swin():
    return torchvision.models.SwinTransformer([4, 4], 16, [1, 1, 2], [1, 2, 4], [2, 2], num_classes=7)


NETWORKS = {
    "torchvision resnet18": (lambda: without_head(torchvision.models.resnet18(), "fc"), nn.BatchNorm2d, IMAGES),
    "torchvision resnet18, its classes": (torchvision.models.resnet18, "layer4", IMAGES),
    "torchvision swin": (swin, "features.*.mlp.*", IMAGES),
    "timm convnext_atto": (lambda: timm.create_model("convnext_atto", num_classes=0), "stages*.mlp.*", IMAGES),
    "timm vit": (
        lambda: timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=64, depth=3),
        ["blocks.*.attn", "blocks.*.mlp"],
        IMAGES,
    ),
    "transformers bert": (bert, "encoder.layer.*.attention.*", TOKENS),
    "transformers bert, a dictionary": (
        bert,
        nn.Linear,
        {"input_ids": TOKENS, "attention_mask": (torch.arange(11) < torch.arange(12)[:, None]).long()},
    ),
    "transformers vit": (vit, "*mlp*", IMAGES),
    "transformers gpt2": (gpt2, "h.*.mlp", TOKENS),
    "transformers llama": (llama, "layers.*.self_attn", TOKENS),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_it_learns_and_loses_nothing(name):
    torch.manual_seed(0)
    make, layers, x = NETWORKS[name]
    network, labels = make(), (torch.arange(12) % 3, torch.arange(12) // 4)
    weights = {key: value.clone() for key, value in network.state_dict().items()}
    model = add_dendrites(network, layers=layers, num_classes=3, max_tasks=2, shift=True)
    before = None
    for task, y in enumerate(labels):
        model.start_task(task, [x])
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=model.default_lr, weight_decay=0.1)
        losses = []
        for _ in range(6):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x, task=task), y)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < losses[0] and model.column.grad[: sum(model.config["layers"].values())].any()
        model.fit_head(task, [(x, y)])
        model.eval()
        with torch.no_grad():
            if task == 0:
                before = model(x, task=0)
    with torch.no_grad():
        after = model(x, task=1)
        assert torch.equal(model(x, task=0), before) and not torch.equal(after, before)
        scale = float(after.abs().max())
        torch.testing.assert_close(model.fold(1)(x), after, rtol=1e-4, atol=1e-4 * scale)
        assert model(x).shape == (12, 3)
    assert all(torch.equal(value, weights[key]) for key, value in model.backbone.state_dict().items())
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    again = add_dendrites(network, layers=layers, num_classes=3, max_tasks=2, shift=True)
    again.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        assert torch.equal(again.eval()(x, task=1), after)
