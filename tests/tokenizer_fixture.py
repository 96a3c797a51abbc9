"""A small byte-level tokenizer that is built like SmolLM2's, trained on the spot."""

from functools import lru_cache

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<repo_name>",
    "<reponame>",
    "<file_sep>",
    "<filename>",
    "<gh_stars>",
    "<issue_start>",
    "<issue_comment>",
    "<issue_closed>",
    "<jupyter_start>",
    "<jupyter_text>",
    "<jupyter_code>",
    "<jupyter_output>",
    "<jupyter_script>",
    "<empty_output>",
]
"""Ids 0 to 16; the sorted byte alphabet follows, "!" first."""
VOCABULARY = 512
"""At most; that of the golden model."""

# Merges of "!" with its neighbours are learnt, so that splitting it off first makes a difference.
CORPUS = [
    "What is the main instrument of this song? The main instrument is a guitar!!",
    "How fast is the music? It is slow!! The mood is calm != sad, not loud != quiet!!",
    "Hello! Hello! Which genre is it? Jazz! Rock! Is there a singer in this song? Yes!!",
    "The drums and the bass play together; the trumpet plays the melody. Wow!! != !! !=",
    "A female voice sings softly over an acoustic piano, strings and synthesizer pads.",
    "Question: Which of these describes the tempo best? Options: (A) fast (B) medium (C) slow",
    "The correct answer is: (B) a waltz with violin, cello, flute, harp and clarinet.",
    "Déjà vu à l'opéra, 音楽は楽しい, музыка 🎸🎺",
]


@lru_cache(maxsize=1)
def tokenizer_text() -> str:
    """Returns the text of the `tokenizer.json`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=1,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 4, trainer)
    return tokenizer.to_str()
