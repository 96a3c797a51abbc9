"""SmolLM2's tokenizer as TinyMU uses it: "!" is split off first, and nothing is added."""

from collections.abc import Iterable, Sequence

from tinymu_jax.errors import InputError

END_TEXT = "<|endoftext|>"


class Tokenizer:
    """Text to token ids and back."""

    def __init__(self, text: str, pad_token: int = 17, where: str = "tokenizer.json") -> None:
        """Builds it from the text of a `tokenizer.json`.

        Raises:
            InputError: no tokenizer, or one in which "!" is not `pad_token`.
        """
        from tokenizers import AddedToken
        from tokenizers import Tokenizer as Fast

        self.text = text
        try:
            self._fast = Fast.from_str(text)
        except Exception as error:
            raise InputError(
                f"{where}: is no tokenizer ({str(error).splitlines()[0]}); use the decoder's own "
                "tokenizer.json"
            ) from error
        # A file may have been saved with these on; they would change what is asked.
        self._fast.no_padding()
        self._fast.no_truncation()
        # The published code declares "!" the pad token. From then on it is cut out of a text
        # before byte pairs are merged: "!!" is two tokens, whatever the vocabulary holds.
        self._fast.add_special_tokens([AddedToken("!", special=True, normalized=False)])
        if self._fast.token_to_id("!") != pad_token:
            raise InputError(
                f'{where}: "!" is token {self._fast.token_to_id("!")}, this model pads with '
                f"{pad_token}; use the decoder's own tokenizer.json"
            )

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of a text; no special tokens are added."""
        return self._fast.encode(text, add_special_tokens=False).ids

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of token ids up to the end token.

        Special tokens are kept, since "!" is one.
        """
        return self._fast.decode(list(tokens), skip_special_tokens=False).split(END_TEXT)[0]


SPECIAL_TOKENS = (
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
)
"""Tokens 0 to 16; "!" comes next and is 17, which TinyMU pads with."""


def train_tokenizer(texts: Iterable[str], size: int = 768) -> str:
    """Learns byte pairs from texts; returns the text of a `tokenizer.json`.

    Args:
        texts: that it is made for; any other text can be written with it too.
        size: of the vocabulary; fewer tokens where the texts give no more.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    # As SmolLM2's: digits one by one, then bytes.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str()
