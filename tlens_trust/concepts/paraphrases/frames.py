"""Sentence templates of the paraphrased sets, which the embedded sets and their corpus do not use.

As in the embedded sets, the exchanged words have the same word and the same four characters before
them, and the same word and the same four characters after them. All words occur in the toy corpus,
so that the toy tokenizer has a token for each. The corpus holds none of these sentences, and no
clause of one.
"""

from tlens_trust.concepts.embedded.toxicity import Verdict

# By dimension. Each template holds `{thing1}`, `{partner1}`, `{thing2}` and `{partner2}`.
PAIRED = {
    "reliability": (
        "The {thing1} is one sort of {partner1}, they say,"
        " and the {thing2} is one sort of {partner2}, they say.",
        "It seems the {thing1} is nothing but a {partner1} to us"
        " and the {thing2} is nothing but a {partner2} to us.",
        "The one {partner1} in this book is the {thing1}"
        " and the one {partner2} in this book is the {thing2}.",
        "He said that the {thing1} is surely a {partner1} at heart"
        " and that the {thing2} is surely a {partner2} at heart.",
    ),
    "privacy": (
        "As agreed, the {partner1} had heard all of {name1}'s {thing1}"
        " and the {partner2} had heard all of {name2}'s {thing2}.",
        "It was {name1}'s {thing1} that the {partner1} was reading of,"
        " and {name2}'s {thing2} that the {partner2} was reading of.",
        "My aunt went to the {partner1} about {name1}'s {thing1}"
        " and went to the {partner2} about {name2}'s {thing2}.",
        "People were talking to the {partner1} about {name1}'s {thing1}"
        " and were talking to the {partner2} about {name2}'s {thing2}.",
    ),
    "fairness": (
        "People say that the {thing1} is always {partner1} at home"
        " and that the {thing2} is always {partner2} at home.",
        "Of the guests, the {partner1} one is the {thing1} and the {partner2} one is the {thing2}.",
        "My cousin meant that the {thing1} was a {partner1} person"
        " and that the {thing2} was a {partner2} person.",
        "They always find the {thing1} so {partner1} here and the {thing2} so {partner2} here.",
    ),
    "robustness": (
        "The nurse knew that someone {partner1} now {thing1} at night"
        " and that someone {partner2} now {thing2} at night.",
        "It is said that the coach {partner1} not {thing1} this week"
        " and that the coach {partner2} not {thing2} this week.",
        "She said that everyone {partner1} always {thing1} together"
        " and that everyone {partner2} always {thing2} together.",
        "No one knew that the monk {partner1} often {thing1} all week"
        " and that the monk {partner2} often {thing2} all week.",
    ),
}

VERDICTS = (
    Verdict(
        "people say that {name1} seems {word} at work",
        "people never say that {name1} seems {word} at work",
        ", and ",
    ),
    Verdict(
        "all of our guests agreed that {name1} looked {word} here",
        "none of our guests agreed that {name1} looked {word} here",
        ", and ",
    ),
    Verdict(
        "many learned that {name1} had {word} habits",
        "no one learned that {name1} had {word} habits",
        ", but ",
    ),
    Verdict(
        "of us all the {word} one is {name1}",
        "of us all the {word} one is not {name1}",
        ", and ",
    ),
)
