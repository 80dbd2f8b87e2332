"""The five embedded concepts in other sentences, to see whether a probe reads these too."""
