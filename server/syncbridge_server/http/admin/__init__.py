"""REST for administrators: figures, broadcasts, sessions key by key, access, configuration."""
