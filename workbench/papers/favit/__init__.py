"""The paper FaViT: entry, claims, experiments and exercises."""
