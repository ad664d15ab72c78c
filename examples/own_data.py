"""Way (d): your own data after the tasks that a pretrained model knows, and what becomes of those."""

from lightning.pytorch import Trainer, seed_everything

from dendrite_zoo.callbacks import ForgettingLogger
from dendrite_zoo.lightning_modules import ContinualClassifier
from dendrite_zoo.streams import PermutedTasks, TaskSequence, load_source

seed_everything(0, verbose=False)
digits = load_source("digits")  # stands here for your own: the digits upside down


def yours(x):  # as bright as what the model was trained on: mean 0, standard deviation 1
    return digits.normalise(x.float()).reshape(-1, 8, 8).flip(1)


data = yours(digits.x_train), digits.y_train, yours(digits.x_test), digits.y_test
known = PermutedTasks("digits", num_tasks=10)  # what the model was trained on: it stands for tasks 0 to 9
stream = TaskSequence([known, data], first_task=10, epochs_per_task=5, batch_size=32)

module, log = ContinualClassifier("permuted-digits"), ForgettingLogger("val/acc")  # or "org/repo@revision", or a folder
quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
trainer = Trainer(**stream.trainer_kwargs(), callbacks=[log], log_every_n_steps=5, **quiet)
trainer.validate(module, stream, verbose=False)
trainer.fit(module, stream)
print(f"your data: {log.matrix[-1, 10]:.3f}; the ten tasks before: {log.matrix[-1, :10].mean():.3f}")
