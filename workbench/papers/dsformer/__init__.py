"""DSFormer: weights as products of a dense and a row-sparse matrix, block by block."""
