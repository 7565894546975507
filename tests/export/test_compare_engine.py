"""The comparison with a server counts equal answers and shows the first that is not; transformers stands for one."""

import base64
import io
import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

import pytest
from PIL import Image
from transformers import pipeline

from llava_aurora.export.hugging_face import export_hugging_face

pytestmark = pytest.mark.deepspeed
NEW_TOKENS = 20


@contextmanager
def server(respond):
    """Answers chat requests by respond(image, question, body). Yields the URL of its API."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            picture, text = body["messages"][0]["content"]
            image = Image.open(io.BytesIO(base64.b64decode(picture["image_url"]["url"].split(",")[1])))
            said = {"choices": [{"message": {"content": respond(image, text["text"], body)}}]}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(said).encode())

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}/v1"
        running.shutdown()


@pytest.fixture(scope="module")
def exported(finetuned, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared") / "model"
    export_hugging_face(finetuned[0], out)
    asking, one_at_a_time = pipeline("image-text-to-text", model=str(out)), Lock()

    def respond(image, question, body):
        content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
        with one_at_a_time:
            written = asking(
                text=[{"role": "user", "content": content}],
                return_full_text=False,
                generate_kwargs={"max_new_tokens": body["max_tokens"]},
            )
        return written[0]["generated_text"]

    return respond


@pytest.fixture
def compare(finetuned, workshop, forked):
    def run(url, *more):
        return forked(
            "scripts/compare_engine.py",
            *("--model", finetuned[0], "--url", url, "--name", "exported"),
            *("--records", workshop.records, "--images", workshop.images),
            *("--count", 3, "--max-new-tokens", NEW_TOKENS, *more),
        )

    return run


def test_a_server_that_writes_what_we_write_passes(exported, compare):
    with server(exported) as url:
        finished = compare(url)
    assert finished.code == 0, finished.output[-2000:]
    asked = int(finished.output.split(" of ")[-1].split()[0])
    assert asked >= 3
    assert f"{asked} of {asked} answers are the same" in finished.output


def test_another_answer_is_shown_and_fails_and_the_grammar_is_sent(compare, tmp_path):
    (tmp_path / "spans.ebnf").write_text("root ::= [a-z]*")
    bodies = []

    def respond(_image, _question, body):
        bodies.append(body)
        return "something else"

    with server(respond) as url:
        finished = compare(url, "--grammar", tmp_path / "spans.ebnf")
    assert finished.code == 1
    assert "there: something else" in finished.output
    assert {body["structured_outputs"]["grammar"] for body in bodies} == {"root ::= [a-z]*"}  # as vLLM takes it
    assert {body["ebnf"] for body in bodies} == {"root ::= [a-z]*"}  # as SGLang does
    assert {(body["temperature"], body["max_tokens"], body["model"]) for body in bodies} == {
        (0, NEW_TOKENS, "exported")
    }


def test_an_unreachable_server_is_named(compare):
    finished = compare("http://127.0.0.1:9/v1")
    assert finished.code == 1
    assert "error: http://127.0.0.1:9/v1" in finished.output
