"""Teach a pretrained network three tasks, one after another, and lose none.

The backbone is a small network of convolutions that has learned the digits 0 to 4; any `torch.nn.Module` will do. The
tasks are the digits turned by three angles, all ten of them.
"""

import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer, seed_everything
from torch import nn

import dendrite_zoo
from dendrite_zoo.callbacks import ForgettingLogger
from dendrite_zoo.lightning_modules import ContinualClassifier, evaluate_contexts
from dendrite_zoo.streams import RotatedTasks, load_source

seed_everything(0, verbose=False)
quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
backbone = nn.Sequential(
    *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
    *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
    *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
)

# Somebody pretrains it.
digits = load_source("digits")
known = digits.y_train < 5
x, y = digits.normalise(digits.x_train[known].float()).view(-1, 1, 8, 8), digits.y_train[known]
head = nn.Linear(32, 5)
optimizer = torch.optim.Adam([*backbone.parameters(), *head.parameters()], lr=1e-2)
for _ in range(60):
    optimizer.zero_grad()
    F.cross_entropy(head(backbone(x)), y).backward()
    optimizer.step()

# You teach it, task after task.
stream = RotatedTasks("digits", num_tasks=3, epochs_per_task=1, batch_size=32, flatten=False)
model = dendrite_zoo.add_dendrites(backbone, layers=nn.BatchNorm2d, num_classes=10, max_tasks=5, name="my/backbone")
log = ForgettingLogger("val/acc", pictures=False)
Trainer(**stream.trainer_kwargs(), callbacks=[log], log_every_n_steps=1, **quiet).fit(
    ContinualClassifier(model), stream
)
for context_at_test, accuracies in evaluate_contexts(model, stream, enable_progress_bar=False).items():
    print(f"{context_at_test:9}", " ".join(f"{accuracy:.3f}" for accuracy in accuracies))

# What was learned is saved without the backbone, and put on it again.
model.eval().save_pretrained("./three-angles")
again = dendrite_zoo.load("./three-angles", backbone=backbone)
images = next(iter(stream.task_loader(2, "test")))[0]
print("the same after loading:", torch.equal(again(images), model(images)))
