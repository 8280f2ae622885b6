"""The pair of 16,384 vertices that the machine model's constants were calibrated on."""

from workbench.data.matrices import w0
from workbench.explorers.spgemm.source import Source, small_values

SOURCE = Source(
    key="w0",
    title="Reference workload W0",
    make=lambda settings: small_values(*w0()),
    remark=lambda settings: "relabelled at random, values drawn from 1 to 9",
)
