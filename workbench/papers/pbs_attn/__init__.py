"""The paper PBS-Attn: entry, claims, experiments and exercises."""
