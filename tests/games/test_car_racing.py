"""The scripted driver, actions as text, and rounds on a stub; a short real round where gymnasium is installed."""

import json

import numpy as np
import pytest
from PIL import Image

from llava_aurora import AuroraError
from llava_aurora.games.actions import action_text, read_action
from llava_aurora.games.driver import ScriptedDriver
from llava_aurora.games.playing import play, random_player
from llava_aurora.games.recording import record_rounds
from llava_aurora.games.rounds import play_rounds


def road(column, speed=0):
    """A frame with a straight vertical road around a column."""
    frame = np.full((96, 96, 3), (100, 204, 100), np.uint8)
    frame[:84, max(column - 10, 0) : column + 11] = 105
    frame[84:] = 0
    frame[94 - speed : 94, 12:14] = 255
    return frame


class StubGame:
    def __init__(self, length=5):
        self.length, self.actions = length, []

    def reset(self, *, seed):
        return road(48), {}

    def step(self, action):
        self.actions.append(action.tolist())
        return road(48, len(self.actions)), 1.5, len(self.actions) == self.length, False, {}


def test_actions_are_read_as_they_are_written():
    for steering in range(-10, 11):
        action = (steering / 10, 0.3, 0.0)
        assert read_action(action_text(action)) == pytest.approx(action)


@pytest.mark.parametrize("text", ["", "left", "[1,2]", "[21,10,10]", "[-1,10,10]"])
def test_unreadable_actions(text):
    assert read_action(text) is None


def test_driver_steers_to_the_road_and_slows_down():
    assert abs(ScriptedDriver().act(road(48))[0]) < 0.1
    assert ScriptedDriver().act(road(70))[0] > 0.3
    assert ScriptedDriver().act(road(26))[0] < -0.3
    assert ScriptedDriver().act(road(80))[0] > 0.3  # beside the road
    _, gas, brake = ScriptedDriver().act(road(48, speed=8))
    assert gas == 0
    assert brake > 0


def test_without_a_readable_action_the_car_rolls_on():
    game = StubGame()
    steps = list(play(game, lambda *_: "hm", seed=0))
    assert [step.readable for step in steps] == [False] * 5
    assert game.actions == [[0.0, 0.0, 0.0]] * 5
    assert sum(step.reward for step in steps) == 7.5
    assert steps[0].seen.size == (192, 96)


def test_ten_steps_are_recorded(tmp_path):
    pytest.importorskip("gymnasium")
    pytest.importorskip("Box2D")
    out = tmp_path / "races"
    assert len(record_rounds(out, rounds=1, seed=3, every=5, most_steps=10)) == 1
    records = json.loads((out / "records.json").read_text())
    assert [record["image"] for record in records] == ["frames/000003-0000.png", "frames/000003-0005.png"]
    assert all(
        read_action(record["conversations"][1]["value"]) and (out / record["image"]).is_file() for record in records
    )
    with pytest.raises(AuroraError, match="is there already"):
        record_rounds(out, rounds=1, seed=3, every=5, most_steps=10)


def test_missing_gymnasium_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "Box2D", None)
    with pytest.raises(AuroraError, match=r"pip install llava_aurora\[games\]"):
        record_rounds(tmp_path / "races", rounds=1, seed=0, every=1)
    assert not (tmp_path / "races").exists()


def test_random_player_is_repeatable_and_readable():
    first, second = random_player(1), random_player(1)
    texts = [first(None, None) for _ in range(20)]
    assert texts == [second(None, None) for _ in range(20)]
    assert all(map(read_action, texts))


def test_rounds_count_what_cannot_be_read_and_draw_the_first(tmp_path):
    class Again(StubGame):
        def reset(self, *, seed):
            self.actions = []
            return super().reset(seed=seed)

    gif = tmp_path / "round.gif"
    texts = iter(["[10,10,10]", "hm"] * 5)
    found = play_rounds(Again(), lambda _: lambda *_: next(texts), seeds=[4, 5], gif=gif)
    assert found.returns == (7.5, 7.5)
    assert (found.unreadable, found.steps, found.mean.value) == (5, 10, 7.5)
    with Image.open(gif) as image:
        assert image.n_frames == 2
