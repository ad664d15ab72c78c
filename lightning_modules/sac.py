"""Learning many control tasks by trial and error, at once or one after another."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import numpy.typing as npt
import torch
from numpy.random import SeedSequence
from torch import Tensor, nn

from dendrite_zoo._core.checks import (
    check_density,
    check_flags,
    check_integers,
    check_positive,
    check_range,
    check_share,
    wrong_argument,
)
from dendrite_zoo._core.lightning import looks_between_updates
from dendrite_zoo._core.names import say_new_names
from dendrite_zoo._core.ranks import num_ranks
from dendrite_zoo.contexts.base import measuring
from dendrite_zoo.lightning_modules.known_skills import warn_of_new_critics
from dendrite_zoo.lightning_modules.new_tasks import TRAINED, Learn
from dendrite_zoo.lightning_modules.play import mean_return, warn_of_rewards, warn_of_silence
from dendrite_zoo.lightning_modules.policies import (
    PolicyModule,
    check_critic,
    tasks_of,
    warn_of_plan,
)
from dendrite_zoo.models import ActiveDendritePolicy, TwinCritic
from dendrite_zoo.models.control import ControlModel
from dendrite_zoo.models.growth import start_as
from dendrite_zoo.models.loading import as_model, saved_config
from dendrite_zoo.optim import DendriteAdam
from dendrite_zoo.rl import ACTION_SIZE, Acting
from dendrite_zoo.rl.sac import ActorCritic, Losses, means_of
from dendrite_zoo.rl.transitions import Transitions, as_transitions
from dendrite_zoo.row_sparse.parameter import RowParameter
from dendrite_zoo.streams import DemonstrationMixture, OnlineTasks, Round

NORMALIZED_ALPHA = 0.1
"""Entropy coefficient at the start where the rewards of each task have a root mean square of 1."""


@say_new_names
class MultiTaskSAC(PolicyModule):
    """Soft actor-critic for several tasks in one network (Haarnoja et al. 2018; the defaults are Iyer et al. 2022's).

    A policy, twin critics and their slow copies, and one entropy coefficient a task, learn from batches with as
    many steps of each task that is practised. What is played and how often is learned from it, `OnlineTasks` says,
    and whether tasks are learned at once. All parameters have one optimizer, so that Lightning's ``global_step``
    counts updates, while its loggers count rounds. How much was played and learned is logged as ``env_steps`` and
    ``updates``. The warm-up is played with uniform actions, and its observations are those to normalise by: of
    tasks in turn, those of the first.

    Any loader of `dendrite_zoo.rl.Transitions`, or of tuples of such tensors, is learned from, too, an update a batch.
    Its ``observations``, if it has them, are those to normalise by; else call ``module.model.fit_normalizer`` before.

    A policy with a normaliser of its own (see `ActiveDendritePolicy.fit_normalizer`), or any with ``kl_coef`` or
    ``actor_warmup``, keeps its normaliser and plays from the start, without a warm-up of uniform actions. By default
    the skills of a trained policy, such as ``"metaworld-mt10"``, are gone after a few hundred updates: with ``kl_coef=
    10.0, start_std=0.1, actor_warmup=250`` it stays near to what it was (imitation taught no spread).

    Where winners are chosen by the context, a round of `OnlineTasks` trains what its tasks use of the networks as
    compact parameters, and puts it back when the round ends: the same up to rounding, in little more than half of
    the time. With a callback that is called with gradients, hooks of the optimizer or several processes, the networks
    are trained themselves.

    Random numbers follow from ``seed``, process and round alone, so that a resumed run draws what it would have drawn.

    Args:
        model: an `ActiveDendritePolicy` or any module that maps ``(observation, task)`` to mean and log standard
            deviation; or what `dendrite_zoo.load` takes; or the config of a registered model.
        critic: a `TwinCritic` or any module that maps ``(observation, action, task)`` to two values, or a config; by
            default a critic formed like the policy.
        batch_size_per_task: steps of each task in a batch.
        lr: learning rate of `dendrite_zoo.optim.DendriteAdam`, 1/step.
        discount: of the reward, per action.
        tau: how far the slow critics follow, per update.
        reward_scale: factor of all rewards; Meta-World's are 0 to 10 a step.
        target_entropy: of the actions, in nats; by default minus their number of dimensions, ``D``. That of uniform
            actions, ``D log 2``, is the highest there is.
        init_alpha: of each task at the start; it is learned, but stays fixed with ``kl_coef``. By default 1, as for
            rewards of 0 to 10 a step, and 0.1 for those that `OnlineTasks` normalises.
        start_std: standard deviation of the policy's actions at the start, before they are squashed, which is set in
            the policy; by default its spread is left as it is.
        actor_warmup: updates at the start in which the critics alone learn.
        policy_delay: policy and entropy coefficients learn at every so many updates of the critics.
        alpha_lr: learning rate of the entropy coefficients; None for ``lr``.
        n_step: how many rewards a return of `OnlineTasks` has, before a critic says what follows.
        kl_coef: weight of the divergence from the policy as it was at the start, in units of the scaled reward; 0
            for none.
        reset_optimizer: start each task with a fresh optimizer, where they are learned one after another.
        learn: as in `BehaviorCloning`; with ``"new"`` the critics, which no task uses to act, learn as a whole.
        init_from: with ``learn="new"``, what a new task starts as: the name of a task, of whose column or subnetwork it
            starts with a copy, in the critics, too; or ``"nearest"`` for the one that has the highest mean return in
            three episodes of the new task, or none; these steps do not count in ``env_steps``. It then plays by itself
            from the first step on. By default it starts as it is.
        seed: of the random numbers.

    Logs:
        ``env_steps``, ``updates``, ``train/critic_loss``, ``train/actor_loss``, ``train/entropy``,
        ``train/entropy_coefficient/{task}``; of each task's latest 20 episodes, without those with bursts,
        ``train/success/{task}`` and ``train/success_at_end/{task}``, at any step and at the last, and
        ``train/return/{task}`` and ``train/return/mean``, the mean sum of an episode's rewards, not scaled;
        ``train/practised``, of how many tasks a round was, where solved ones rest;
        ``val/task_{j}/entropy`` and ``val/task_{j}/value``, on what was seen last of a task.

    Raises:
        ValueError: a number out of range; at fit, data of other tasks, or a loss that is not finite.

    Example:
        >>> policy = ActiveDendritePolicy(["reach-v3", "push-v3"], hidden_features=[32, 32])
        >>> module = MultiTaskSAC(policy, lr=1e-3)
        >>> module.log_alpha.tolist()
        [0.0, 0.0]
    """

    context_at_test = "given"

    def __init__(
        self,
        model: nn.Module | Mapping[str, Any] | str,
        *,
        critic: nn.Module | Mapping[str, Any] | None = None,
        batch_size_per_task: int = 256,
        lr: float = 3e-4,
        discount: float = 0.99,
        tau: float = 5e-3,
        reward_scale: float = 1.0,
        target_entropy: float | None = None,
        init_alpha: float | None = None,
        start_std: float | None = None,
        actor_warmup: int = 0,
        policy_delay: int = 1,
        alpha_lr: float | None = None,
        n_step: int = 1,
        kl_coef: float = 0.0,
        reset_optimizer: bool = True,
        learn: Learn = "all",
        init_from: str | None = None,
        seed: int = 0,
    ) -> None:
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        self.automatic_optimization = False
        check_positive(lr=lr, alpha_lr=lr if alpha_lr is None else alpha_lr)
        check_positive(reward_scale=reward_scale, init_alpha=(alpha := _first_alpha(init_alpha)))
        check_integers(1, batch_size_per_task=batch_size_per_task, policy_delay=policy_delay, n_step=n_step)
        check_integers(0, actor_warmup=actor_warmup)
        check_range(0, math.inf, kl_coef=kl_coef)
        if kl_coef > 0 and alpha_lr is not None:
            raise wrong_argument("alpha_lr", "None with kl_coef, for the coefficients stay as they are", alpha_lr)
        check_share(discount=discount)
        check_flags(reset_optimizer=reset_optimizer)
        check_density(tau=tau)
        self.model = as_model(model, nn.Module)
        size = self.model.config["action_size"] if isinstance(self.model, ActiveDendritePolicy) else ACTION_SIZE
        if target_entropy is not None and not target_entropy < size * math.log(2):
            most = f"below {size * math.log(2):.2f} (log 2 for each of {size} dimensions: uniform actions)"
            raise wrong_argument("target_entropy", most, target_entropy, f"Leave it out for {-size}.")
        if start_std is not None:
            check_positive(start_std=start_std)
            if not isinstance(self.model, ActiveDendritePolicy):
                kind = type(self.model).__name__
                raise TypeError(f"Expected `start_std` with an ActiveDendritePolicy, but got {kind}. Leave it out.")
            if learn == "new":
                raise wrong_argument("start_std", "None with learn='new', for all tasks share it", start_std)
            self.model.set_std(start_std)
        self._new_critics = not isinstance(critic, nn.Module)
        self.critic = TwinCritic.like(self.model) if critic is None else as_model(critic, nn.Module, name="critic")
        check_critic(self.model, self.critic)
        self.slow_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.start_policy = copy.deepcopy(self.model).requires_grad_(False) if kl_coef > 0 else None
        self.tasks = tasks_of(self.model)
        start = torch.tensor(float(alpha)).log()
        # The divergence limits the entropy, too: coefficients that are learned against it would grow without bound.
        # With rows, of which those without gradient, of tasks that rest, stay.
        self.log_alpha = RowParameter(start.repeat(len(self.tasks)), requires_grad=self.start_policy is None)
        self.choose_learning(learn, init_from)
        policy = self.model if self.new is None else self.new
        self.networks = ActorCritic(policy, self.critic, self.slow_critic, self.log_alpha, self.start_policy)
        configs = {"model": saved_config(self.model), "critic": saved_config(self.critic)}
        self.save_hyperparameters({**arguments, **configs})
        self._generator: torch.Generator | None = None
        self.began_trained = False
        self._looked_at_task: int | None = None
        self._share = 1.0  # of the tasks that a batch has: a task's gradients are the same where others rest

    def forward(self, observation: Tensor, task: Tensor) -> Tensor:
        """The policy's mean actions."""
        return self.model(observation, task)[0].tanh()

    def act_batch(self, observations: Any, task_index: Any) -> npt.NDArray[Any]:
        """The policy's mean actions ``(N, A)`` for observations ``(N, O)`` and task indices ``(N,)``."""
        if isinstance(self.model, ActiveDendritePolicy):
            with measuring():
                return self.model.act_batch(observations, task_index)
        observation = torch.as_tensor(observations, dtype=torch.float32, device=self.device)
        with torch.no_grad():
            return self(observation, torch.as_tensor(task_index, device=self.device)).cpu().numpy()

    def setup(self, stage: str) -> None:
        """Refuse data of tasks that the policy does not know, before anything is played."""
        super().setup(stage)
        if stage != "fit":
            return
        if (precision := str(self.trainer.precision)) in ("16-true", "bf16-true"):  # tau * (a - b) would be lost in b
            remedy = "Half precision holds neither slow critics nor small steps. Leave it out, or give 'bf16-mixed'."
            raise wrong_argument("precision", "one with weights in full precision", precision, remedy)
        known = getattr(self.model, "has_known_scales", False) and getattr(self.model, "origin", None) is None
        self.began_trained = getattr(self.model, "has_normalizer", False) and not known
        if isinstance(self.datamodule, DemonstrationMixture):
            got = f"{type(self.datamodule).__name__}, which has no rewards. Imitate it: BehaviorCloning(policy)."
            raise ValueError(f"Expected OnlineTasks, or batches of Transitions, but got {got}")
        if isinstance(self.datamodule, OnlineTasks):
            warn_of_plan(self.datamodule, self.hparams["actor_warmup"])
            if self.datamodule.normalize_rewards and self.hparams["init_alpha"] is None:
                self.log_alpha.data[self.log_alpha == 0] = math.log(NORMALIZED_ALPHA)  # those that have not learned
        elif self.hparams["init_from"] == "nearest":
            expected = "the name of a task with other data than OnlineTasks, whose environments are not known"
            raise wrong_argument("init_from", expected, "nearest")
        elif (n_step := self.hparams["n_step"]) > 1:
            remedy = "Sum the rewards of several steps in them, with the `discount` of what follows."
            raise wrong_argument("n_step", "1 with other data than OnlineTasks, batches as they are", n_step, remedy)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add whether the policy was trained before the fit, which decides who plays warm-ups to come."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["began_trained"] = self.began_trained

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue from `on_save_checkpoint`."""
        super().on_load_checkpoint(checkpoint)
        self.began_trained = checkpoint.get("began_trained", self.began_trained)  # earlier versions do not say it

    def on_fit_start(self) -> None:
        """Normalise by the observations of other data than `OnlineTasks`, where they say theirs."""
        super().on_fit_start()
        guided = self.start_policy is not None or self.hparams["actor_warmup"] > 0
        if self._new_critics and not guided and self.global_step == 0 and self.model not in TRAINED:
            warn_of_new_critics(self.model, getattr(self.datamodule, "tasks", ()))
        observations = getattr(self.datamodule, "observations", None)
        if observations is not None and not self._is_trained:
            self._normalize(observations.to(self.device))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Start a task with a fresh optimizer."""
        super().on_train_batch_start(batch, batch_idx)
        if isinstance(batch, Round):
            return self.enter_batch(None)
        steps = self._steps(batch)
        self.check_batch(steps.observation, steps.action, steps.task)
        self.enter_batch(steps.task)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One optimizer for the policy, the critics and the entropy coefficients, a group of parameters each."""
        policy = self.model if self.may_change_all else cast(nn.Module, self.new)
        lr, alpha_lr = self.hparams["lr"], self.hparams["alpha_lr"]
        groups: list[dict[str, Any]] = [{"params": list(model.parameters())} for model in (policy, self.critic)]
        return DendriteAdam([*groups, {"params": [self.log_alpha], "lr": lr if alpha_lr is None else alpha_lr}], lr=lr)

    def training_step(self, batch: Round | Sequence[Tensor], batch_idx: int) -> None:
        """Play, then learn; of other data than `OnlineTasks`, learn from the batch."""
        if not isinstance(batch, Round):
            return self._learn_from(batch)
        data: OnlineTasks = self.datamodule
        self._generator = self._generator_of(data.rounds)
        at_random = data.task_env_steps < data.warmup_steps and not (self._is_trained or self._has_started)
        played = data.collect(self._acting(data, at_random), batch.steps, at_random=at_random)
        self.log("env_steps", float(data.env_steps), prog_bar=True)
        if batch.updates and not data.rests:
            self._look_at_what_was_played(data)
            data.begin_next(self._acting(data), batch.steps)
            played |= self._learn(data, batch.updates)
            self.log("updates", float(self.global_step))
        self.log_dict({f"train/{name}": value for name, value in played.items()})

    def _look_at_what_was_played(self, data: OnlineTasks) -> None:
        """Before the first update normalise by it, if nothing was before; before a task's first say where it is far."""
        if self.global_step > 0 and self._current in (None, self._looked_at_task):
            return
        self._looked_at_task = self._current
        alpha = float(self.log_alpha.detach()[self.first_tasks()].max().exp()) * self.log_alpha.requires_grad
        warn_of_rewards(data, self.hparams["reward_scale"], alpha)
        seen = torch.cat([data.replay.observations(task, len(data.replay)) for task in range(data.replay.num_tasks)])
        if getattr(self.model, "has_normalizer", False) and not getattr(self.model, "has_known_scales", False):
            self.say_what_is_far(seen)
        if self.global_step == 0:  # by what all processes saw
            self._normalize(cast(Tensor, self.all_gather(seen)).flatten(0, -2))

    def _steps(self, batch: Any) -> Transitions:
        return as_transitions(batch, self.model)

    def _learn_from(self, batch: Any) -> None:
        self._generator = self._generator_of(self.global_step)
        losses = means_of([self.update(self._steps(batch))])
        self.log_dict({f"train/{name}": value for name, value in losses.items()})

    def _learn(self, data: OnlineTasks, updates: int) -> dict[str, float]:
        n_step, discount = self.hparams["n_step"], self.hparams["discount"]
        returns: Any = {"n_step": n_step, "discount": discount} if n_step > 1 else {}
        losses = []
        with self._compact() if updates > 1 else nullcontext():
            for _ in range(updates):
                batch = data.sample(self.hparams["batch_size_per_task"], self._generator, **returns)
                share = len(batch.task) / (self.hparams["batch_size_per_task"] * data.replay.num_tasks)
                self._share = min(1.0, share)  # above 1 where steps of earlier tasks are learned again
                losses.append(self.update(batch))
        alphas = dict(zip(self.tasks, self.log_alpha.detach().exp().tolist(), strict=True))
        return means_of(losses) | {f"entropy_coefficient/{task}": alphas[task] for task in data.tasks}

    def misfit_of(self, task: int) -> Callable[[], float]:
        """Minus the mean return, for before a task is played there are no data of it."""
        return lambda: -mean_return(self.act_batch, task, self.tasks[task], self.datamodule)

    def on_start(self, start: int | None, task: int) -> None:
        """Let the critics, and what the policy is not to diverge from, start as the policy does."""
        others = (self.critic, self.slow_critic, self.start_policy) if start is not None else ()
        for network in (network for model in others if isinstance(model, ControlModel) for network in model.networks):
            start_as(network, cast(int, start), task)

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log entropy and value of the observations that were last seen of task ``dataloader_idx``."""
        if len(batch) != 2:
            steps = self._steps(batch)
            batch = steps.observation, steps.task
        observation, task = batch[0], self.in_policy(batch[1])
        action, log_prob = self.networks.sample(observation, task, self._noise)
        value = torch.minimum(*self.critic(observation, action, task)).mean() / self.hparams["reward_scale"]
        if isinstance(self.datamodule, OnlineTasks):  # in the units of rewards as they are played for
            value = value * self.datamodule.practice.reward_size(dataloader_idx)
        prefix = f"val/task_{dataloader_idx}"
        self.log_means({f"{prefix}/entropy": -log_prob.mean(), f"{prefix}/value": value}, len(observation))

    def on_validation_epoch_end(self) -> None:
        """Log how much was played and learned so far."""
        if isinstance(self.datamodule, OnlineTasks):
            warn_of_silence(self.trainer, self.datamodule)
            self.log_dict({"env_steps": float(self.datamodule.env_steps), "updates": float(self.global_step)})

    def update(self, batch: Transitions) -> Losses:
        """Learn from one batch: critics, policy and entropy coefficients in one backward pass and one step.

        Args:
            batch: of `dendrite_zoo.rl.replay.ReplayBuffer`.

        Returns:
            The losses, of the critics alone where the policy did not learn.
        """
        self._batch = batch = batch._replace(task=self.in_policy(batch.task))
        options = {name: self.hparams[name] for name in ("discount", "reward_scale", "target_entropy")}
        learned = self.global_step - self.hparams["actor_warmup"]
        alone = learned < 0 or learned % self.hparams["policy_delay"] > 0
        # Processes wait for the gradients of all parameters.
        losses = self.networks.losses(batch, self._noise, critics_alone=alone and num_ranks() == 1, **options)
        optimizer = cast(Any, self.optimizers())
        self.manual_backward(self._share * losses.total(self.hparams["kl_coef"]))
        for parameter in (p for i in (0, 2) for p in optimizer.param_groups[i]["params"] if alone):
            parameter.grad = None
        optimizer.step()
        optimizer.zero_grad()
        if not alone:
            self.note_learned(batch.task)
        self.networks.follow(self.hparams["tau"])
        return losses.learned(critics_alone=alone)

    def _compact(self) -> AbstractContextManager[Any]:
        """Train what the tasks use alone, where nobody looks at gradients or weights between two updates."""
        optimizer = self.trainer.optimizers[0]
        if num_ranks() > 1 or type(optimizer) is not DendriteAdam or looks_between_updates(self, optimizer):
            return nullcontext()
        return self.networks.compact(optimizer)

    def on_before_backward(self, loss: Tensor) -> None:
        """Stop where the loss is not finite; the message is of the weights as they are."""
        if not bool(loss.isfinite()):
            self.networks.put_back()
        super().on_before_backward(loss)

    @torch.no_grad()
    def play(self, observation: Tensor, task: Tensor) -> Tensor:
        """Sample the actions ``(N, A)`` to be played for observations ``(N, O)`` in tasks ``(N,)``."""
        return self.networks.sample(observation, self.in_policy(task), self._noise)[0]

    @property
    def _is_trained(self) -> bool:
        return self.began_trained or self.start_policy is not None or self.hparams["actor_warmup"] > 0

    @property
    def _has_started(self) -> bool:
        """Whether what is being trained started as another task, which then plays better than at random."""
        return all(self.started_from.get(task) is not None for task in self.first_tasks())

    def _normalize(self, observations: Tensor) -> None:
        """Normalise by what was seen, where the policy has no normaliser of its own; the critics as the policy."""
        keeps = self._is_trained or getattr(self.model, "has_normalizer", True) or not self.may_change_all
        if not keeps:
            cast(Any, self.model).fit_normalizer(observations)
        normalizer = {name: b for name, b in self.model.named_buffers() if name.startswith("observation_")}
        for critic in (self.critic, self.slow_critic):
            critic.load_state_dict(normalizer, strict=False)  # what a critic has of it

    def _acting(self, data: OnlineTasks, at_random: bool = False) -> Any:
        """What chooses the actions of the next round; with ``collect_ahead`` it is sent to another process."""
        if not data.collect_ahead:
            return self._uniform if at_random else self.play
        tasks = self.in_policy(torch.arange(data.num_tasks))
        seed = self._generator_of(data.rounds, 1).initial_seed()
        return Acting(None if at_random else self.model, tasks, data.action_size, seed)

    def _uniform(self, observation: Tensor, task: Tensor) -> Tensor:
        mean = self.model(observation, self.in_policy(task))[0]
        return torch.rand(mean.shape, generator=self._generator, device=mean.device) * 2 - 1

    def _noise(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self._generator, device=like.device, dtype=like.dtype)

    def _generator_of(self, round_: int, *purpose: int) -> torch.Generator:
        seed = SeedSequence([self.hparams["seed"], self.global_rank, round_, *purpose]).generate_state(1)[0]
        return torch.Generator(self.device).manual_seed(int(seed))


def _first_alpha(init_alpha: float | None) -> float:
    """The entropy coefficient at the start, where rewards are not normalised."""
    return 1.0 if init_alpha is None else init_alpha
