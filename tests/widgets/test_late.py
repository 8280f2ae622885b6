import importlib
import pkgutil

import anywidget
import pytest

import widgets


def classes():
    for module in pkgutil.walk_packages(widgets.__path__, "widgets."):
        importlib.import_module(module.name)
    return [cls for cls in anywidget.AnyWidget.__subclasses__() if cls.__module__.startswith("widgets.")]


@pytest.mark.parametrize("cls", classes())
def test_every_widget_hears_the_kernel_although_its_code_came_late(cls):
    script = str(cls._esm)
    assert "function hearing(render)" in script
    assert script.rstrip().endswith("export default { render: hearing(render) };")
