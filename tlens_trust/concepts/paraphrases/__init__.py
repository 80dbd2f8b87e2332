"""The five embedded concepts in other sentences, to test whether a probe generalises to these."""
