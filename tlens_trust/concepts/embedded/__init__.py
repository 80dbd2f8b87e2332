"""The five embedded sets of statements, and the toy corpus that teaches what they state."""
