"""The five embedded sets, and a corpus from the same world to learn them from."""
