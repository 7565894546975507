"""A toy task about a toy token kind. Run as a script, it trains as scripts/finetune_aurora.sh does, with both."""

from types import MappingProxyType

from brightness import Brightness

from llava_aurora.tasks.forms import Letter, Span
from llava_aurora.tasks.outcome import Example
from llava_aurora.tasks.registry import register_family
from llava_aurora.tasks.task import Problem, Task, TaskFamily, wording
from llava_aurora.tokens import register_kind

QUARTERS = "ABCD"  # row by row


class Brightest(TaskFamily):
    """Which quarter of the image is brightest. Facts are the codes of its brightness."""

    name = "brightest"
    token_kinds = ("brightness",)
    replaced_kind = "brightness"
    fields = MappingProxyType({"light": Span("brightness"), "answer": Letter()})
    tasks = (
        Task(
            name="brightest_chain",
            kind="chain",
            difficulty=2,
            wording=wording(
                ["Which quarter is brightest? Think step by step."],
                ["The brightness is {light}. The answer is ({answer})."],
                answer="light answer",
            ),
            span_in={"brightness": "answer"},
            answer="letter",
        ),
        Task(
            name="brightest_direct",
            kind="direct",
            difficulty=2,
            wording=wording(["Which quarter is brightest?"], ["({answer})"], answer="answer"),
            answer="letter",
        ),
    )

    def facts(self, task, image, drawing, rng):
        return image.codes.get("brightness")

    def values(self, facts, coordinates, families):
        return {"light": families["brightness"].text(facts), "answer": brightest(facts)}

    def truth(self, task, facts):
        return {"answer": brightest(facts), "codes": {"brightness": list(facts)}}

    def problems(self, task, record, *, frame, families):
        answer = record["conversations"][-1]["value"]
        for span in families["brightness"].parse(answer):
            if task.stated(answer) != brightest(span.codes):
                yield Problem("letters", f"the text answers {task.stated(answer)}, not {brightest(span.codes)}")

    def panels(self, question, written, annotation, image):
        return [("brightness it wrote", Brightness(levels=8).draw([annotation], image))]

    def example(self, image, rng):
        return Example("Which quarter is brightest?")

    def answer_by(self, question, annotation):
        return brightest(annotation.ravel())


def brightest(values):
    return QUARTERS[max(range(4), key=lambda place: values[place])]


if __name__ == "__main__":
    from llava_aurora.training.train import main

    register_kind(Brightness)
    register_family(Brightest)
    main(__file__)
