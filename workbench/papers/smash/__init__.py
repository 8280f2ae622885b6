"""The paper SMASH: entry, claims, experiments and exercises."""
