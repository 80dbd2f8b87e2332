"""Check a set of statements for faults that would mislead a probe."""

from tlens_trust.concepts.lint.lint import lint_concept, lint_file
from tlens_trust.concepts.lint.report import LintFinding, LintReport

__all__ = ["LintFinding", "LintReport", "lint_concept", "lint_file"]
