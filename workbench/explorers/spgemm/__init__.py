"""The explorer of sparse products: pairs of operands, dataflows, and a machine that runs the product."""
