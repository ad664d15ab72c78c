"""Networks of timm, torchvision, transformers, MONAI and segmentation_models_pytorch as people use them."""

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from lightning.pytorch import LightningModule, Trainer
from monai.losses import DiceLoss
from monai.metrics import DiceMetric
from monai.networks.nets import UNet
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy
from torchvision.models import mobilenet_v3_small
from torchvision.transforms import v2
from transformers import ViTConfig, ViTForImageClassification

from dendrite_zoo.callbacks import ForgettingLogger, SparsityLogger, SubnetworkLogger
from tests.strangers.libraries.data import EPOCHS, Images, T, accuracy, task_of, train_loader, val_loader
from tests.strangers.people import ONE_FIT, QUIET, pipeline
from tests.strangers.witness import check, matrix_by_hand, with_and_without


class Classifier(LightningModule):
    """Somebody's base class."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.cross_entropy(self(x), y)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        self.log("val_acc", (self(x).argmax(1) == y).float().mean(), prog_bar=True)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=2e-3)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6)]

    def train_dataloader(self):
        return train_loader(task_of(self.trainer))

    def val_dataloader(self):
        return [val_loader(j) for j in range(T)]


@pipeline
def timm_convnext(callbacks):
    """A ConvNeXt of timm, with one torchmetrics object."""

    class Net(Classifier):
        def __init__(self):
            super().__init__(timm.create_model("test_convnext", pretrained=False, num_classes=3))
            self.acc = MulticlassAccuracy(3)  # macro: no mean of batches

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            x, y = batch
            self.acc(self(x), y)
            self.log("val_acc", self.acc, prog_bar=True)

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net())


@pipeline
def timm_vision_transformer(callbacks):
    """A ViT of timm, each task fitted by a Trainer of its own."""
    options = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 3}
    net = Classifier(timm.create_model("vit_tiny_patch16_224", pretrained=False, **options))
    for task in range(T):
        trainer = Trainer(max_epochs=EPOCHS, callbacks=callbacks(task), gradient_clip_val=1.0, **QUIET)
        trainer.fit(net, train_loader(task), [val_loader(j) for j in range(task + 1)])


@pipeline
def torchvision_mobilenet(callbacks):
    """torchvision's MobileNet (one Hardswish in place, Dropout), random crops in training."""

    class Net(Classifier):
        augment = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomCrop(32, padding=2)])

        def training_step(self, batch, batch_idx):
            return super().training_step((self.augment(batch[0]), batch[1]), batch_idx)

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net(mobilenet_v3_small(num_classes=3)))


@pipeline
def transformers_vit(callbacks):
    """Hugging Face's ViT from a config; its outputs are an object with `.loss` and `.logits`."""

    class Net(Classifier):
        def forward(self, x):
            return self.net(pixel_values=x).logits

        def training_step(self, batch, batch_idx):
            return self.net(pixel_values=batch[0], labels=batch[1]).loss

    shape = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    config = ViTConfig(image_size=32, patch_size=8, num_labels=3, hidden_act="relu", **shape)
    Trainer(**ONE_FIT, callbacks=callbacks).fit(Net(ViTForImageClassification(config)))


@pipeline
def smp_unet(callbacks):
    """The example of segmentation_models_pytorch: outputs are kept, and counted when the epoch ends."""

    class Pets(LightningModule):
        def __init__(self):
            super().__init__()
            self.model = smp.Unet("resnet18", encoder_weights=None, in_channels=3, classes=1)
            self.loss_fn = smp.losses.DiceLoss(smp.losses.BINARY_MODE, from_logits=True)

        def forward(self, image):
            return self.model(image)

        def training_step(self, batch, batch_idx):
            x, _ = batch
            return self.loss_fn(self(x), (x[:, :1] > 0.7).float())

        def on_validation_epoch_start(self):
            self.outputs = {}

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            x, _ = batch
            stats = smp.metrics.get_stats(self(x).sigmoid() > 0.5, x[:, :1] > 0.7, mode="binary")
            self.outputs.setdefault(dataloader_idx, []).append(stats)

        def on_validation_epoch_end(self):
            for j, outputs in self.outputs.items():
                tp, fp, fn, tn = (torch.cat(one) for one in zip(*outputs, strict=True))
                self.log(f"valid_{j}_dataset_iou", smp.metrics.iou_score(tp, fp, fn, tn, reduction="micro"))

        train_dataloader, val_dataloader = Classifier.train_dataloader, Classifier.val_dataloader
        configure_optimizers = Classifier.configure_optimizers

    Trainer(**ONE_FIT, callbacks=callbacks).fit(Pets())


@pipeline
def monai_unet(callbacks):
    """MONAI's UNet with dictionaries as batches; its DiceMetric is no torchmetrics object."""

    class Net(Classifier):
        def __init__(self):
            super().__init__(UNet(2, in_channels=3, out_channels=1, channels=(4, 8), strides=(2,), dropout=0.1))
            self.loss, self.dice = DiceLoss(sigmoid=True), DiceMetric()

        def collate(self, pairs):
            image = torch.stack([x for x, _ in pairs])
            return {"image": image, "label": (image[:, 1:2] > 0.7).float()}

        def train_dataloader(self):
            return DataLoader(Images(task_of(self.trainer), "train"), 8, shuffle=True, collate_fn=self.collate)

        def val_dataloader(self):
            return [DataLoader(Images(j, "test"), 8, collate_fn=self.collate) for j in range(T)]

        def training_step(self, batch, batch_idx):
            return self.loss(self(batch["image"]), batch["label"])

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self.dice((self(batch["image"]) > 0).float(), batch["label"])
            self.last = dataloader_idx
            if batch_idx + 1 == self.trainer.num_val_batches[dataloader_idx]:
                self.log(f"val/dice/{dataloader_idx}", self.dice.aggregate().item(), add_dataloader_idx=False)
                self.dice.reset()

    Trainer(**ONE_FIT, callbacks=callbacks, num_sanity_val_steps=0).fit(Net())


def macro(module, task):
    from sklearn.metrics import recall_score

    data = Images(task, "test")
    return recall_score(data.y, module(data.x).argmax(1), average="macro")


def iou(module, task):
    x = Images(task, "test").x
    predicted, true = module(x) > 0, x[:, :1] > 0.7
    return float((predicted & true).sum() / (predicted | true).sum())


def dice(module, task):
    x = Images(task, "test").x
    predicted, true = module(x) > 0, x[:, 1:2] > 0.7
    each = [2 * (p & t).sum() / (p.sum() + t.sum()) for p, t in zip(predicted, true, strict=True)]
    return float(torch.stack(each).mean())


CASES = {
    timm_convnext: ("val_acc", macro),
    torchvision_mobilenet: ("val_acc", accuracy),
    transformers_vit: ("val_acc", accuracy),
    smp_unet: ("valid_{task}_dataset_iou", iou),
    monai_unet: ("val/dice/{task}", dice),
}


@pytest.mark.parametrize("habit", CASES, ids=lambda habit: habit.__name__)
def test_vision(habit, folder):
    metric, value = CASES[habit]
    log = ForgettingLogger(metric, epochs_per_task=EPOCHS, pictures=False, verbose=False)
    seen = with_and_without(habit, [log, SparsityLogger()], folder / "habit")
    expected = matrix_by_hand(seen, seen.at_epochs(1, 3, 5), value)
    check(log, expected, logged=seen.witness.logged[-1])


def test_a_fit_for_each_task(folder):
    log = ForgettingLogger("val_acc", pictures=False, verbose=False)

    def callbacks(task):
        log.task = task
        return [log]

    seen = with_and_without(timm_vision_transformer, callbacks, folder / "habit")
    expected = matrix_by_hand(seen, seen.fits()[EPOCHS - 1 :: EPOCHS], accuracy, seen_only=True)
    check(log, expected, logged=seen.witness.logged[-1])


def test_sparsity_of_a_vit(folder):
    """What each block's intermediate layer gives behind its ReLU, counted from outside."""
    sparsity = SparsityLogger()
    seen = with_and_without(transformers_vit, [sparsity, SubnetworkLogger()], folder / "habit")
    module, counts = seen.network(seen.fits()[-1]), []
    blocks = [m for m in module.modules() if isinstance(m, nn.Linear) and m.weight.shape == (48, 24)]
    hooks = [m.register_forward_hook(lambda m, a, out: counts.append((out <= 0).float())) for m in blocks]
    module(torch.cat([Images(j, "test").x for j in range(T)]))
    for hook in hooks:
        hook.remove()
    expected = [float(count.mean()) for count in counts]
    got = [v["activation_sparsity"] for v in sparsity.values.values() if "activation_sparsity" in v]
    assert len(expected) == 2
    for value in expected:
        assert any(v == pytest.approx(value, abs=1e-4) for v in got), (value, sparsity.values)
