"""Whether a server writes what this package writes: an exported model behind `transformers serve`, vLLM or SGLang.

    llava-aurora export --model demo_output/work/model --out exported
    vllm serve exported --port 8000                       # or another server with the chat API of OpenAI
    python scripts/compare_engine.py --model demo_output/work/model --url http://127.0.0.1:8000/v1 --name exported \\
        --records demo_output/work/records/held_out.json --images demo_output/work/scenes/held_out

Asks both the same questions greedily and prints how many answers are the same, blanks aside, and the first that
is not; its exit status is 1 if there is one. With --grammar FILE (`llava-aurora grammar --format ebnf`) the
server is given the grammar, as vLLM takes it and as SGLang does, and is compared with constrained decoding here.
"""

import argparse
import base64
import json
import mimetypes
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

AT_ONCE = 8  # requests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="the checkpoint that was exported")
    parser.add_argument("--url", required=True, help="of the server's API, such as http://127.0.0.1:8000/v1")
    parser.add_argument("--name", required=True, help="of the model there")
    parser.add_argument("--records", type=Path, required=True, help="JSON of records, whose questions are asked")
    parser.add_argument("--images", type=Path, required=True, help="the folder their images are named from")
    parser.add_argument("--count", type=int, default=64, help="questions at least, spread over the file")
    parser.add_argument("--grammar", type=Path, help="EBNF that the server keeps to")
    parser.add_argument("--max-new-tokens", type=int, default=256)
    options = parser.parse_args()

    from llava_aurora import Aurora
    from llava_aurora.errors import AuroraError
    from llava_aurora.files import read_json

    try:
        records = read_json(options.records, what="records")
        asked = [question_of(each, options.images) for each in records[:: max(1, len(records) // options.count)]]
        results = Aurora.from_pretrained(options.model).ask(
            [image for image, _ in asked],
            [question for _, question in asked],
            reasoning="direct",  # the questions stay as they are
            max_new_tokens=options.max_new_tokens,
            constrained=options.grammar is not None,
        )
    except AuroraError as error:
        sys.exit(f"error: {error}")
    grammar = options.grammar.read_text(encoding="utf-8") if options.grammar else None
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            said = list(pool.map(lambda each: answer(options, *each, grammar=grammar), asked))
    except urllib.error.URLError as error:
        sys.exit(f"error: {options.url}: {error}; is the server up, and --name the model's name there?")
    other = [
        (question, result.text, text)
        for (_, question), result, text in zip(asked, results, said, strict=True)
        if plain(result.text) != plain(text)
    ]
    print(f"{len(asked) - len(other)} of {len(asked)} answers are the same")
    if other:
        sys.exit("The first other one:\n\n{}\n\nhere:  {}\n\nthere: {}".format(*other[0]))


def question_of(record: dict[str, Any], images: Path) -> tuple[Path, str]:
    return images / record["image"], record["conversations"][0]["value"].replace("<image>", "").strip()


def plain(text: str) -> str:
    """Without blanks, which some decoders write beside perception tokens."""
    return "".join(text.split())


def answer(options: argparse.Namespace, image: Path, question: str, *, grammar: str | None) -> str:
    """What the server answers. Raises urllib.error.URLError."""
    kind = mimetypes.guess_type(image)[0] or "image/png"
    encoded = base64.b64encode(image.read_bytes()).decode()
    body: dict[str, Any] = {
        "model": options.name,
        "temperature": 0,
        "max_tokens": options.max_new_tokens,
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{encoded}"}},
                    {"type": "text", "text": question},
                ],
            }
        ],
    }
    if grammar is not None:
        body |= {"structured_outputs": {"grammar": grammar}, "ebnf": grammar}
    request = urllib.request.Request(
        f"{options.url.rstrip('/')}/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        return json.load(response)["choices"][0]["message"]["content"]


if __name__ == "__main__":
    main()
