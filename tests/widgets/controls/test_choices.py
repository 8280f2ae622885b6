from widgets.controls.choices import Choices


def test_only_known_keys_are_handed_on():
    chosen = []
    row = Choices([("a", "First"), ("b", "Second")], chosen.append, form="tabs", label="Parts")
    row._receive(row, {"type": "choose", "key": "b"}, [])
    row._receive(row, {"type": "choose", "key": "z"}, [])
    row._receive(row, {"type": "else"}, [])
    assert chosen == ["b"]
    assert row.options == [["a", "First"], ["b", "Second"]]
    row.close()
    row._receive(row, {"type": "choose", "key": "a"}, [])
    assert chosen == ["b"]
