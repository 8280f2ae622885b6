from xml.etree import ElementTree

from widgets.figures.fact_table import fact_table


def test_table_is_well_formed_and_escapes_what_it_shows():
    text = fact_table("Facts & <more>", ("name", "V1", "V2"), [("a < b", "1", "2"), ("c", "3", "4")], shown=2)
    root = ElementTree.fromstring(text[text.index("<div") :])
    assert root.find("table/caption").text == "Facts & <more>"
    assert [cell.text for cell in root.findall("table/thead/tr/th")] == ["name", "V1", "V2 (shown)"]
    assert [cell.text for cell in root.find("table/tbody/tr")] == ["a < b", "1", "2"]
