"""By which names a metric is found for each task, and the message where it is not."""

import re

import pytest

from dendrite_zoo.callbacks.metric_name import MetricName, better, readable


@pytest.mark.parametrize(
    ("metric", "logged", "expected"),
    [
        ("val/acc", ["val/task_0/acc", "val/acc/dataloader_idx_0", "val/acc"], {0: "val/task_0/acc"}),
        ("val/acc", ["val/task_11/acc", "val/task_x/acc", "xval/task_0/acc"], {11: "val/task_11/acc"}),
        ("val/acc", ["val/acc/dataloader_idx_3", "val/acc"], {3: "val/acc/dataloader_idx_3"}),
        ("val/acc", ["val/acc", "val/loss"], {}),
        ("val/acc/dataloader_idx_0", ["val/acc/dataloader_idx_1"], {1: "val/acc/dataloader_idx_1"}),
        ("val/a.c", ["val/task_0/axc"], {}),
        ("acc", ["task_2/acc", "acc"], {2: "task_2/acc"}),
        ("acc_{task}", ["acc_0", "acc_10", "acc_x", "acc_1_step"], {0: "acc_0", 10: "acc_10"}),
        ("val_acc_{task}", ["val_acc_00", "val_acc_01"], {0: "val_acc_00", 1: "val_acc_01"}),
        ("t{task:1}/c/val/acc", ["t1/c/val/acc", "t3/c/val/acc"], {0: "t1/c/val/acc", 2: "t3/c/val/acc"}),
        ("t{task:1}/acc", ["t1/acc/dataloader_idx_0", "t2/acc/dataloader_idx_1"], dict(enumerate(
            ["t1/acc/dataloader_idx_0", "t2/acc/dataloader_idx_1"]))),
        # the task in the name is the one that is trained on, the loader's index the one that is measured
        ("t{task:1}/acc", ["t2/acc/dataloader_idx_0", "t2/acc/dataloader_idx_1"], dict(enumerate(
            ["t2/acc/dataloader_idx_0", "t2/acc/dataloader_idx_1"]))),
    ],
)  # fmt: skip
def test_names(metric, logged, expected):
    assert MetricName(metric).keys(logged) == expected


@pytest.mark.parametrize("metric", ["{tsk}", "a{task}b{task}", "a{task:x}", "a{task:02d}", "{}", "a{task}{b}"])
def test_a_place_that_is_none(metric):
    with pytest.raises(ValueError, match="Expected `metric` to be a name with at most one place for the task"):
        MetricName(metric)


def test_a_name_that_may_be_of_either_of_two_tasks():
    """Of one loader that is due, "task_2" may be the task that is trained on, or the one that is measured."""
    with pytest.raises(
        ValueError, match=r"'task_2/acc/dataloader_idx_0' says task 2 and loader 0\. .*`add_dataloader_idx="
    ):
        MetricName("task_{task}/acc").keys(["task_2/acc/dataloader_idx_0"])
    assert MetricName("task_{task}/acc").keys(["task_2/acc/dataloader_idx_2"]) == {2: "task_2/acc/dataloader_idx_2"}


@pytest.mark.parametrize("metric", [None, 3, ["val/acc"]])
def test_a_metric_that_is_no_name(metric):
    with pytest.raises(ValueError, match="Expected `metric` to be the name of a metric that the module logs, but got"):
        MetricName(metric)


@pytest.mark.parametrize(
    ("logged", "expected"),
    [
        (["val/usps/acc", "val/mnist/acc", "val/mean/acc"], {1: "val/usps/acc", 0: "val/mnist/acc"}),
        (["val/mnist-c/acc/dataloader_idx_0", "val/mnist/acc/dataloader_idx_1"], dict(zip((2, 0), [
            "val/mnist-c/acc/dataloader_idx_0", "val/mnist/acc/dataloader_idx_1"], strict=True))),
        # the name is that of the task that is trained on
        (["val/usps/acc/dataloader_idx_0", "val/usps/acc/dataloader_idx_1"], dict(enumerate(
            ["val/usps/acc/dataloader_idx_0", "val/usps/acc/dataloader_idx_1"]))),
        (["val/0/acc", "val/task_0/acc"], {}),
    ],
)  # fmt: skip
def test_tasks_with_names(logged, expected):
    name = MetricName("val/{task}/acc", ["mnist", "usps", "mnist-c"])
    assert name.keys(logged) == expected and not any(map(name.names_task, logged))


def test_names_of_tasks_that_are_none():
    with pytest.raises(TypeError, match="Expected `task_names` to be a list of names, one for each task, but got 'ab'"):
        MetricName("val/{task}/acc", "ab")
    with pytest.raises(TypeError, match=r"but got \[0, 1\]"):
        MetricName("val/{task}/acc", [0, 1])
    for metric in ("val/acc", "val/{task:1}/acc"):
        with pytest.raises(ValueError, match="with a place for them, such as 'val/{task}/acc', where there are `task_"):
            MetricName(metric, ["a", "b"])
    for names in ([], ["a", "a"]):
        with pytest.raises(ValueError, match="a name of its own for each task, in their order"):
            MetricName("val/{task}/acc", names)


@pytest.mark.parametrize("metric", ["val/acc", "val/{task}/acc"])
def test_the_message_says_how_names_of_tasks_are_read(metric):
    logged = ["val/mnist/acc/dataloader_idx_0", "val/fashion-mnist/acc/dataloader_idx_1", "val/loss"]
    message = MetricName(metric).not_logged(dict.fromkeys(logged, 0), loaders=2)
    names = "['mnist', 'fashion-mnist']"
    assert message.endswith(
        f"Where {names} are tasks, in the order of training: ForgettingLogger('val/{{task}}/acc', task_names={names})."
    )


@pytest.mark.parametrize("logged", [["val/acc_step", "val/acc_epoch"], ["val/task_1/loss"], ["val/loss", "val/f1"]])
def test_nothing_is_said_of_names_where_there_are_none(logged):
    assert "task_names" not in MetricName("val/acc").not_logged(dict.fromkeys(logged, 0), loaders=2)


def test_a_number_below_the_first():
    with pytest.raises(ValueError, match=r"count tasks from 1, as 'acc_\{task:1\}' says, but 'acc_0' was logged"):
        MetricName("acc_{task:1}").keys(["acc_0", "acc_1"])


@pytest.mark.parametrize(
    ("logged", "loaders", "expected"),
    [
        (["val/acc", "val/loss"], 1, ["val/acc", "val/loss"]),
        (["val/acc", "val/loss/dataloader_idx_0"], 2, ["val/loss"]),  # val/acc cannot be read for each task
        (["val/task_0/acc", "val/task_1/acc"], 2, ["val/acc"]),
        (["val/task_1/acc", "val/task_2/acc"], 2, ["val/task_{task:1}/acc"]),
        (["val/task_1/acc"], 1, ["val/task_{task:1}/acc"]),
        (["acc_0", "acc_1"], 2, ["acc_{task}"]),
        (["acc_1", "acc_2", "top5/dataloader_idx_0", "top5/dataloader_idx_1"], 2, ["acc_{task:1}", "top5"]),
        (["a/task_0/b", "forgetting", "x/forgetting/task_0", "sparsity/a/dead_units", "learning_accuracy"], 1, ["a/b"]),
    ],
)  # fmt: skip
def test_what_can_be_read(logged, loaders, expected):
    assert readable(logged, loaders) == expected
    for name in expected:
        assert MetricName(name).keys(logged) or (loaders == 1 and name in logged), "no name leads into the next error"


def test_the_message_suggests_the_nearest_that_can_be_read():
    logged = dict.fromkeys(["val/task_0/accuracy", "val/task_1/accuracy", "val/loss/dataloader_idx_0", "val/acc2"], 0)
    message = MetricName("val/acc").not_logged(logged, loaders=2)
    assert "only ['val/accuracy', 'val/loss'] were logged. Did you mean 'val/accuracy'? Pass" in message
    assert "Did you mean" not in MetricName("val/acc").not_logged({"zzz": 0}, loaders=2)
    for played in ("val/success", "val/return"):  # by a callback, and not by the module
        assert (
            MetricName(played)
            .not_logged({"val/loss": 0}, loaders=2)
            .endswith("only ['val/loss'] were logged. Give the Trainer a SuccessLogger(), too, which logs it.")
        )
    played = {"val/task_0/return": 0, "val/task_1/return": 0}  # of tasks without success
    message = MetricName("val/success").not_logged(played, loaders=2)
    assert "the tasks do not say what success is" in message and "ForgettingLogger('val/return')" in message
    message = MetricName("val_acc").not_logged({f"val_acc_{j}": 0 for j in range(3)}, loaders=3)
    assert "Did you mean 'val_acc_{task}'?" in message


def test_the_message_about_one_value_for_several_loaders():
    message = MetricName("val/acc").not_logged({"val/acc": 0}, loaders=3)
    assert "it was logged once for 3 validation loaders, so its task is unknown" in message
    assert "such as 'val/task_0/acc'" in message and "only" not in message


def test_a_message_names_a_handful():
    logged = dict.fromkeys([f"{a}{b}{c}" for a in "pqrs" for b in "xyz" for c in "xyz"], 0)
    message = MetricName("val/acc").not_logged(logged, loaders=1)
    assert re.search(r"only \[('...', ){4}'...'\] and 31 more were logged", message) and len(message) < 500


@pytest.mark.parametrize("metric", ["val_loss", "val/loss_cls", "valLoss", "MAE", "val_rmse", "PPL", "squared_error"])
def test_less_is_better(metric):
    assert better(metric) == "min"


@pytest.mark.parametrize("metric", ["val/acc", "val/Accuracy", "valAcc", "val/F1", "auroc", "success", "mIoU", "acc5"])
def test_more_is_better(metric):
    assert better(metric) == "max"


@pytest.mark.parametrize("metric", ["val/q", "classes", "glossary"])
def test_it_does_not_say(metric):
    assert better(metric) is None


def test_names_without_a_number_are_shown():
    message = MetricName("val_acc").not_logged(
        dict.fromkeys(["val_acc/mnist", "val_acc/svhn", "forgetting"], 0), loaders=2
    )
    assert "only ['val_acc/svhn', 'val_acc/mnist'] were logged. Pass" in message
    assert "Did you mean" not in message and "a place for the number of the task: 'val_acc_{task}'" in message
