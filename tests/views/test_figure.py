import builtins
import logging
import shutil

import pytest

from tlens_trust.views import Figure

CHROME = any(shutil.which(name) for name in ("chromium", "google-chrome", "chrome"))


@pytest.fixture
def figure():
    return Figure({"data": [{"y": [0.5, 0.9]}], "layout": {"title": {"text": "rise"}}})


def test_a_page_holds_plotly_itself_and_asks_no_network(figure, tmp_path):
    page = figure.save(tmp_path / "deep" / "rise.html").read_text(encoding="utf-8")
    assert "rise" in page
    assert len(page) > 1_000_000
    assert "<script src=" not in page
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["rise.html"]


@pytest.mark.skipif(not CHROME, reason="pictures are drawn by Chrome")
@pytest.mark.parametrize(
    ("ending", "beginning"), [("png", b"\x89PNG"), ("svg", b"<svg"), ("pdf", b"%PDF")]
)
def test_a_picture_is_of_the_form_that_its_name_says(figure, tmp_path, ending, beginning):
    pytest.importorskip("kaleido")
    assert figure.save(tmp_path / f"rise.{ending}").read_bytes().startswith(beginning)


@pytest.mark.parametrize("name", ["rise", "rise.jpg", "rise.html.gz"])
def test_another_ending_is_refused_by_those_there_are(figure, tmp_path, name):
    with pytest.raises(ValueError, match=r"\.html, \.png, \.svg or \.pdf"):
        figure.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_without_kaleido_it_says_what_to_install(figure, tmp_path, monkeypatch):
    importing = builtins.__import__

    def without(name, *args, **options):
        if name == "kaleido":
            raise ImportError(name)
        return importing(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'tlens-trust\[export\]'"):
        figure.save(tmp_path / "rise.png")
    assert not list(tmp_path.iterdir())


def test_without_chrome_it_says_what_to_install(figure, tmp_path, monkeypatch):
    pytest.importorskip("kaleido")
    from plotly.io._kaleido import PLOTLY_GET_CHROME_ERROR_MSG

    def fail(*_, **__):
        raise RuntimeError(PLOTLY_GET_CHROME_ERROR_MSG)

    monkeypatch.setattr(Figure, "to_image", fail)
    with pytest.raises(RuntimeError, match="plotly_get_chrome"):
        figure.save(tmp_path / "rise.png")
    assert not list(tmp_path.iterdir())


def test_another_failure_of_the_exporter_is_not_hidden(figure, tmp_path, monkeypatch):
    pytest.importorskip("kaleido")

    def fail(*_, **__):
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(Figure, "to_image", fail)
    with pytest.raises(RuntimeError, match="the disk is full"):
        figure.save(tmp_path / "rise.png")


def test_a_torn_message_of_chromes_is_not_logged_as_a_failure(
    figure, tmp_path, monkeypatch, caplog
):
    pytest.importorskip("kaleido")
    pipe = logging.getLogger("choreographer.channels.pipe")

    def draw(*_, **__):
        pipe.error("JSONError decoding message. Ignoring")
        pipe.error("Something else")
        return b"<svg"

    monkeypatch.setattr(Figure, "to_image", draw)
    with caplog.at_level(logging.ERROR, logger=pipe.name):
        figure.save(tmp_path / "rise.svg")
        assert caplog.messages == ["Something else"]
        # Whoever uses the browser without a figure of ours hears all of it.
        draw()
        assert len(caplog.messages) == 3
