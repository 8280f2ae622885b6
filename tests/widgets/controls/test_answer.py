"""The field hands over what was typed, tells what comes back, and takes nothing else."""

from widgets.controls.answer import AnswerField


def field(**more):
    said = []
    made = AnswerField(lambda text: said.append(text) or f"<p>{text} is wrong</p>", lambda: "<p>Think.</p>", **more)
    return made, said


def test_answers_and_hints_are_handed_over_and_told():
    made, said = field(question="How many?")
    made._receive(made, {"type": "answer", "text": "7"}, [])
    assert said == ["7"] and made.told == "<p>7 is wrong</p>" and made.answered == 1
    made._receive(made, {"type": "hint"}, [])
    assert made.told == "<p>Think.</p>" and made.answered == 2
    made.close()


def test_what_a_page_should_not_send_is_not_handed_over():
    made, said = field()
    for content in ({"type": "answer"}, {"type": "answer", "text": 7}, {"type": "run", "text": "7"}, {}):
        made._receive(made, content, [])
    assert said == [] and made.told == ""
    made.close()
    made._receive(made, {"type": "answer", "text": "7"}, [])
    assert said == []
