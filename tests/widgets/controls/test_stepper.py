import pytest

from widgets.controls.stepper import Stepper


def test_a_position_from_the_page_is_clipped_handed_on_and_answered():
    went, answered = [], []
    stepper = Stepper(went.append)
    stepper.observe(lambda change: answered.append(change["new"]), names="answered")
    stepper.show(0, 7, "nothing yet", "product")
    for question, position in enumerate((3, -4, 99, "5"), 1):
        stepper._receive(stepper, {"type": "go", "position": position, "question": question}, [])
    assert went == [3, 0, 7, 5]
    assert answered == [1, 2, 3, 4]
    for junk in ({"type": "go"}, {"type": "go", "position": "x"}, {"type": "go", "position": None}, {}):
        stepper._receive(stepper, junk, [])
    assert len(went) == 4
    stepper.close()


def test_show_sets_everything():
    stepper = Stepper(lambda position: None)
    stepper.show(2, 9, "A times B", "run")
    assert (stepper.position, stepper.steps, stepper.sentence, stepper.unit) == (2, 9, "A times B", "run")
    stepper.close()


def test_a_move_that_fails_is_answered_too():
    def moved(position):
        raise RuntimeError("no picture")

    stepper = Stepper(moved)
    stepper.show(0, 7, "nothing yet", "product")
    with pytest.raises(RuntimeError):
        stepper._receive(stepper, {"type": "go", "position": 1, "question": 9}, [])
    assert stepper.answered == 9
    stepper.close()
