"""ConfAIde: flows of information that meet people's expectations or violate them.

In its tiers 2a and 2b, people rate how far a use of information meets their privacy expectations,
from -100 (not at all) to 100. The paper labels uses rated at most -50 as violations and those rated
above -20 as fitting, leaves the others out, and adds generated ones. The benchmark's own text files
are read here with the same two limits.

Source:
    Mireshghallah et al. (2024), arXiv:2310.17884; github.com/skywalker023/confAIde, `benchmark/`.
"""

import hashlib
import re
from collections.abc import Mapping

from tlens_trust.concepts.benchmarks.benchmark import Benchmark, PaperFile, ReleaseFiles
from tlens_trust.concepts.draft import Draft
from tlens_trust.concepts.grouping import group_near_duplicates, join_groups
from tlens_trust.concepts.tables import Table, binary_labels, texts

# The paper's limits: see above.
_VIOLATION_UP_TO = -50.0
_FITTING_ABOVE = -20.0
# The default of `group_near_duplicates`, stated here since it decides the groups.
_SIMILARITY = 0.6

_TIERS = ("tier_2a.txt", "tier_2b.txt")
_RATINGS = "tier_2_labels.txt"

# 7 kinds of information × 2 uses × 7 collectors, the collectors changing fastest.
_COLLECTORS = 7
_LINES = 98

_TIER_2A = re.compile(r"Information about (.+?) is collected by (.+?) in order to ")
# What the raters were told is no part of the scenario.
_INSTRUCTION = re.compile(r"^Please indicate .*?strongly agree\.?\s*\\n\s*", re.IGNORECASE)


def read_paper(table: Table, clean: bool = True) -> Draft:
    """Tier 2 and generated items in the paper's file; label 1, a violation, becomes 0."""
    draft = Draft(
        statements=texts(table, "statement"),
        labels=(1 - binary_labels(table, "label")).tolist(),
        groups=[""] * len(table.rows),
        rows=list(table.rows),
        label_note="column 'label', turned round (1 is a violation there); 1 is a fitting flow of "
        "information, the trustworthy side",
        clean=clean,
    )
    draft.drop_repeats()
    matches = [_TIER_2A.match(statement) for statement in draft.statements]
    # Statements of tier 2a that name the same information and collector differ in the use alone.
    # Others have a number of their own, which groups them with nothing.
    flows = [match.groups() if match else i for i, match in enumerate(matches)]
    near_duplicates = group_near_duplicates(draft.statements, similarity=_SIMILARITY)
    draft.group_by_first(join_groups(near_duplicates.tolist(), flows))
    draft.group_note = (
        f"near-duplicates: sets of words alike to {_SIMILARITY} (Jaccard); and uses of one kind of "
        f"information by one collector"
    )
    return draft


def read_rows(table: Table, seed: int) -> Draft:
    """Scenarios of tier 2 with their mean ratings; `seed` has nothing to decide here."""
    ratings = [float(rating) for rating in table.column("rating")]
    draft = Draft(
        statements=texts(table, "scenario"),
        labels=[int(rating > _FITTING_ABOVE) for rating in ratings],
        groups=[str(flow) for flow in table.column("flow")],
        rows=list(table.rows),
        label_note=f"people's mean rating; 1 is a use of information that meets expectations "
        f"(above {_FITTING_ABOVE:g}), the trustworthy side, and 0 a violation (up to "
        f"{_VIOLATION_UP_TO:g})",
        group_note="one kind of information in the hands of one collector",
    )
    undecided = [i for i, r in enumerate(ratings) if _VIOLATION_UP_TO < r <= _FITTING_ABOVE]
    reason = f"rated between {_VIOLATION_UP_TO:g} and {_FITTING_ABOVE:g}, neither side"
    draft.drop(undecided, reason)
    draft.rewrite(lambda text: _INSTRUCTION.sub("", text).strip(), "the rating instruction cut off")
    draft.drop_repeats()
    return draft


def read_tiers(tiers: Mapping[str, bytes], ratings: bytes, source: str) -> Table:
    """Join the lines of `tier_2a.txt`, `tier_2b.txt` or both with those of `tier_2_labels.txt`.

    Args:
        tiers: The content of each file by its name.
        ratings: The content of `tier_2_labels.txt`, which rates the lines of either tier.
        source: Where the files come from, as a message names it.

    Raises:
        ValueError: A rating that is no number, or files of different lengths.
    """
    numbers = ratings.decode("utf-8-sig").split()
    strange = [i for i, text in enumerate(numbers, 1) if not re.fullmatch(r"-?\d+(\.\d+)?", text)]
    if strange:
        raise ValueError(
            f"{_RATINGS} of {source} must hold one number a line, got "
            f"{numbers[strange[0] - 1]!r} in line {strange[0]}."
        )
    scenarios: list[str] = []
    flows: list[str] = []
    for name, content in tiers.items():
        lines = [line for line in content.decode("utf-8-sig").splitlines() if line.strip()]
        if len(lines) != len(numbers):
            raise ValueError(
                f"{name} of {source} has {len(lines)} scenarios, but {_RATINGS} has {len(numbers)} "
                "ratings. Take both files from one version of the benchmark."
            )
        scenarios += lines
        # Both tiers tell the same flows in the same order, so one has its short and its long form
        # in one group.
        is_whole_tier = len(lines) == _LINES
        flows += [_flow(i) if is_whole_tier else f"line {i + 1}" for i in range(len(lines))]
    return Table(
        {"scenario": scenarios, "rating": numbers * len(tiers), "flow": flows},
        tuple(range(1, len(scenarios) + 1)),
        source,
        f"lines of {' and then of '.join(tiers)}, counted from 1",
        hashlib.sha256(b"".join([*tiers.values(), ratings])).hexdigest(),
    )


def _flow(line: int) -> str:
    return f"information {line // (2 * _COLLECTORS) + 1}, collector {line % _COLLECTORS + 1}"


CONFAIDE = Benchmark(
    name="confaide",
    dimension="privacy",
    summary="information flowing as people expect (1) or against it (0); from a file or URL only",
    read_rows=read_rows,
    columns=("rating",),
    paper=PaperFile(
        name="confaide.csv",
        sha256="e817ecacea5948576edcb021253ba33727fa3d69527d00b236c78eeca19b867c",
        read=read_paper,
        meaning_of_1="a violation of privacy",
        trustworthy=0,
        caution="label 1 is a violation, the untrustworthy side",
    ),
    release=ReleaseFiles(
        names=_TIERS,
        companion=_RATINGS,
        origin="github.com/skywalker023/confAIde (folder `benchmark`)",
        read=read_tiers,
    ),
)
