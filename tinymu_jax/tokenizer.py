"""SmolLM2's tokenizer as TinyMU uses it, and training of new tokenizers in the same format."""

from collections.abc import Iterable, Sequence

from tinymu_jax.errors import InputError

END_TEXT = "<|endoftext|>"
MAX_UNUSED = 127
"""Largest number of embeddings without a token of a decoder whose tokenizer is named apart from it:
sizes are often rounded up to a multiple of 64 or 128. With more, it is taken for another's."""


class Tokenizer:
    """Converts text to token ids and back; "!", the pad token of TinyMU, is a special token."""

    def __init__(
        self,
        text: str,
        pad_token: int | None = 17,
        source: str = "tokenizer.json",
        vocab_size: int | None = None,
        max_unused: int | None = None,
    ) -> None:
        """Create a tokenizer from `text`, the content of a `tokenizer.json`.

        `pad_token` is the id that "!" must have, or None for any id (of a decoder that is not in a
        TinyMU). `source` is the file's name in error messages. `vocab_size` is the decoder's, and
        `max_unused` how many of its embeddings may be without a token; None: any number.

        Raises:
            InputError: the content is not a tokenizer, the token id of "!" is not `pad_token`, or
                the number of tokens does not fit `vocab_size`.
        """
        from tokenizers import AddedToken
        from tokenizers import Tokenizer as Fast

        self.text = text
        try:
            self._fast = Fast.from_str(text)
        except Exception as error:
            raise InputError(
                f"{source}: is not a tokenizer ({str(error).splitlines()[0]}); use the decoder's "
                "tokenizer.json"
            ) from error
        # The file may have been saved with padding or truncation enabled.
        self._fast.no_padding()
        self._fast.no_truncation()
        # "!" is special in the published code, so that "!!" becomes two tokens.
        self._fast.add_special_tokens([AddedToken("!", special=True, normalized=False)])
        if pad_token is not None and self._fast.token_to_id("!") != pad_token:
            raise InputError(
                f'{source}: "!" is token {self._fast.token_to_id("!")}, this model pads with '
                f"{pad_token}; use the decoder's tokenizer.json"
            )
        size = self._fast.get_vocab_size()
        if vocab_size is not None and not (
            0 <= vocab_size - size <= (vocab_size if max_unused is None else max_unused)
        ):
            raise InputError(
                f"{source}: has {size:,} tokens, the decoder {vocab_size:,}; use the decoder's "
                "tokenizer.json"
            )

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, without adding special tokens."""
        return self._fast.encode(text, add_special_tokens=False).ids

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of the tokens before the first end token; special tokens are kept."""
        return self._fast.decode(list(tokens), skip_special_tokens=False).split(END_TEXT)[0]


class TextStream:
    """Converts the tokens of an answer to pieces of text while the answer is generated."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self._text, self._yielded = tokenizer, "", ""

    def add(self, tokens: Sequence[int]) -> str:
        """Return the text that is new in the answer's tokens so far; it may be empty."""
        self._text = self._tokenizer.decode(tokens)
        # A character of several bytes is held back until all its bytes are generated.
        return self._advance(self._text.rstrip("\ufffd"))

    def finish(self) -> str:
        """Return the text that was held back, at the end of the answer."""
        return self._advance(self._text)

    def _advance(self, text: str) -> str:
        piece = text[len(self._yielded) :]
        self._yielded += piece
        return piece


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
"""Tokens with the ids 0 to 16. Id 17 is "!", with which TinyMU pads prompts."""


def train_tokenizer(texts: Iterable[str], size: int = 768) -> str:
    """Train a byte-level BPE tokenizer of up to `size` tokens; return its `tokenizer.json` text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    # As in SmolLM2, digits are split off first; the rest is split into words of bytes.
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
