"""The page as a program on the net meets it: what it answers, what it refuses, and that it lives on."""

import base64
import io
import json
import os
import re
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import gradio
import httpx
import numpy as np
import psutil
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from llava_aurora.errors import AuroraError
from llava_aurora.serving.events import PageEvents
from llava_aurora.serving.housekeeping import forget_finished
from llava_aurora.serving.marks import COORDINATES, MARKS, REGION
from llava_aurora.serving.page import build_page
from llava_aurora.serving.server import ServerSettings, running
from llava_aurora.tokens.mask import MaskKind

FRAME = 56  # of the scripted model
MAP, ANSWER, CHAIN, PICTURE_FILE, JSON_FILE = range(5)


pytestmark = pytest.mark.usefixtures("aurora")


@pytest.fixture(scope="module")
def client(site, tmp_path_factory):
    downloads = str(tmp_path_factory.mktemp("downloads"))
    client = Client(site, download_files=downloads, verbose=False, analytics_enabled=False)
    yield client
    client.close()


def begin(client, image, question="Which is nearest?", reasoning="chain"):
    return client.submit(handle_file(str(image)), question, reasoning, api_name="/ask")


def ask(client, image, question="Which is nearest?", reasoning="chain"):
    return begin(client, image, question, reasoning).result(timeout=60)


def upload(site, path):
    with path.open("rb") as file:
        answer = httpx.post(f"{site}gradio_api/upload", files={"files": (path.name, file)})
    answer.raise_for_status()
    return answer.json()[0]


def events(site, event_id):
    """Kind and data of each event of a question, until the connection is closed."""
    with httpx.stream("GET", f"{site}gradio_api/call/ask/{event_id}", timeout=30) as stream:
        kind = ""
        for line in stream.iter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                yield kind, json.loads(value)


def post(site, path, question="Which is nearest?"):
    """Asks about a file that the server is said to have."""
    data = [{"path": path, "meta": {"_type": "gradio.FileData"}}, None, question, "chain"]
    return httpx.post(f"{site}gradio_api/call/ask", json={"data": data}, timeout=30)


# --- what it answers --------------------------------------------------------------------------------------------------


def test_an_answer_has_pictures_text_and_files(client, photograph, aurora):
    shown = ask(client, photograph, reasoning="direct")
    assert aurora.asked == [((320, 240), "Which is nearest?", "direct", "verified")]
    assert "(B)" in shown[ANSWER]
    assert "[depth map, 9 codes]" in shown[CHAIN]
    assert "bright = close" in shown[MAP]
    record = json.loads(Path(shown[JSON_FILE]).read_text())
    assert record["text"] == "".join(aurora.pieces)
    assert record["boxes"] == [[80, 60, 160, 120]]
    with Image.open(shown[PICTURE_FILE]) as picture:
        assert picture.format == "PNG"
        assert picture.width > 400


def test_the_map_appears_code_by_code(client, photograph):
    job = begin(client, photograph)
    job.result(timeout=60)
    steps = [str(step) for step in job.outputs()]
    for count in range(1, 10):
        assert any(f"[depth map, {count} of 9 codes]" in step for step in steps)
    assert sum("<p>depth map, 3 of 9 codes</p>" in step for step in steps) >= 1


def test_a_model_without_perception_tokens_answers_in_text(aurora, monkeypatch, photograph, tmp_path):
    monkeypatch.setattr(aurora.model, "perception", None)
    aurora.answer = "a <b>cat</b>"
    events = PageEvents(aurora, folder=tmp_path, examples=[], decoding="greedy", interval=0)
    build_page(events, name="plain", concurrency=1)
    *_, last = events.ask(str(photograph), None, "What is it?", "direct")
    assert (last.map, last.answer) == ("", aurora.answer)


def test_a_point_is_never_ignored_silently(aurora, tmp_path, photograph):
    events = PageEvents(aurora, folder=tmp_path, examples=[], decoding="greedy", interval=0)
    shown, marked, question = events.choose(None, "", COORDINATES, str(photograph))
    for place in ((120, 180), (360, 180)):  # of the copy on the page, 480 pixels wide
        shown, marked, question = events.click(marked, question, COORDINATES, SimpleNamespace(index=place))
    *_, last = events.ask(shown, marked, question, "direct")
    assert last.answer == "(B)"
    with pytest.raises(gradio.Error, match="point A is not in the question"):
        next(events.ask(shown, marked, "What is at A?", "direct"))
    assert [asked[1] for asked in aurora.asked] == [question]
    places = [tuple(map(int, place)) for place in re.findall(r"\(<PIXEL_(\d+)>,<PIXEL_(\d+)>\)", question)]
    # A wide image fills the frame from left to right.
    assert np.abs(np.subtract(places, [(80 / 320 * FRAME, FRAME / 2), (240 / 320 * FRAME, FRAME / 2)])).max() <= 1


def test_clicks_are_the_region_that_the_question_names(aurora, tmp_path, photograph, monkeypatch):
    kinds = {"box": aurora.model.perception.kinds["box"], "mask": MaskKind()}
    monkeypatch.setattr(aurora.model.perception, "kinds", kinds)
    events = PageEvents(aurora, folder=tmp_path, examples=[], decoding="greedy", interval=0)
    shown, marked, question = events.choose(None, "", REGION, str(photograph))
    asked = []
    for place in ((120, 90), (360, 90), (360, 270)):  # of the copy on the page, 480 pixels wide
        shown, marked, question = events.click(marked, question, REGION, SimpleNamespace(index=place))
        asked.append(question)
    assert [len(re.findall("<PIXEL_", each)) for each in asked] == [2, 4, 0]
    (mask,) = kinds["mask"].read(asked[2])
    assert mask.sum() / mask.size == pytest.approx(160 * 120 / 2 / 320**2, abs=0.02)  # half a box, in the square
    with pytest.raises(gradio.Error, match="the region is not in the question"):
        next(events.ask(shown, marked, "What is it?", "direct"))
    *_, last = events.ask(shown, marked, question, "direct")
    assert last.answer == "(B)"


def test_an_answer_s_masks_lie_over_the_image(aurora, tmp_path, photograph, monkeypatch):
    kind, mask = MaskKind(), np.zeros((64, 64), bool)
    mask[8:24, 16:48] = True
    monkeypatch.setattr(aurora.model.perception, "kinds", {"mask": kind})
    monkeypatch.setattr(
        type(aurora), "pieces", ["It shows <p>a <b>cube</p> ", kind.text(mask), " and ", kind.text(~mask), "."]
    )
    events = PageEvents(aurora, folder=tmp_path, examples=[], decoding="greedy", interval=0)
    *_, last = events.ask(str(photograph), None, "What is it?", "direct")
    assert last.map.count("<img") == 3
    assert "mask 2" in last.map
    assert "<b>" not in last.map
    file = re.search(r'download="masks.png" href="data:image/png;base64,([^"]*)"', last.map)[1]
    numbers = np.asarray(Image.open(io.BytesIO(base64.b64decode(file))))
    assert numbers.shape == (240, 320)
    assert numbers[60, 160] == 1
    assert numbers[200, 10] == 2
    assert len(json.loads(Path(last.json_file).read_text())["masks"]) == 2
    monkeypatch.setattr(type(aurora), "pieces", ["It shows <p>a cube</p> ", kind.text(mask), "."])
    *_, last = events.ask(str(photograph), None, "What is it?", "direct")
    assert last.answer == "a cube"


def test_a_question_of_ones_own_stays_and_a_proposed_one_follows_the_points(aurora, tmp_path, photograph):
    events = PageEvents(aurora, folder=tmp_path, examples=[], decoding="greedy", interval=0)
    _, marked, question = events.choose(None, "", MARKS, str(photograph))
    asked = [question]
    for place in ((8, 12), (24, 12), (30, 40)):
        _, marked, question = events.click(marked, question, MARKS, SimpleNamespace(index=place))
        asked.append(question)
    assert asked[:2] == ["", ""]
    assert "A or B" in asked[2]
    assert "A, B or C" in asked[3]
    assert "A or B" in events.undo(marked, question, MARKS)[2]
    assert events.clear(marked, "My own?", MARKS)[2] == "My own?"
    assert events.clear(marked, question, MARKS)[2] == ""
    assert events.give(marked, question, COORDINATES)[2].startswith("Which of the points A (<PIXEL_")


def test_the_settings_of_a_page_that_says_nothing():
    assert ServerSettings().host == "127.0.0.1"
    assert ServerSettings().local
    assert not ServerSettings(host="0.0.0.0").local
    assert ServerSettings(host="localhost").local


# --- who is let in, and to what ---------------------------------------------------------------------------------------


def test_it_listens_on_this_machine_alone(site):
    port = httpx.URL(site).port
    listening = [c.laddr for c in psutil.Process().net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert {address.ip for address in listening if address.port == port} == {"127.0.0.1"}


def test_another_name_for_this_machine_is_not_let_in(site):
    assert httpx.get(site, headers={"Host": "evil.example"}).status_code == 400


def test_the_page_offers_nothing_from_elsewhere(site):
    page = httpx.get(site).text + httpx.get(f"{site}theme.css").text
    assert "fonts.googleapis" not in page
    assert "fonts.gstatic" not in page


@pytest.mark.parametrize("route", ["gradio_api/file=", "gradio_api/file/", "static/", "assets/", ""])
@pytest.mark.parametrize(
    "name",
    [
        *("/etc/passwd", "../../../../../../etc/passwd", "..%2f..%2f..%2f..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd"),
        *("....//....//etc/passwd", "C:\\Windows\\win.ini", "file:///etc/passwd", "//etc/passwd", "/proc/self/environ"),
    ],
)
def test_no_other_file_can_be_read(site, route, name):
    port = httpx.URL(site).port
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:  # clients tidy such paths up
        connection.sendall(f"GET /{route}{name} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert int(answer.split()[1]) in (403, 404), answer[:200]
    assert b"root:" not in answer


def test_files_of_the_package_and_the_working_folder_cannot_be_read(site):
    for path in (Path(__file__), Path("setup.cfg").resolve(), Path.home() / ".bashrc"):
        assert httpx.get(f"{site}gradio_api/file={path}").status_code in (403, 404)


def test_a_question_cannot_be_about_a_file_that_was_not_uploaded(site, aurora, tmp_path, photograph):
    for path in (str(photograph), "/etc/passwd", str(Path(sys.prefix) / "pyvenv.cfg")):
        kind, data = list(events(site, post(site, path).json()["event_id"]))[-1]
        assert kind == "error"
        assert "root:" not in str(data)
    assert aurora.asked == []


def test_nothing_is_fetched_for_a_visitor(site, aurora):
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.2)
        for address in (f"http://127.0.0.1:{trap.getsockname()[1]}/x.png", "https://example.com/x.png"):
            kind, data = list(events(site, post(site, address).json()["event_id"]))[-1]
            assert kind == "error"
            assert "not fetched" in str(data)
        with pytest.raises(TimeoutError):
            trap.accept()
    assert aurora.asked == []


def test_nothing_is_told_to_anybody(aurora, tmp_path, photograph):
    reached, watching = [], True

    def watch(event, arguments):
        if watching and event == "socket.connect" and isinstance(arguments[1], tuple):
            reached.append(arguments[1][0])
        if watching and event == "socket.getaddrinfo":
            reached.append(arguments[0])

    sys.addaudithook(watch)  # it cannot be taken out again, only told to look away
    before = {name: value for name, value in os.environ.items() if "GRADIO" in name or "PROXY" in name.upper()}
    with running(aurora, ServerSettings(port=0, examples=photograph.parent), name="quiet") as address:
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        client = Client(address, download_files=str(tmp_path), verbose=False, analytics_enabled=False)
        assert "(B)" in ask(client, photograph)[ANSWER]
        client.close()
        assert any(folder.iterdir())
    watching = False
    assert reached
    assert {host.decode() if isinstance(host, bytes) else host for host in reached} <= {"127.0.0.1", "localhost"}
    assert not folder.exists()
    after = {name: value for name, value in os.environ.items() if "GRADIO" in name or "PROXY" in name.upper()}
    assert after == before


# --- bad input --------------------------------------------------------------------------------------------------------


def refused(client, image, question="Which is nearest?"):
    with pytest.raises(AppError) as raised:
        ask(client, image, question)
    return str(raised.value)


def test_a_file_that_is_too_large_is_refused_before_it_is_read(site, tmp_path):
    for size in (2**20 + 2**16, 2**24):
        answer = httpx.post(f"{site}gradio_api/upload", files={"files": ("large.png", b"\0" * size)})
        assert answer.status_code == 413
        assert "maximum allowed size" in answer.text or "too large" in answer.text


def test_a_question_is_needed_and_may_not_be_too_long(client, photograph, aurora):
    assert "the question is empty" in refused(client, photograph, "  \n")
    assert "the question takes 3000 tokens, and the model's context is 512" in refused(client, photograph, "a" * 3000)
    assert "(B)" in ask(client, photograph)[ANSWER]


def test_an_image_is_needed(client):
    with pytest.raises(AppError, match="choose an image first"):
        client.predict(None, "Which?", "chain", api_name="/ask")


def test_another_kind_of_reasoning_is_refused(client, photograph, aurora):
    with pytest.raises(AppError):
        ask(client, photograph, reasoning="telepathy")
    assert aurora.asked == []


def test_what_is_no_matter_of_the_visitor_stays_with_the_server(client, photograph, aurora, capfd):
    aurora.error = RuntimeError("CUDA error at /secret/place")
    assert "secret" not in refused(client, photograph)
    assert "/secret/place" in capfd.readouterr().err
    aurora.error = None
    assert "(B)" in ask(client, photograph)[ANSWER]


def test_messages_are_text(client, photograph, aurora):
    aurora.error = AuroraError("<img src=x onerror=alert(1)>")
    assert "&lt;img" in refused(client, photograph)


# --- many, and those who leave ----------------------------------------------------------------------------------------


def test_a_visitor_who_hangs_up_ends_the_writing(site, client, photograph, aurora):
    aurora.let.clear()
    event_id = post(site, upload(site, photograph)).json()["event_id"]
    stream = events(site, event_id)
    assert any("of 9 codes" in str(data) for _, data in stream)
    stream.close()  # the connection with it
    assert not aurora.ended.is_set()
    aurora.let.set()
    assert aurora.ended.wait(timeout=30)
    assert "(B)" in ask(client, photograph)[ANSWER]


def test_stop_ends_the_writing(client, photograph, aurora):
    aurora.let.clear()
    job = begin(client, photograph)
    while not job.outputs():
        threading.Event().wait(0.01)
    with ThreadPoolExecutor() as pool:  # stopping waits for the token that is being written
        pool.submit(job.cancel)
        aurora.let.set()
    assert aurora.ended.wait(timeout=30)


def test_fifty_at_once_are_answered_or_told_to_come_back(site, client, photograph, aurora):
    path = upload(site, photograph)

    def one(_):
        answer = post(site, path)
        if answer.status_code == 503:
            return answer.json()["detail"]
        return list(events(site, answer.json()["event_id"]))[-1][0]

    aurora.let.clear()
    with ThreadPoolExecutor(50) as pool:
        waiting = [pool.submit(one, number) for number in range(50)]
        while sum(each.done() for each in waiting) < 45:  # one is answered, four wait
            threading.Event().wait(0.01)
        aurora.let.set()
        outcomes = [each.result() for each in waiting]
    assert outcomes.count("complete") == 5
    assert sum("Queue is full" in outcome for outcome in outcomes) == 45
    assert "(B)" in ask(client, photograph)[ANSWER]


def test_nothing_is_kept_of_questions_that_were_answered(client, photograph, aurora):
    (page,) = [page for page in gradio.Blocks.get_instances() if page.is_running]
    for _ in range(3):
        ask(client, photograph)
    kept = [
        *(page._queue.event_ids_to_events, page._queue.event_analytics, page._queue.pending_event_ids_session),
        *(page._queue.pending_messages_per_session, page.pending_streams, page.pending_diff_streams),
        *(page._queue._asyncio_tasks, page.app.iterators_to_reset),
    ]
    assert len(page._queue.event_analytics) >= 3
    forget_finished(page, age=3600)
    assert len(page._queue.event_analytics) >= 3
    forget_finished(page, age=-1)
    assert [len(each) for each in kept] == [0] * len(kept)
    assert "(B)" in ask(client, photograph)[ANSWER]


def test_a_folder_of_examples_has_images(aurora, tmp_path):
    for folder, message in ((tmp_path, "holds none of"), (tmp_path / "nowhere", "no such folder")):
        with (
            pytest.raises(AuroraError, match=message),
            running(aurora, ServerSettings(port=0, examples=folder), name="none"),
        ):
            pass
