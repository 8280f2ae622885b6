"""Nothing but the modules that a reader names: the least that tuning can do, and the floor of every comparison."""

from workbench.models.fine_tuning.method import Applied, TuningMethod

METHOD = TuningMethod(
    key="linear_probe", title="Head alone", apply=lambda model, layers: Applied(layers={}), knobs={},
    source="Alain and Bengio 2016, arXiv 1610.01644",
)  # fmt: skip
