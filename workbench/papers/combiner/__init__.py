"""The paper Combiner: entry, claims, experiments and exercises."""
