"""`llava-aurora serve` with a model that was trained: it answers, many at once too, and ends when it is told to."""

import json
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from forked import begin

from llava_aurora.training.ports import free_port

pytest.importorskip("gradio", reason="pip install 'llava-aurora[serve]'")

QUESTION = "Write down the depth map of this image."


def test_a_port_in_use_is_named_before_the_model_is_loaded(forked):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = forked("-m", "llava_aurora.cli", "serve", "--model", "nowhere", "--port", port, code=1)
    assert f"127.0.0.1:{port}: " in run.output
    assert "nowhere" not in run.output


@pytest.fixture
def served(finetuned, forked, tmp_path):
    """The running command and its address."""
    port = free_port()
    command = ("-m", "llava_aurora.cli", "serve", "--model", finetuned[0], "--port", port, "--queue", 2)
    with begin(*command, TMPDIR=str(tmp_path)) as running:
        try:
            assert any(f"http://127.0.0.1:{port}/" in line for line in running.output)
            yield running, f"http://127.0.0.1:{port}/"
        finally:
            if running.process.is_alive():
                running.kill()


def ask(site, path, question=QUESTION):
    """The last event of a question, or why it was turned away."""
    image = {"path": path, "meta": {"_type": "gradio.FileData"}}
    answer = httpx.post(f"{site}gradio_api/call/ask", json={"data": [image, None, question, "direct"]}, timeout=60)
    if answer.status_code != 200:
        return answer.json()["detail"], None
    kind, data = "", None
    with httpx.stream("GET", f"{site}gradio_api/call/ask/{answer.json()['event_id']}", timeout=120) as stream:
        for line in stream.iter_lines():
            name, _, value = line.partition(": ")
            kind, data = (value, data) if name == "event" else (kind, json.loads(value) if name == "data" else data)
    return kind, data


def test_a_trained_model_answers_and_ends_when_told(served, workshop, tmp_path):
    running, site = served
    process = psutil.Process(running.process.pid)
    content = (workshop.images / "0.png").read_bytes()
    (path,) = httpx.post(f"{site}gradio_api/upload", files={"files": ("0.png", content)}).json()
    kind, data = ask(site, path)
    assert kind == "complete"
    record = json.loads(Path(data[4]["path"]).read_text())
    assert record["question"] == QUESTION
    assert data[1].startswith(record["answer"])
    kind, data = ask(site, path, "word " * 600)
    assert kind == "error"
    assert "the model's context is 512" in str(data)

    before = process.memory_info().rss
    with ThreadPoolExecutor(50) as pool:
        outcomes = [kind for kind, _ in pool.map(lambda _: ask(site, path), range(50))]
    assert 3 <= outcomes.count("complete") < 50
    assert outcomes.count("complete") + sum("Queue is full" in outcome for outcome in outcomes) == 50
    assert ask(site, path)[0] == "complete"
    assert process.memory_info().rss - before < 150 * 2**20

    assert list(tmp_path.glob("llava-aurora-*"))
    process.send_signal(signal.SIGTERM)
    assert "stopped\n" in running.output.readlines()
    running.process.join()
    assert running.process.exitcode == 0
    assert not list(tmp_path.glob("llava-aurora-*"))
