"""Way (a): load a pretrained model, teach it two tasks it has never seen, see what it forgot."""

from lightning.pytorch import Trainer, seed_everything

from dendrite_zoo.callbacks import ForgettingLogger
from dendrite_zoo.lightning_modules import ContinualClassifier
from dendrite_zoo.models import ActiveDendriteClassifier
from dendrite_zoo.streams import PermutedTasks

seed_everything(0, verbose=False)
model = ActiveDendriteClassifier.from_pretrained("permuted-digits")  # or "org/repo@revision", or a folder
stream = PermutedTasks("digits", num_tasks=12, first_task=10, epochs_per_task=5, batch_size=32)
module, log = ContinualClassifier(model), ForgettingLogger("val/acc")
quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
trainer = Trainer(**stream.trainer_kwargs(), callbacks=[log], log_every_n_steps=5, **quiet)
trainer.validate(module, stream, verbose=False)  # before: all twelve tasks, two of them new
trainer.fit(module, stream)  # trains the two new tasks, and validates all twelve
model.save_pretrained("fine-tuned")
print(f"accuracy over the {model.num_tasks} tasks: {log.matrix[-1].mean():.3f}")
