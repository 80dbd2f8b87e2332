import importlib.util
from pathlib import Path

import numpy as np
import pytest

from tlens_trust import CheckpointSeries, Concept, Trace, probe_checkpoints
from tlens_trust.tracing import save_result
from tlens_trust.tracing.netcdf import dataset_to_bytes

_spec = importlib.util.spec_from_file_location(
    "matrices", Path(__file__).parents[1] / "views" / "test_matrix_table.py"
)
matrices = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(matrices)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The run folder of a small model, by either protocol."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    words = {"[UNK]": 0, "kind": 1, "rude": 2, **{f"w{i}": i + 3 for i in range(40)}}
    backend = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    series = CheckpointSeries.from_models(
        {
            step: GPT2LMHeadModel(GPT2Config(vocab_size=43, n_layer=1, n_embd=16, n_head=2))
            for step in (0, 8)
        },
        tokenizer=PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]"),
        name="small",
    )
    texts = tuple(f"w{i // 2} {word}" for i, word in enumerate(["kind", "rude"] * 40))
    groups = tuple(f"pair {i // 2}" for i in range(80))
    concept = Concept("kindness", "toxicity", texts, np.array([1, 0] * 40), groups)
    folders = {}
    for protocol in ("grouped", "tracingllm"):
        folders[protocol] = tmp_path_factory.mktemp("runs") / protocol
        probe_checkpoints(
            series, concept, protocol=protocol, out=folders[protocol], store=None, progress=False
        )
    return folders


@pytest.mark.parametrize(("protocol", "dated"), [("grouped", True), ("tracingllm", False)])
def test_a_run_folder_becomes_a_page_with_onsets_where_they_can_be_found(
    run, swept, protocol, dated
):
    status, out, err = run("report", swept[protocol], "--title", "Mine")
    page = swept[protocol] / "report.html"
    assert (status, out, err) == (0, f"{page}\n", "")
    text = page.read_text(encoding="utf-8").split("<nav")[1]
    assert "kindness" in text
    # The text alone tells this concept, so that nothing is read above it.
    assert ("Onset: never (text alone reaches as much). 2 checkpoints" in text) == dated


def test_steering_that_is_kept_with_the_run_is_told_of(run, swept, tmp_path):
    names = list(Trace.load(swept["grouped"]).checkpoints)
    matrix = matrices.make_matrix(target=names[-1]).assign_coords(source=["before", *names])
    page = tmp_path / "page.html"
    file = save_result(swept["grouped"], "steering", "kindness", matrix)
    try:
        assert run("report", swept["grouped"], "-o", page)[0] == 0
        assert f"<li>{names[-1]} is moved to the trustworthy side" in page.read_text("utf-8")

        file.write_bytes(dataset_to_bytes(matrix.drop_vars("strength")))
        status, _, err = run("report", swept["grouped"], "-o", page)
        assert status == 2
        assert "'steering_matrix' gives" in err.replace("`", "'")

        file.write_bytes(dataset_to_bytes(matrix)[:-100])
        status, _, err = run("report", swept["grouped"], "-o", page)
        assert status == 2
        assert "torn or altered" in err
    finally:
        file.unlink()
    assert run("report", swept["grouped"], "-o", page)[0] == 0
    assert ">Steering</h2>" not in page.read_text("utf-8")


def test_the_page_goes_where_it_is_asked_to(run, swept, tmp_path):
    status, _, _ = run("report", swept["grouped"], "-o", tmp_path / "deep" / "page.html")
    assert status == 0
    assert (tmp_path / "deep" / "page.html").is_file()


def test_a_page_by_another_name_is_a_mistake_in_one_line(run, swept, tmp_path):
    status, out, err = run("report", swept["grouped"], "-o", tmp_path / "page.pdf")
    assert (status, out) == (2, "")
    assert err.startswith("tlens-trust: A report is saved as .html")


def test_a_folder_without_a_run_is_a_mistake_in_one_line(run, tmp_path):
    status, _, err = run("report", tmp_path)
    assert status == 2
    assert "RUN is the run folder of a sweep" in err
