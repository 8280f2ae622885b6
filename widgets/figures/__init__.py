"""Pure functions: a frozen dataclass of arrays in, a plotly Figure out."""
