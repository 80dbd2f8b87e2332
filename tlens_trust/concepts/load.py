"""`load_concepts`: every concept that the package contains or can read."""

import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from tlens_trust.concepts.benchmarks import BENCHMARKS
from tlens_trust.concepts.benchmarks.benchmark import Benchmark
from tlens_trust.concepts.concept import Concept
from tlens_trust.concepts.controls.controls import CONTROLS, control_concepts
from tlens_trust.concepts.embedded.sets import embedded_concepts
from tlens_trust.concepts.lint.paper_files import identify_paper_file
from tlens_trust.concepts.paraphrases.paraphrases import PARAPHRASES, paraphrased_concepts
from tlens_trust.concepts.sources import (
    file_name,
    is_address,
    read_bytes,
    read_folder,
    read_hub,
    read_parquet,
    sibling,
)
from tlens_trust.concepts.tables import Table, as_label, missing_file, parse_csv

_EMBEDDED = ("reliability", "privacy", "toxicity", "fairness", "robustness")
_OWN = (*_EMBEDDED, *CONTROLS, *PARAPHRASES)
_ALL_CONTROLS = "controls"
_SEVERAL = {_ALL_CONTROLS: CONTROLS, "paraphrases": PARAPHRASES}
# A file of which at least this share of rows is in a benchmark's form is a file of that benchmark.
_IN_FORM = 0.9


def available_benchmarks() -> dict[str, str]:
    """The public benchmarks that `load_concepts` reads, each with what its labels mean.

    Examples:
        >>> available_benchmarks()["toxigen"].partition(":")[0]
        'toxicity'
    """
    return {
        name: f"{benchmark.dimension}: {benchmark.summary}"
        for name, benchmark in BENCHMARKS.items()
    }


def load_concepts(
    name: str | Iterable[str] | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    config: str | None = None,
    split: str | None = None,
    clean: bool = True,
    seed: int = 0,
) -> dict[str, Concept]:
    """Load embedded concepts, or public benchmarks from a file or the Hugging Face hub.

    Whatever the source says, label 1 of a concept is its trustworthy side, or its `polarity` is
    False. What was dropped or changed is recorded in `edits`, row by row, and in
    `Concept.describe()`.

    Args:
        name: A name, or several of them. An embedded set is `reliability`, `privacy`, `toxicity`,
            `fairness` or `robustness`. `reliability_paraphrased`, … is an embedded set in other
            sentences, and `paraphrases` is all five. A control, which has nothing to do with trust,
            is `tense`, `number`, `topic`, `tense_plain`, `number_plain` or `topic_plain`, and
            `controls` is all six. Other names are those of `available_benchmarks()`. None: with
            `path`, the benchmarks that are recognised there by the names of their files; without,
            the five embedded sets.
        path: Where to read a benchmark from, instead of the hub. It may be the paper's CSV file or
            the folder of all five (Qian et al. 2024), or a file with the benchmark's own columns
            (CSV or Parquet). A copy of its hub repository or a folder written by
            `Dataset.save_to_disk` is read as well. ConfAIde is read from `tier_2a.txt`,
            `tier_2b.txt` or their folder, with `tier_2_labels.txt` beside them. A file may also be
            an http or https address.
        revision: Branch, tag or commit on the hub; the newest by default. The commit that was read
            is in the concept's provenance.
        config: Configuration on the hub: `generation` (default) or `multiple_choice` for
            TruthfulQA, `annotated` (default) or `train` for ToxiGen, `intersentence` (default) or
            `intrasentence` for StereoSet.
        split: Split on the hub; by default `validation` for TruthfulQA and StereoSet, `train` for
            ToxiGen, and `test` for SST-2, whose training split holds fragments of its sentences.
        clean: False keeps every row of the paper's files as it was released, in order: repeats,
            statements with both labels, and what exports left in the texts. This is what the paper
            read, and what `protocol="tracingllm"` wants; for anything else it is worse.
        seed: Decides which letters are flipped in SST-2 from the hub.

    Returns:
        Concepts by name.

    Raises:
        ValueError: An unknown name (the message gives the nearest), columns that are those of no
            known file, or an argument that has nothing to act on.
        OSError: A file, an address or the hub cannot be read.

    Examples:
        >>> list(load_concepts())
        ['reliability', 'privacy', 'toxicity', 'fairness', 'robustness']
    """
    names = _checked_names(name)
    for collection, members in _SEVERAL.items():
        if names and collection in names:
            # In the place of the collection's name, so that the order is the one asked for.
            index = names.index(collection)
            names[index : index + 1] = members
    if names is not None and not names:
        raise ValueError(
            "An empty list names no concept. Leave it out for the embedded sets, or name some of "
            f"{', '.join([*_OWN, *_SEVERAL, *BENCHMARKS])}."
        )
    for concept_name in names or []:
        if concept_name not in _OWN and concept_name not in BENCHMARKS:
            all_names = [*_OWN, *_SEVERAL, *BENCHMARKS]
            # A name with a capital letter is near, too.
            nearest = difflib.get_close_matches(concept_name.casefold(), all_names, n=1, cutoff=0.5)
            raise ValueError(
                f"No concept named {concept_name!r}."
                + (f" Did you mean {nearest[0]!r}?" if nearest else "")
                + f" Choose among {', '.join(all_names)}, or make your own with `Concept.from_csv`."
            )
    if path is None and all(concept_name in _OWN for concept_name in names or []):
        _refuse_without_use(
            {
                "revision": revision,
                "config": config,
                "split": split,
                # True is the default, and asks for nothing.
                "clean": None if clean else clean,
            },
            "embedded sets",
        )
        return {concept_name: _own(concept_name) for concept_name in names or _EMBEDDED}
    if path is not None:
        _refuse_without_use({"revision": revision}, "a file, which is what it is")
    if names is None and path is not None:
        names = _recognise_benchmarks(path)
    loaded: dict[str, Concept] = {}
    for concept_name in names or []:
        if concept_name in BENCHMARKS:
            loaded[concept_name] = _read_benchmark(
                BENCHMARKS[concept_name], path, revision, config, split, clean, seed
            )
        elif path is not None:
            raise ValueError(
                f"{concept_name!r} is embedded, and is read from no file. Name a benchmark "
                f"({', '.join(BENCHMARKS)}), or use `Concept.from_csv` for your own."
            )
        else:
            loaded[concept_name] = _own(concept_name)
    return loaded


def _checked_names(name: object) -> list[str] | None:
    if name is None:
        return None
    names = [name] if isinstance(name, str) else list(name) if isinstance(name, Iterable) else []
    not_texts = [item for item in names if not isinstance(item, str)]
    if not_texts or not isinstance(name, Iterable):
        culprit = repr(not_texts[0] if not_texts else name)
        raise ValueError(
            f"A concept is requested by its name, a text, got {culprit}. Give a name or a list of "
            f"names, as {', '.join(map(repr, _EMBEDDED[:2]))}, or {_ALL_CONTROLS!r}, or one of "
            "`available_benchmarks()`."
        )
    return names


def _own(name: str) -> Concept:
    if name in PARAPHRASES:
        return paraphrased_concepts()[name]
    return (control_concepts() if name in CONTROLS else embedded_concepts())[name]


def _refuse_without_use(arguments: Mapping[str, str | bool | None], source: str) -> None:
    for argument, value in arguments.items():
        if value is not None:
            # Not ignored, or the user would believe that the argument had an effect.
            raise ValueError(f"`{argument}={value!r}` has no meaning for {source}. Leave it out.")


def _recognise_benchmarks(path: str | os.PathLike[str]) -> list[str]:
    """Names of the benchmarks that the file names at `path` belong to.

    Raises:
        ValueError: No file name is that of a known benchmark.
        FileNotFoundError: There is nothing at `path`.
    """
    if not is_address(path) and Path(path).is_dir():
        files = {file.name for file in Path(path).iterdir()}
        names = [name for name, b in BENCHMARKS.items() if files.intersection(b.file_names)]
        problem = f"The folder {os.fspath(path)!r} holds none of the paper's files"
    else:
        if not is_address(path) and not Path(path).exists():
            raise missing_file(path)
        file = file_name(path)
        names = [
            name for name, b in BENCHMARKS.items() if file.startswith(name) or file in b.file_names
        ]
        problem = f"The file's name, {file!r}, is like none of the paper's"
    if not names:
        papers = [b.paper.name for b in BENCHMARKS.values() if b.paper is not None]
        raise ValueError(
            f"{problem} ({', '.join(papers)}). Name the benchmark, as in "
            "`load_concepts('toxigen', path=…)`, or use `Concept.from_csv`."
        )
    return names


def _read_benchmark(
    benchmark: Benchmark,
    path: str | os.PathLike[str] | None,
    revision: str | None,
    config: str | None,
    split: str | None,
    clean: bool,
    seed: int,
) -> Concept:
    if config is not None and config not in benchmark.folders:
        raise ValueError(
            f"{benchmark.name!r} has no configuration {config!r}, but "
            f"{', '.join(map(repr, benchmark.folders)) or 'none at all'}."
        )
    if path is not None:
        table = _read_path(benchmark, path, config, split)
        provenance = {"benchmark": benchmark.name, **table.provenance}
    elif not benchmark.repository:
        raise ValueError(
            f"{benchmark.name!r} is not on the Hugging Face hub. Give `path=`, a file, a folder or "
            f"an address: {_described_files(benchmark)}."
        )
    else:
        chosen_config = config or next(iter(benchmark.folders))
        table, commit = read_hub(
            benchmark.repository,
            config=chosen_config,
            folder=benchmark.folders[chosen_config],
            split=split or benchmark.splits[chosen_config],
            revision=revision,
        )
        provenance = {
            "benchmark": benchmark.name,
            **table.provenance,
            "revision": commit,
            "revision_asked": revision or "main",
        }
    # The benchmarks' own files have other columns, so these two tell that the file is the paper's.
    has_paper_columns = {"statement", "label"} <= table.columns.keys()
    if has_paper_columns and benchmark.paper is not None:
        paper = benchmark.paper
        release = f"{paper.name} as released with Qian et al. (2024)"
        provenance["file"] = (
            f"{release}, arXiv:2402.19465"
            if table.sha256 == paper.sha256
            else f"not {release}, but read as such"
        )
        if path is not None:
            _check_benchmark(benchmark, table, file_name(path))
        draft = paper.read(table, clean)
    elif not clean:
        raise ValueError(
            f"Only the paper's files can be read as they are, without cleaning, and {table.source} "
            f"is none of them: it lacks the columns 'statement' and 'label'. Give "
            f"{_described_files(benchmark)}, or leave `clean` out."
        )
    elif any(column in table.columns for column in benchmark.columns):
        draft = benchmark.read_rows(table, seed)
    else:
        paper_columns = "'statement' and 'label' (the paper's) or " if benchmark.paper else ""
        raise ValueError(
            f"{table.source} is no file of {benchmark.name!r}: its columns are "
            f"{', '.join(map(repr, table.columns)) or 'none'}, where {paper_columns}"
            f"{' or '.join(map(repr, benchmark.columns))} (the benchmark's own) are expected. Read "
            "another file with `Concept.from_csv`."
        )
    return draft.concept(benchmark.name, benchmark.dimension, table, provenance)


def _described_files(benchmark: Benchmark) -> str:
    """The files that a benchmark is read from, for a message."""
    files = [] if benchmark.paper is None else [f"the paper's {benchmark.paper.name}"]
    if benchmark.release is not None:
        files.append(f"{' or '.join(benchmark.release.names)} of {benchmark.release.origin}")
    return ", or ".join(files) or "a CSV or Parquet file with the benchmark's own columns"


def _check_benchmark(benchmark: Benchmark, table: Table, name: str) -> None:
    """Refuse a file of another benchmark, whose labels have another meaning."""
    identified = identify_paper_file(table, name)
    if identified is not None and identified[0] is not benchmark:
        owner, is_released = identified
        evidence = "released with Qian et al. (2024)" if is_released else "by its name"
        raise ValueError(
            f"{table.source} is the file of {owner.name!r} ({evidence}), and was to be read as "
            f"{benchmark.name!r}, whose labels mean something else. Read it as {owner.name!r}, or "
            f"give the file of {benchmark.name!r}."
        )
    statements = [str(text) for text in table.column("statement")]
    labels = np.array([as_label(cell) or 0 for cell in table.column("label")], dtype=np.int64)
    if not statements:
        return
    papers = [(b, b.paper) for b in BENCHMARKS.values() if b.paper is not None]
    # A particular form is tried before a general one that its statements satisfy, too.
    for candidate, paper in sorted(papers, key=lambda pair: pair[1].form_rank):
        share = 0.0 if paper.in_form is None else paper.in_form(statements, labels)
        if share < _IN_FORM:
            continue
        if candidate is not benchmark:
            raise ValueError(
                f"{table.source} looks like a file of {candidate.name!r}: {share:.0%} of its rows "
                f"are statements {paper.form}. It was to be read as {benchmark.name!r}, whose "
                f"labels mean something else. Read it as {candidate.name!r}, or make your own "
                "concept with `Concept.from_csv(…, trustworthy=…)`."
            )
        return


def _read_path(
    benchmark: Benchmark, path: str | os.PathLike[str], config: str | None, split: str | None
) -> Table:
    if not is_address(path) and Path(path).is_dir():
        return _read_directory(benchmark, Path(path), config, split)
    name = file_name(path)
    _refuse_without_use({"config": config, "split": split}, f"the single file {name!r}")
    release = benchmark.release
    if release is not None:
        if name in release.names:
            # Statements and ratings are lines of two files.
            companion = read_bytes(sibling(path, release.companion))
            return release.read({name: read_bytes(path)}, companion, str(path))
        if Path(name).suffix in {Path(released).suffix for released in release.names}:
            raise ValueError(
                f"{name!r} holds no statements of {benchmark.name!r}, but "
                f"{' and '.join(release.names)} do. Give one of these, with {release.companion} "
                "in the same folder."
            )
    if name.endswith(".parquet") and not is_address(path):
        return read_parquet(path)
    return parse_csv(read_bytes(path), repr(os.fspath(path)))


def _read_directory(
    benchmark: Benchmark, folder: Path, config: str | None, split: str | None
) -> Table:
    searched = []
    if benchmark.paper is not None:
        file = folder / benchmark.paper.name
        searched.append(file.name)
        if file.is_file():
            _refuse_without_use({"config": config, "split": split}, "the paper's files")
            return parse_csv(read_bytes(file), repr(os.fspath(file)))
    release = benchmark.release
    if release is not None:
        contents = {
            name: read_bytes(folder / name) for name in release.names if (folder / name).is_file()
        }
        searched += release.names
        if contents:
            _refuse_without_use({"split": split}, f"the files of {benchmark.name!r}")
            companion = read_bytes(folder / release.companion)
            return release.read(contents, companion, repr(os.fspath(folder)))
    if benchmark.folders:
        chosen_config = config or next(iter(benchmark.folders))
        subfolder = benchmark.folders[chosen_config]
        chosen_split = split or benchmark.splits[chosen_config]
        table = read_folder(folder, config=chosen_config, folder=subfolder, split=chosen_split)
        if table is not None:
            return table
        searched += [f"{subfolder}/{chosen_split}-*.parquet", f"{chosen_split}*.parquet"]
    raise ValueError(
        f"The folder {os.fspath(folder)!r} holds no file of {benchmark.name!r} "
        f"({' or '.join(searched)}). Give the file itself, or another folder."
    )
