"""The compiled part of a swarm that runs without Python. Use `Swarm` of swarm.pyi."""

class Engine:
    @property
    def count(self) -> int:
        """How many clients there are, open or not."""

    @property
    def opened(self) -> int:
        """How many connections are open now."""
