"""The explorer of factorisations: one weight matrix as a product of factors."""
