"""Each kind of task against the slow, obvious way to make it."""

import math

import numpy as np
import pytest
import torch

from dendrite_zoo.streams import (
    BlurredTasks,
    ContrastTasks,
    PermutedTasks,
    RotatedTasks,
    SplitTasks,
    TaskStream,
    load_source,
    permutation,
    rotation_angle,
)
from dendrite_zoo.streams.sampling import task_share
from dendrite_zoo.streams.tasks import blur, rotate


def plain(split="test"):
    """The digits, normalised by hand."""
    digits = load_source("digits")
    return (getattr(digits, f"x_{split}").float() / 16 - 0.3057) / 0.3761, getattr(digits, f"y_{split}")


def whole(stream, task, split="test"):
    batches = list(stream.task_loader(task, split))
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


class TestPermuted:
    def test_every_row_is_shuffled_alike_feature_by_feature(self):
        x, y = whole(PermutedTasks("digits", 3), 2)
        expected, labels = plain()
        order = permutation(0, 2, 64)
        for feature in range(64):
            torch.testing.assert_close(x[:, feature], expected[:, order[feature]])
        assert y.equal(labels)

    def test_the_first_task_is_the_data_themselves(self):
        torch.testing.assert_close(whole(PermutedTasks("digits", 3, seed=5), 0)[0], plain()[0])

    def test_another_seed_makes_other_tasks(self):
        a, b = (whole(PermutedTasks("digits", 2, seed=seed), 1)[0] for seed in (0, 1))
        assert not a.equal(b)


class TestRotated:
    @pytest.mark.parametrize("turns", [0, 1, 2, 3])
    def test_quarter_turns_are_exact_and_counter_clockwise(self, turns):
        images = torch.rand(2, 3, 5, 5)
        torch.testing.assert_close(rotate(images, 90 * turns), images.rot90(turns, (2, 3)), atol=1e-5, rtol=0)

    def test_any_angle_against_a_naive_loop(self):
        image, degrees = torch.rand(6, 6, dtype=torch.double), 33.0
        cos, sin, middle = math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), 2.5
        naive = torch.zeros(6, 6, dtype=torch.double)
        for row in range(6):
            for column in range(6):
                right, up = column - middle, middle - row
                from_right, from_up = cos * right + sin * up, -sin * right + cos * up  # turned back
                r, c = middle - from_up, middle + from_right
                for i in (math.floor(r), math.floor(r) + 1):
                    for j in (math.floor(c), math.floor(c) + 1):
                        if 0 <= i < 6 and 0 <= j < 6:
                            naive[row, column] += (1 - abs(r - i)) * (1 - abs(c - j)) * image[i, j]
        torch.testing.assert_close(rotate(image[None, None], degrees)[0, 0], naive)

    def test_tasks_turn_by_their_angles_and_corners_are_black(self):
        x, _ = whole(RotatedTasks("digits", 3), 1)
        pixels = load_source("digits").x_test.float().unflatten(1, (1, 8, 8))
        expected = (rotate(pixels, rotation_angle(0, 1)).flatten(1) / 16 - 0.3057) / 0.3761
        torch.testing.assert_close(x, expected)
        assert float(x.min()) == pytest.approx(-0.3057 / 0.3761, abs=1e-4), "nothing is darker than black"

    def test_the_first_task_is_the_data_themselves(self):
        torch.testing.assert_close(whole(RotatedTasks("digits", 3), 0)[0], plain()[0])

    def test_colour_images_turn_channel_by_channel(self):
        x, y = torch.rand(4, 3, 5, 5), torch.tensor([0, 1, 0, 1])
        turned, _ = whole(RotatedTasks((x, y, x, y), 2), 1)
        torch.testing.assert_close(turned, rotate(x, rotation_angle(0, 1)).flatten(1))

    @pytest.mark.parametrize("shape", [(5,), (4, 5), (3, 4, 5)])
    def test_images_must_be_square(self, shape):
        x, y = torch.rand(2, *shape), torch.tensor([0, 1])
        for stream in (RotatedTasks, BlurredTasks):
            with pytest.raises(
                ValueError, match=r"rows of RotatedTasks and BlurredTasks to be square images.*Crop or pad"
            ):
                stream((x, y, x, y), 2).setup()


class TestBlurredAndContrast:
    def test_each_pixel_is_the_weighted_mean_of_those_around(self):
        x = torch.rand(1, 2, 5, 5, dtype=torch.float64)
        found, width = blur(x, 0.6), 0.6
        for row in range(5):
            for column in range(5):
                total, weights = torch.zeros(2, dtype=torch.float64), 0.0
                for i in range(-2, 3):
                    for j in range(-2, 3):
                        weight = math.exp(-(i * i + j * j) / (2 * width**2))
                        at = min(max(row + i, 0), 4), min(max(column + j, 0), 4)
                        total, weights = total + weight * x[0, :, at[0], at[1]], weights + weight
                torch.testing.assert_close(found[0, :, row, column], total / weights)

    def test_tasks_are_near_to_each_other_and_the_same_for_any_number(self):
        x, y = torch.rand(6, 3, 8, 8), torch.arange(6) % 2
        for kind in (BlurredTasks, ContrastTasks):
            rows = [whole(kind((x, y, x, y), 4, seed=3), task)[0] for task in range(4)]
            torch.testing.assert_close(rows[0], x.flatten(1))
            assert torch.equal(whole(kind((x, y, x, y), 9, seed=3), 3)[0], rows[3])
            assert all(row.std() < x.std() for row in rows[1:])
            torch.testing.assert_close(rows[2].mean(), rows[0].mean(), atol=0.02, rtol=0)
        share = task_share(3, 1)
        contrast = whole(ContrastTasks((x, y, x, y), 2, seed=3), 1)[0]
        flat = x.flatten(1)
        torch.testing.assert_close(contrast, flat.mean(1)[:, None] + (1 - 0.9 * share) * (flat - flat.mean(1)[:, None]))


class TestSplit:
    def test_every_task_has_its_classes_and_all_of_their_rows(self):
        stream, (x, y) = SplitTasks("digits", 5), plain()
        for task in range(5):
            assert stream.classes(task) == [2 * task, 2 * task + 1]
            mine = (y == 2 * task) | (y == 2 * task + 1)
            got_x, got_y = whole(stream, task)
            torch.testing.assert_close(got_x, x[mine])
            assert got_y.equal(y[mine]), "labels stay as they are"

    def test_another_seed_deals_the_classes_otherwise(self):
        stream = SplitTasks("digits", 5, seed=1)
        classes = [stream.classes(task) for task in range(5)]
        assert sorted(sum(classes, [])) == list(range(10))
        assert classes[0] == [1, 0]
        assert classes[1] == [9, 8]

    def test_held_out_rows_are_of_the_tasks_classes(self):
        stream = SplitTasks("digits", 2, val_fraction=0.1)
        assert set(whole(stream, 1, "val")[1].tolist()) == {5, 6, 7, 8, 9}
        train, held_out = (len(whole(stream, 1, split)[1]) for split in ("train", "val"))
        assert train + held_out == int((load_source("digits").y_train >= 5).sum())

    def test_where_classes_do_not_divide_evenly_the_first_tasks_have_one_more(self):
        stream = SplitTasks("digits", 3, seed=2)
        stream.setup()
        order = sum((SplitTasks("digits", 10, seed=2).classes(task) for task in range(10)), [])
        assert [stream.classes(task) for task in range(3)] == [part.tolist() for part in np.array_split(order, 3)]

    def test_more_tasks_than_classes_are_refused(self):
        with pytest.raises(ValueError, match="`num_tasks` to be at most 10, the number of classes, but got 11"):
            SplitTasks("digits", 11).setup()


def test_a_stream_of_ones_own_goes_by_its_name():
    class ScaledTasks(TaskStream):
        pass

    assert ScaledTasks("digits", 2).benchmark == "ScaledTasks-digits"
