from widgets.controls.stepper import Stepper


def test_a_position_from_the_page_is_clipped_handed_on_and_answered():
    went, sent = [], []
    stepper = Stepper(went.append)
    stepper.send = sent.append
    stepper.show(0, 7, "nothing yet", "product")
    for position in (3, -4, 99, "5"):
        stepper._receive(stepper, {"type": "go", "position": position}, [])
    assert went == [3, 0, 7, 5]
    assert sent == [{"type": "shown"}] * 4
    for junk in ({"type": "go"}, {"type": "go", "position": "x"}, {"type": "go", "position": None}, {}):
        stepper._receive(stepper, junk, [])
    assert len(went) == 4
    stepper.close()


def test_show_sets_everything():
    stepper = Stepper(lambda position: None)
    stepper.show(2, 9, "A times B", "run")
    assert (stepper.position, stepper.steps, stepper.sentence, stepper.unit) == (2, 9, "A times B", "run")
    stepper.close()
