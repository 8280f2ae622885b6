from xml.etree import ElementTree

from widgets.figures.fact_table import fact_table, short_number


def test_table_is_well_formed_and_escapes_what_it_shows():
    text = fact_table("Facts & <more>", ("name", "V1", "V2"), [("a < b", "1", "2"), ("c", "3", "4")], shown=2)
    root = ElementTree.fromstring(text[text.index("<div") :])
    assert root.find("table/caption").text == "Facts & <more>"
    assert [cell.text for cell in root.findall("table/thead/tr/th")] == ["name", "V1", "V2 (shown)"]
    assert [cell.text for cell in root.find("table/tbody/tr")] == ["a < b", "1", "2"]


def test_numbers_are_short_and_without_powers_of_ten():
    given = (0.012345, 3.0, 37.70471, 10.0, 999.94, 1234.4, 3_492_000.4, -12_345.6)
    assert [short_number(x) for x in given] == ["0.01235", "3", "37.7", "10", "999.9", "1,234", "3,492,000", "-12,346"]
