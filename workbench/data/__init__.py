"""Real inputs."""
