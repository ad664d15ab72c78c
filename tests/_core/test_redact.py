"""What is published holds no secret."""

import pytest

from dendrite_zoo._core.redact import typed_command, without_token


@pytest.mark.parametrize(
    "typed, shown",
    [
        (["fit", "--trainer.logger.init_args.api_key", "abc", "--lr", "0.1"], "fit --trainer.logger.init_args.api_key"),
        (["--hf_token=abc", "--password", "abc"], "'--hf_token=***' --password '***'"),
        (["--secret", "--lr", "0.1"], "--secret --lr 0.1"),
        (["--note", "hf_aBcDeFgHiJk", "of the loop"], "--note *** 'of the loop'"),
        (["--model.init_args.append_task", "true", "-k", "3"], "--model.init_args.append_task true -k 3"),
    ],
)
def test_a_command_is_shown_without_what_is_secret(typed, shown, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py", *typed])
    said = typed_command("train.py")
    assert said.startswith(f"train.py {shown}") and "abc" not in said.lower()
    assert said.endswith("0.1") == typed[-1].endswith("0.1")


def test_the_token_in_use_is_blotted_out(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "verysecret")
    assert without_token("a verysecret, an other", "other") == "a ***, an ***"
