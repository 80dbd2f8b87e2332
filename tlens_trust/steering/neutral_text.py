"""Plain text on which the damage of steering is measured.

Nothing in it is about reliability, privacy, toxicity, fairness or robustness, so that what steering
changes here is what it was not meant to change.
"""

from typing import Any

NEUTRAL_TEXT = (
    "The train left the station ten minutes late, and most of the seats were empty.",
    "She put the kettle on the stove and looked for two clean cups.",
    "In the afternoon the wind turned, and clouds came in from the sea.",
    "The road runs along the river for a few miles and then climbs into the hills.",
    "He folded the letter, put it back into the envelope and laid it on the desk.",
    "There are four chairs around the table, and a lamp hangs above it.",
    "The bakery opens at six, and by seven there is usually a short line at the door.",
    "We walked through the market and bought apples, cheese and a loaf of bread.",
    "The river is wide at this point, and a ferry crosses it every half hour.",
    "After dinner they cleared the table and washed the plates.",
    "The path through the woods was covered with leaves, and it was easy to lose.",
    "My sister plays the piano in the evening, mostly slow pieces that she knows by heart.",
    "The museum is closed on Mondays, but the garden behind it is open all week.",
    "It snowed during the night, and in the morning the roofs were white.",
    "The carpenter measured the board twice before he cut it.",
    "A bus stops in front of the library every fifteen minutes.",
    "The children built a small dam out of stones and watched the water rise.",
    "On the second floor there is a long corridor with windows on both sides.",
    "The recipe calls for two eggs, a cup of flour and a pinch of salt.",
    "They painted the fence green, and the gate a little darker.",
    "The old clock in the hall strikes the hours, but nobody listens to it any more.",
    "In spring the farmer ploughs the field, and in autumn he brings in the hay.",
    "The film lasted almost three hours, with a short break in the middle.",
    "He took off his coat, hung it over the chair and sat down by the window.",
    "The village has one street, one shop and a square with a well.",
    "We missed the first ferry and waited for the next one on the pier.",
    "The printer is out of paper, and there is some more in the cupboard.",
    "She planted tomatoes along the wall, where they get the most sun.",
    "The bridge was built of stone, and carts still cross it.",
    "At night you can hear the trains on the other side of the valley.",
    "The tea was still hot when the guests came in from the garden.",
    "He counted the boxes again and wrote the number on a sheet of paper.",
    "The map shows the lake to the north of the town and the forest to the east.",
    "They moved the sofa closer to the fire and the bookcase to the other wall.",
    "The swimming pool is heated in winter and closed for repairs in May.",
    "A light rain fell in the morning, and by noon the streets were dry again.",
    "The tailor took the measurements and asked for the cloth to be ready on Friday.",
    "There was a candle on every table and a vase with two flowers.",
    "The hikers reached the hut before dark and lit the stove.",
    "The photograph on the wall shows the harbour as it was a hundred years ago.",
)

# In words that the toy's tokenizer knows; it spells the text above letter by letter.
TOY_NEUTRAL_TEXT = (
    "The cook went home at noon and left the book here.",
    "In autumn it rains, and in spring it rains often.",
    "She went home when noon came.",
    "We reached the court at noon and left at night.",
    "It snows, and most of our guests stayed at home.",
    "The page was left under the tree.",
    "They travelled all day and slept at night.",
    "In one week the weaver will write a book.",
    "He said nothing and went to work.",
    "We had many guests in spring, and some in autumn.",
    "The work was to be shown at noon.",
    "Anna left a page of the essay here.",
    "When it rains, we work at home.",
    "The book is about a day in autumn.",
    "She went home, and he went to work.",
    "It was night when they reached home.",
    "The gardener went to the tree and knelt under it.",
    "They arrived together and left together.",
    "One day in spring the sailor travelled home.",
    "He learned to paint while it snows.",
    "The guests went to the court at noon.",
    "All week they stayed here and no one came.",
    "We said it to the neighbour, and the neighbour knew it.",
    "At noon the cook dozed under the tree.",
    "She left the file at home and went to work.",
    "The essay is on the page that we had.",
    "In autumn we paint, and in spring we climb.",
    "The teacher said that the book was at home.",
    "They stayed a week, and when it rains they work.",
    "It rains, and he will drive us home.",
    "We left the court at noon, and it was spring.",
    "The day came when the book was shown to us.",
    "Our cousin came at night and left at noon.",
    "He had to work, so we went home.",
    "At night they slept, and at noon they went to work.",
    "The tutor left a page, and we learned it.",
    "You say that it rains, and we say that it snows.",
    "She said nothing, and he said nothing.",
    "The watchmaker went to work in autumn.",
    "All week it rains here, and no guests came.",
)


def neutral_text(tokenizer: Any) -> tuple[str, ...]:
    """The embedded text that a tokenizer can take in words.

    Args:
        tokenizer: The model's own.

    Returns:
        Forty sentences of English prose; or, where the tokenizer spells these out in pieces, more
        than two and a half to a word, sentences in the few words of the toy series.
    """
    pieces = sum(map(len, tokenizer(list(NEUTRAL_TEXT), add_special_tokens=False)["input_ids"]))
    words = sum(len(text.split()) for text in NEUTRAL_TEXT)
    return NEUTRAL_TEXT if pieces <= _PIECES_PER_WORD * words else TOY_NEUTRAL_TEXT


_PIECES_PER_WORD = 2.5
