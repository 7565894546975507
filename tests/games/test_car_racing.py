"""The scripted driver, actions as text, and rounds on a stub; a short real round where gymnasium is installed."""

import json
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from llava_aurora import AuroraError
from llava_aurora.games import rounds
from llava_aurora.games.actions import action_text, read_action
from llava_aurora.games.driver import ScriptedDriver
from llava_aurora.games.playing import RandomPlayer, Round, ScriptedPlayer, play
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
    """The game's interface: a straight road, 1.5 for each step."""

    def __init__(self, length=5):
        self.length, self.actions = length, []

    def reset(self, *, seed):
        self.actions = []
        return road(48), {}

    def step(self, action):
        self.actions.append(action.tolist())
        return road(48, len(self.actions)), 1.5, len(self.actions) == self.length, False, {}


@pytest.fixture
def stub_games(monkeypatch):
    """Every game that is opened, in their order."""
    opened = []

    @contextmanager
    def open_stub():
        opened.append(StubGame())
        yield opened[-1]

    monkeypatch.setattr(rounds, "open_game", open_stub)
    return opened


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
    played = Round(StubGame(), seed=0)
    assert played.seen.size == (192, 96)
    assert len(list(play(lambda rounds: ["hm"], [played]))) == 5
    assert played.game.actions == [[0.0, 0.0, 0.0]] * 5
    assert (played.score, played.steps, played.unreadable) == (7.5, 5, 5)


def test_rounds_side_by_side_are_asked_together_until_they_end():
    asked = []

    def player(running):
        asked.append([each.seed for each in running])
        return ["[10,10,10]"] * len(running)

    list(play(player, [Round(StubGame(2), seed=7), Round(StubGame(9), seed=8)], most_steps=3))
    assert asked == [[7, 8], [7, 8], [8]]


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
    played = [Round(StubGame(), seed=seed) for seed in range(50)]
    texts = RandomPlayer()(played)
    assert texts == RandomPlayer()(played)
    assert len(set(texts)) > 40
    actions = [read_action(text) for text in texts]
    assert min(action[0] for action in actions) < -0.7
    assert max(max(action) for action in actions) == 1


def test_rounds_are_kept_and_not_played_again_but_for_the_gif(tmp_path, stub_games):
    answers = {1: "[10,10,10]", 2: "hm", 3: "[9,11,10]"}
    players = {"model": lambda running: [answers[each.seed] for each in running], "driver": ScriptedPlayer()}
    found = play_rounds(players, out=tmp_path, seeds=[1, 2], at_once=2)
    assert found["model"].mean.value == 7.5
    assert (found["model"].unreadable, found["model"].steps) == (5, 10)
    assert found["driver"].unreadable == 0
    assert len(stub_games) == 4
    gif = tmp_path / "round.gif"
    assert play_rounds(players, out=tmp_path, seeds=[1, 2, 3], at_once=1, gif=gif).keys() == players.keys()
    assert len(stub_games) == 4 + 3
    lines = [json.loads(line) for line in (tmp_path / "games.jsonl").read_text().splitlines()]
    expected = [("model", 1), ("model", 2), ("driver", 1), ("driver", 2), ("model", 3), ("driver", 3)]
    assert [(line["player"], line["seed"]) for line in lines] == expected
    with Image.open(gif) as image:
        assert image.n_frames == 2
