"""Way (a): load a pretrained model, teach it two tasks it has never seen, see what it forgot."""

from lightning.pytorch import Trainer, seed_everything

from dendrite_zoo.callbacks import ForgettingLogger, SparsityLogger
from dendrite_zoo.lightning_modules import ContinualClassifier
from dendrite_zoo.models import ActiveDendriteClassifier
from dendrite_zoo.streams import PermutedTasks

seed_everything(0)
model = ActiveDendriteClassifier.from_pretrained("permuted-digits")  # or "org/repo@revision", or a folder
known = model.num_tasks
stream = PermutedTasks("digits", num_tasks=known + 2, first_task=known, epochs_per_task=5, batch_size=32)
log = ForgettingLogger("val/acc")
trainer = Trainer(**stream.trainer_kwargs(), callbacks=[log, SparsityLogger()], logger=False, log_every_n_steps=5)
module = ContinualClassifier(model)

trainer.validate(module, stream)  # before: all twelve tasks, two of them new
trainer.fit(module, stream)  # trains the two new tasks, and validates all twelve
model.save_pretrained("fine-tuned")

print(f"accuracy over the {model.num_tasks} tasks: {log.matrix[-1].mean():.3f}")
