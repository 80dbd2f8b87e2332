"""What is wrong with a set of statements, before a probe is believed on it."""

from tlens_trust.concepts.lint.lint import lint_concept, lint_file
from tlens_trust.concepts.lint.report import LintFinding, LintReport

__all__ = ["LintFinding", "LintReport", "lint_concept", "lint_file"]
