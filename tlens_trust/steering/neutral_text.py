"""Plain text on which the damage of steering is measured.

Nothing in it is about reliability, privacy, toxicity, fairness or robustness. So whatever steering
changes here is an unintended change.
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

# Such passages stand in the toy corpus, in words that its tokenizer knows, and hold no statement of
# the embedded sets; a model of the toy series has never seen prose like the above.
TOY_NEUTRAL_TEXT = (
    "Let us ski together. Having slept enough, we left. They were laughing loudly.",
    "Having slept enough, we left. They were dreaming loudly. Having wept enough, we left.",
    "The exam counts. The rash hurts. The fever hurts.",
    "Let us knit together. They were walking loudly. Let us sing together.",
    "They were smiling loudly. Let us whistle together. Let us juggle together.",
    "Let us climb together. Having knelt enough, we left. Having shivered enough, we left.",
    "The gull sings. The lark sings. The beech grows.",
    "Let us sing together. Having wept enough, we left. Let us whistle together.",
    "They were laughing loudly. Let us whistle together. Let us climb together.",
    "The willow grows. The bream swims. The raven sings.",
    "Let us ski together. They were working loudly. Let us drive together.",
    "The essay counts. The fever hurts. The loan costs.",
    "Having arrived enough, we left. Having shivered enough, we left. They were shouting loudly.",
    "The fever hurts. The rash hurts. The loan costs.",
    "The homework counts. The diagnosis hurts. The exam counts.",
    "The birch grows. The salmon swims. The herring swims.",
    "The allergy hurts. The spelling counts. The homework counts.",
    "Having prayed enough, we left. They were working loudly. Having travelled enough, we left.",
    "The mortgage costs. The fever hurts. The rash hurts.",
    "The gull sings. The lark sings. The bream swims.",
    "Having knelt enough, we left. They were working loudly. Having stumbled enough, we left.",
    "The raven sings. The gull sings. The stork sings.",
    "They were smiling loudly. Having dozed enough, we left. Let us ski together.",
    "Let us whistle together. Having coughed enough, we left. Having stumbled enough, we left.",
    "The rash hurts. The spelling counts. The exam counts.",
    "The oak grows. The trout swims. The willow grows.",
    "The allergy hurts. The exam counts. The debt costs.",
    "Let us swim together. They were talking loudly. Having travelled enough, we left.",
    "They were laughing loudly. They were dreaming loudly. Let us dance together.",
    "Having knelt enough, we left. Let us swim together. Having prayed enough, we left.",
    "The tuna swims. The bream swims. The maple grows.",
    "The gull sings. The stork sings. The tuna swims.",
    "Having knelt enough, we left. Let us sing together. Having vanished enough, we left.",
    "The swan sings. The pine grows. The owl sings.",
    "Having arrived enough, we left. Let us climb together. Having vanished enough, we left.",
    "Let us drive together. Let us whistle together. Let us cook together.",
    "The cod swims. The larch grows. The pike swims.",
    "The debt costs. The fever hurts. The spelling counts.",
    "The overdraft costs. The spelling counts. The rash hurts.",
    "Having travelled enough, we left. Let us sing together. Having wept enough, we left.",
)


def neutral_text(tokenizer: Any) -> tuple[str, ...]:
    """The embedded text that suits a tokenizer.

    Args:
        tokenizer: The model's own.

    Returns:
        Forty sentences of English prose. If the tokenizer needs more than two and a half tokens per
        word for them, forty passages in the vocabulary of the toy series.
    """
    pieces = sum(map(len, tokenizer(list(NEUTRAL_TEXT), add_special_tokens=False)["input_ids"]))
    words = sum(len(text.split()) for text in NEUTRAL_TEXT)
    return NEUTRAL_TEXT if pieces <= _PIECES_PER_WORD * words else TOY_NEUTRAL_TEXT


# The tokenizer of the toy series spells words that it does not know letter by letter.
_PIECES_PER_WORD = 2.5
