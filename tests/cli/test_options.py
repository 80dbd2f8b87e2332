from collections import defaultdict

import typer

from tlens_trust.cli.application import app

# What these stand for differs from command to command.
OWN_MEANING = {"--concepts", "--from", "--out", "--probe", "--to"}


def help_texts():
    texts = defaultdict(set)
    for command in typer.main.get_command(app).commands.values():
        for parameter in command.params:
            for name in parameter.opts:
                texts[name].add(parameter.help)
    return texts


def test_an_option_of_several_commands_has_one_help_text():
    texts = help_texts()
    assert {"--device", "--csv", "--seed", "--untrained", "series"} <= set(texts)
    assert {name for name, found in texts.items() if len(found) > 1} == OWN_MEANING


def test_every_option_has_a_help_text():
    assert all(text for texts in help_texts().values() for text in texts)
