"""A small residual network of which dendrites choose the channels, on three rotations of images.

Each convolution is an `ActiveDendriteConv2d`: its segments recognise the task, the strongest one gates the channel, and
the channels with the strongest gates alone respond. A task so has its own channels, and leaves those of others as they
are. Which task an image is of is inferred from the image.
"""

import torch
from lightning.pytorch import Trainer, seed_everything
from torch import nn

from dendrite_zoo.contexts import PrototypeContext
from dendrite_zoo.functional import k_winners, winning_activations
from dendrite_zoo.layers import ActiveDendriteConv2d
from dendrite_zoo.lightning_modules import ContinualClassifier, evaluate_contexts
from dendrite_zoo.streams import RotatedTasks

TASKS, CHANNELS, WINNERS = 3, 64, 10
quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}


class TaskFromImage(PrototypeContext):
    """The task whose mean image is nearest; its number is the context."""

    def forward(self, x, task=None):
        return self.infer(x) if task is None else self.task_ids(task).to(x.device)


class Convolution(nn.Module):
    """A convolution, of whose channels the context lets a few respond; its segments stay as they were drawn."""

    def __init__(self, in_channels):
        super().__init__()
        shape = {"kernel_size": 3, "padding": 1}
        self.layer = ActiveDendriteConv2d(in_channels, CHANNELS, context_dim=TASKS, num_segments=1, **shape)
        self.layer.segments.requires_grad_(False)

    def forward(self, x, context):
        channels = k_winners(winning_activations(self.layer.segments, context), WINNERS) != 0
        return torch.relu(self.layer(x, context)) * channels[..., None, None]


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = Convolution(1)
        self.blocks = nn.ModuleList(nn.ModuleList([Convolution(CHANNELS), Convolution(CHANNELS)]) for _ in range(2))
        self.pool, self.output = nn.MaxPool2d(2), nn.Linear(CHANNELS * 2 * 2, 10)

    def forward(self, x, context):
        x = self.first(x, context)
        for one, two in self.blocks:
            x = self.pool(x + two(one(x, context), context))
        return self.output(x.flatten(1))


seed_everything(0, verbose=False)
stream = RotatedTasks("digits", num_tasks=TASKS, epochs_per_task=4, batch_size=32, flatten=False)  # (B, 1, 8, 8)
model, context = ResNet(), TaskFromImage(num_features=64, max_tasks=TASKS)
trainer = Trainer(
    **stream.trainer_kwargs(), log_every_n_steps=5, limit_val_batches=0, **quiet
)  # measured at the end alone
trainer.fit(ContinualClassifier(model, context=context, lr=3e-3), stream)
for context_at_test, accuracies in evaluate_contexts(model, stream, context=context, enable_progress_bar=False).items():
    print(f"{context_at_test:9}", " ".join(f"{accuracy:.3f}" for accuracy in accuracies))
