"""The paper PoNet: entry, claims, experiments and exercises."""
