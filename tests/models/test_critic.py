import pytest
import torch

from dendrite_zoo.hub import build, full_config
from dendrite_zoo.models import TwinCritic

TASKS = ["reach-v3", "push-v3", "door-open-v3"]


def inputs():
    return torch.randn(6, 39), torch.rand(6, 4) * 2 - 1, torch.tensor([0, 2, 1, 1, 0, 2])


def test_the_twins_are_the_networks_on_normalised_observations():
    critic = TwinCritic(TASKS, hidden_features=[16, 16], append_task=True)
    critic.observation_mean.copy_(torch.randn(39))
    critic.observation_scale.copy_(torch.rand(39) + 0.5)
    observation, action, task = inputs()
    for row in range(6):
        one_hot = torch.zeros(3)
        one_hot[task[row]] = 1
        normal = (observation[row] - critic.observation_mean) / critic.observation_scale
        x = torch.cat([normal, action[row], one_hot])[None]
        for network, values in zip(critic.critics, critic(observation, action, task), strict=True):
            torch.testing.assert_close(values[row], network(x, one_hot)[0, 0])


def test_the_twins_are_drawn_apart_and_see_the_task():
    critic = TwinCritic(TASKS, hidden_features=[16, 16])
    observation, action, task = inputs()
    q1, q2 = critic(observation, action, task)
    assert not torch.isclose(q1, q2).any()
    torch.testing.assert_close(critic(observation, action, torch.tensor(1))[0][2], q1[2])
    assert not torch.isclose(critic(observation, action, (task + 1) % 3)[0], q1).any()


def test_a_plain_mlp_has_the_size_of_one():
    plain = {"num_segments": 0, "activation": "relu", "weight_density": 1.0, "append_task": True}
    critic = TwinCritic(TASKS, hidden_features=[20, 30], **plain)
    sizes = 46 * 20 + 20 + 20 * 30 + 30 + 30 + 1
    assert sum(p.numel() for p in critic.parameters()) == 2 * sizes


def test_it_is_built_again_from_its_config():
    critic = TwinCritic(TASKS, hidden_features=[16], dendrite_layers=None, winners="context")
    again = build(full_config(critic))
    again.load_state_dict(critic.state_dict())
    for ours, theirs in zip(critic(*inputs_of(0)), again(*inputs_of(0)), strict=True):
        assert ours.equal(theirs)


def inputs_of(seed):
    torch.manual_seed(seed)
    return inputs()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": []}, "Expected `tasks` to be the names of one task or more, each once, but got"),
        (
            {"tasks": ["reach-v3", "reach-v3"]},
            "Expected `tasks` to be the names of one task or more, each once, but got",
        ),
        ({"tasks": "reach-v3"}, r"Expected `tasks` to be a list of names, but got 'reach-v3'. Write \['reach-v3'\]"),
        (
            {"tasks": TASKS, "hidden_features": []},
            r"Expected `hidden_features` to be the units of at least one hidden layer, but got \[\]",
        ),
        ({"tasks": TASKS, "action_size": 0}, "action_size"),
        ({"tasks": TASKS, "weight_density": 1.5}, "weight_density"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TwinCritic(**{"hidden_features": [8, 8], **arguments})
