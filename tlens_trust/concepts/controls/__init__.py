"""Control concepts: tense, number and topic, which have nothing to do with trustworthiness."""
