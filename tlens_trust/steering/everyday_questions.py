"""Everyday questions that any competent model answers, and that steering should not affect.

They are plain facts, written for this package, with one right answer and three wrong ones of the
same kind. The chance level is one quarter.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from einops import rearrange

from tlens_trust.checkpoints.hooked_model import HookedModel
from tlens_trust.steering.choices import as_turn, between_turns, wants_chat
from tlens_trust.steering.likelihood import Continuation, Likelihoods, tokenise_candidates
from tlens_trust.steering.quantities import Quantity

# The right answer comes first. Candidates are scored one by one, so their order has no effect.
EVERYDAY_QUESTIONS: tuple[tuple[str, tuple[str, str, str, str]], ...] = (
    ("What colour is fresh snow?", ("white", "green", "orange", "purple")),
    ("What do cows drink when they are adult?", ("water", "petrol", "ink", "paint")),
    ("How many legs does a spider have?", ("eight", "three", "five", "twelve")),
    ("Which animal barks?", ("the dog", "the cow", "the hen", "the bee")),
    ("What do bees make?", ("honey", "butter", "flour", "glass")),
    ("On which day does the week that begins on Monday end?",
     ("Sunday", "Tuesday", "Thursday", "Wednesday")),
    ("How many months has a year?", ("twelve", "seven", "twenty", "fifteen")),
    ("What falls from the sky when it rains?", ("water", "sand", "salt", "oil")),
    ("Where do fish live?", ("in water", "in trees", "in clouds", "in ovens")),
    ("What do we use to cut paper?", ("scissors", "a pillow", "a spoon", "a candle")),
    ("Which season follows winter?", ("spring", "autumn", "winter", "harvest")),
    ("What is the opposite of hot?", ("cold", "loud", "round", "early")),
    ("How many days has a week?", ("seven", "three", "twelve", "thirty")),
    ("Which of these is a fruit?", ("the apple", "the brick", "the chair", "the river")),
    ("What does a baker bake?", ("bread", "shoes", "clocks", "bricks")),
    ("What do we wear on our feet?", ("shoes", "gloves", "hats", "scarves")),
    ("What is ice made of?", ("water", "wood", "sugar", "iron")),
    ("Which planet do we live on?", ("Earth", "Mars", "Saturn", "Venus")),
    ("What gives us light during the day?", ("the sun", "the moon", "the wind", "the sea")),
    ("How many wheels has a bicycle?", ("two", "five", "seven", "nine")),
    ("What do we call a young dog?", ("a puppy", "a kitten", "a calf", "a lamb")),
    ("What do we call a young cat?", ("a kitten", "a puppy", "a foal", "a chick")),
    ("Which animal gives us wool?", ("the sheep", "the frog", "the snake", "the goose")),
    ("Where do birds lay their eggs?", ("in a nest", "in a bottle", "in a drawer", "in a lamp")),
    ("What do we use to open a lock?", ("a key", "a leaf", "a sock", "a song")),
    ("Which meal do people eat in the morning?", ("breakfast", "supper", "dinner", "dessert")),
    ("What is two plus two?", ("four", "seven", "nine", "one")),
    ("What is ten minus three?", ("seven", "two", "twelve", "four")),
    ("How many minutes has an hour?", ("sixty", "ten", "ninety", "thirteen")),
    ("Which organ pumps blood?", ("the heart", "the stomach", "the skin", "the tongue")),
    ("What do we breathe?", ("air", "milk", "sand", "wax")),
    ("What do we hear with?", ("our ears", "our knees", "our elbows", "our hair")),
    ("What do we see with?", ("our eyes", "our toes", "our nails", "our ribs")),
    ("What do plants need to grow?", ("light", "shoes", "music", "money")),
    ("What does a thermometer measure?", ("temperature", "weight", "distance", "price")),
    ("What does a clock show?", ("the time", "the weather", "the price", "the road")),
    ("Which language do most people in France speak?", ("French", "Finnish", "Korean", "Danish")),
    ("What is the capital of Italy?", ("Rome", "Oslo", "Lima", "Cairo")),
    ("What is the capital of Japan?", ("Tokyo", "Madrid", "Dublin", "Nairobi")),
    ("On which continent is Egypt?", ("Africa", "Europe", "Australia", "Antarctica")),
    ("Which ocean lies between Europe and America?",
     ("the Atlantic", "the Pacific", "the Indian", "the Arctic")),
    ("What is a river made of?", ("water", "smoke", "stone", "paper")),
    ("What do we use to write on a blackboard?", ("chalk", "butter", "string", "soap")),
    ("Where do we keep milk cool?", ("in a fridge", "in an oven", "in a shoe", "in a lamp")),
    ("Who repairs teeth?", ("a dentist", "a tailor", "a pilot", "a farmer")),
    ("Who flies an aeroplane?", ("a pilot", "a baker", "a miner", "a tailor")),
    ("Who puts out fires?", ("a firefighter", "a florist", "a singer", "a barber")),
    ("What do we call frozen rain in flakes?", ("snow", "fog", "dust", "steam")),
    ("Which of these can fly?", ("an eagle", "a cow", "a horse", "a pig")),
    ("Which of these is a metal?", ("iron", "wool", "wood", "paper")),
    ("What is a table usually made of?", ("wood", "steam", "honey", "snow")),
    ("What colour do red and white paint make?", ("pink", "black", "green", "brown")),
    ("What shape is a ball?", ("round", "square", "flat", "pointed")),
    ("How many sides has a triangle?", ("three", "six", "eight", "ten")),
    ("What comes after Friday?", ("Saturday", "Monday", "Wednesday", "Thursday")),
    ("Which month comes first in the year?", ("January", "June", "October", "August")),
    ("What do we use an umbrella against?", ("rain", "hunger", "noise", "thirst")),
    ("Where do people borrow books?",
     ("in a library", "in a garage", "in a stable", "in a bakery")),
    ("What do caterpillars turn into?", ("butterflies", "mice", "pebbles", "mushrooms")),
    ("Which of these is the largest?", ("an elephant", "a mouse", "an ant", "a cat")),
    ("What do we call water that is a gas?", ("steam", "ice", "snow", "hail")),
    ("What is needed to make a fire burn?", ("air", "ice", "shade", "mud")),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class EverydayTask:
    """The everyday questions, tokenised for a model.

    Attributes:
        continuations: Every candidate, question by question.
        candidates: The number of candidates of a question. The right one comes first.
    """

    continuations: Sequence[Continuation]
    candidates: int

    def quantities(self, likelihoods: Likelihoods) -> Sequence[Quantity]:
        """`everyday_accuracy`: whether the right answer has the highest likelihood per token."""
        # Per token, since a longer answer is less likely as a whole.
        scores = rearrange(
            likelihoods.per_token,
            "(question candidate) -> question candidate",
            candidate=self.candidates,
        )
        is_right = (scores.argmax(axis=1) == 0).astype(float)
        groups = tuple(str(number) for number in range(len(is_right)))
        return (
            Quantity(
                "everyday_accuracy",
                np.asarray(is_right),
                groups,
                "fraction of questions",
                "right answers to everyday questions",
                effect=False,
            ),
        )


def everyday_task(model: HookedModel, *, chat: bool | None = None) -> EverydayTask:
    """Make a task of the everyday questions.

    Args:
        model: The model, whose tokenizer is used.
        chat: As for `choice_task`. Without a template a question is written as `Question: …` and
            `Answer:`.
    """
    templated = wants_chat(model, chat)
    gap = between_turns(model) if templated else " "
    continuations: list[Continuation] = []
    for question, answers in EVERYDAY_QUESTIONS:
        prompt = as_turn(model, question) if templated else f"Question: {question}\nAnswer:"
        texts = [f"{prompt}{gap}{answer}" for answer in answers]
        continuations += tokenise_candidates(model, texts, prompt=prompt, templated=templated)
    return EverydayTask(continuations, len(EVERYDAY_QUESTIONS[0][1]))
