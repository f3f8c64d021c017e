"""What a user holds: a session on ranks, its generations, caches and inputs."""
