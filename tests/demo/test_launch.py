"""How a run is started and what is said if it fails."""

import socket
import sys

import pytest

from llava_aurora.demo.launch import finetune_command, run_training
from llava_aurora.errors import AuroraError


def port_of(command) -> int:
    return int(command[command.index("--master_port") + 1])


def test_a_run_meets_at_a_port_that_is_free(monkeypatch):
    monkeypatch.delenv("MASTER_PORT", raising=False)
    with socket.socket() as taken:
        taken.bind(("", port_of(finetune_command([], ranks=2))))
        assert port_of(finetune_command([], ranks=2)) != taken.getsockname()[1]


def test_or_at_the_one_it_is_given(monkeypatch):
    monkeypatch.setenv("MASTER_PORT", "29876")
    assert port_of(finetune_command([], ranks=2)) == 29876


def test_a_failure_is_told_by_its_cause_and_its_log(tmp_path):
    printed = ["ValueError: no such flag", "[ERROR] [launch.py:1:sigkill_handler] exits with return code = 1"]
    prints = f"print(*{printed!r}, sep='\\n'); exit(1)"
    log = tmp_path / "training.log"
    with pytest.raises(AuroraError, match=r"ValueError: no such flag$") as failure:
        run_training([sys.executable, "-c", prints], log=log, description="Training")
    assert str(log) in str(failure.value)
    assert log.read_text(encoding="utf-8").splitlines() == printed
