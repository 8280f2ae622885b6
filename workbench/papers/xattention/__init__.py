"""The paper XAttention: entry, claims, experiments and exercises."""
